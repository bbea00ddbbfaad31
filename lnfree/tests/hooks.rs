//! What README promises of hooks: every activation of every block is seen, kept and replaced, whatever path a
//! forward takes.

mod common;

use std::collections::BTreeMap;

use common::{max_abs, relative_rms, tensors, vector};
use lnfree::Error;
use lnfree::export::fold;
use lnfree::hook::{Activation, Capture, Hook, NoHook, only, without_patterns};
use lnfree::model::{Compute, Gpt2, LoadedModel};
use lnfree::norm::{LnSite, LnState, NormSettings, RemovalKind};
use lnfree::tch::{self, Device, Kind, Tensor};

const LAYERS: usize = 3;

type Change<'a> = &'a dyn Fn(&Tensor) -> Tensor;

/// A model, its LN state and how it computes: one way through a forward.
struct Way {
    name: String,
    model: Gpt2,
    ln: LnState,
    compute: Compute,
}

impl Way {
    fn logits(&self, hook: &mut dyn Hook) -> Tensor {
        self.try_logits(hook).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn try_logits(&self, hook: &mut dyn Hook) -> lnfree::Result<Tensor> {
        self.model.forward(&ids(), &self.ln, self.compute, hook).map(|x| x.to_kind(Kind::Float))
    }
}

fn tiny() -> Gpt2 {
    LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap().model
}

fn ids() -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 2).narrow(1, 0, 12)
}

/// LN real, half of them fake, all fake, folded into the matrices, and both exports; float32 and bfloat16;
/// with and without observing.
fn ways() -> Vec<Way> {
    let stds = [(1.3, 2.0); 2 * LAYERS + 1];
    let fake = |kinds: &[RemovalKind]| {
        let mut ln = LnState::real(&stds, NormSettings::default(), Device::Cpu);
        kinds.iter().for_each(|&kind| ln.remove(kind, None));
        ln
    };
    let half = [RemovalKind::Ln2, RemovalKind::Ln1Qk];
    let states: [(&str, &[RemovalKind]); 3] = [("real", &[]), ("half", &half), ("fake", &RemovalKind::ALL)];
    let mut out = Vec::new();
    for dtype in [Kind::Float, Kind::BFloat16] {
        let compute = Compute { dtype, ..Compute::default() };
        let folded = fold(&tiny(), &[1.3; 2 * LAYERS + 1]).unwrap();
        let ln = LnState::plain(LAYERS, Device::Cpu);
        out.push(Way { name: format!("export without LN, {dtype:?}"), model: folded, ln, compute });
        let LoadedModel { model, ln, .. } =
            LoadedModel::load(&vector("exported_noln"), None, Kind::Float, Device::Cpu).unwrap();
        out.push(Way { name: format!("export with LN in name, {dtype:?}"), model, ln, compute });
        for (name, kinds) in states {
            for (observe, kept) in [(false, true), (true, true), (false, false)] {
                let (model, ln) = (tiny(), fake(kinds));
                let compute = Compute { dtype, observe, dropout_seed: None };
                let model = if kept { model } else { model.for_inference(&ln, dtype).unwrap() };
                out.push(Way { name: format!("{name} {dtype:?} {observe} {kept}"), model, ln, compute });
            }
        }
    }
    out
}

impl Way {
    /// Every activation there is, with its shape.
    fn all(&self) -> BTreeMap<Activation, Vec<i64>> {
        use Activation::*;
        let stream = vec![2, 12, 64];
        let mut out: BTreeMap<_, _> =
            [Embed, PosEmbed, Normalized(LnSite::LnF)].map(|at| (at, stream.clone())).into();
        let mut norm = |site, is_there: bool| {
            if is_there {
                out.extend([(Scale(site), vec![2, 12, 1]), (Normalized(site), stream.clone())]);
            }
        };
        norm(LnSite::LnF, self.model.ln_f.is_some());
        for (l, block) in self.model.h.iter().enumerate() {
            norm(LnSite::Ln1Qk(l), block.ln_1.is_some());
            norm(LnSite::Ln1V(l), block.ln_1.is_some() && !self.ln.faces_agree(l, self.compute.observe));
            norm(LnSite::Ln2(l), block.ln_2.is_some());
        }
        for l in 0..LAYERS {
            let (head, square) = (vec![2, 12, 4, 16], vec![2, 4, 12, 12]);
            out.extend([ResidPre, AttnOut, ResidMid, MlpOut, ResidPost].map(|of| (of(l), stream.clone())));
            out.extend([Q, K, V, Z].map(|of| (of(l), head.clone())));
            out.extend([AttnScores, Pattern].map(|of| (of(l), square.clone())));
            out.extend([MlpPre, MlpPost].map(|of| (of(l), vec![2, 12, 256])));
        }
        out
    }
}

#[test]
fn a_closure_and_a_capture_get_every_activation_once_on_every_way() {
    let _guard = tch::no_grad_guard();
    for way in ways() {
        let mut seen = BTreeMap::new();
        let mut look = |at: Activation, x: Tensor| {
            assert!(seen.insert(at, x.copy()).is_none(), "{}: {at:?} twice", way.name);
            x
        };
        let logits = way.logits(&mut look);
        let shapes: BTreeMap<_, _> = seen.iter().map(|(at, x)| (*at, x.size())).collect();
        assert_eq!(shapes, way.all(), "{}", way.name);
        let limit = if way.compute.dtype == Kind::Float { 1e-5 } else { 2e-2 };
        let plain = way.logits(&mut NoHook);
        assert!(relative_rms(&logits, &plain) < limit, "{}: looking changes the logits", way.name);
        let mut kept = Capture::of(way.all().into_keys()).unwrap();
        let _ = way.logits(&mut kept);
        for (at, x) in &seen {
            // Scores are −∞ where nothing is looked at.
            let [x, kept] = [x, kept.get(*at).unwrap()].map(|x| x.nan_to_num(0.0, 1e4, -1e4));
            assert_eq!(max_abs(&kept, &x), 0.0, "{}: {at:?}", way.name);
        }
    }
}

#[test]
fn what_replaces_an_activation_is_what_the_forward_goes_on_with() {
    let _guard = tch::no_grad_guard();
    for way in ways() {
        let mut untouched = |_: Activation, x: Tensor| x;
        let plain = way.logits(&mut untouched);
        for wanted in way.all().into_keys() {
            // Zeros without memory of their own, and a layout that no kernel of a forward makes.
            let zeros = |x: Tensor| Tensor::zeros([1], (x.kind(), x.device())).expand_as(&x);
            let turned = |x: Tensor| x.roll([1], [-1]).transpose(0, 1).contiguous().transpose(0, 1);
            let doubled = |x: Tensor| x * 2.0;
            let changes: &[(&str, &dyn Fn(Tensor) -> Tensor)] = match wanted {
                // That of a fake LN is a constant, and nothing is divided by zero.
                Activation::Scale(_) => &[("doubled", &doubled)],
                _ => &[("zeros", &zeros), ("turned", &turned)],
            };
            for (what, change) in changes {
                let mut seen = BTreeMap::new();
                let mut patch = |at: Activation, x: Tensor| {
                    let x = if at == wanted { change(x) } else { x };
                    seen.insert(at, x.copy());
                    x
                };
                let patched = way.logits(&mut patch);
                let moved = relative_rms(&patched, &plain);
                assert!(moved > 1e-4, "{}: {wanted:?} as {what} changes the logits by {moved:e}", way.name);
                // The same numbers, given in memory of their own, lead to the same logits.
                let value = &seen[&wanted];
                let mut dense = |at: Activation, x: Tensor| if at == wanted { value.copy() } else { x };
                let again = way.logits(&mut dense);
                let limit = 1e-2 * (1.0 + patched.abs().max().double_value(&[]));
                assert!(max_abs(&again, &patched) < limit, "{}: {wanted:?} as {what}", way.name);
            }
        }
    }
}

/// All that a residual stream determines follows from the patched one: the other text's logits.
#[test]
fn the_residual_stream_of_another_text_gives_the_logits_of_that_text() {
    let _guard = tch::no_grad_guard();
    for way in ways() {
        let stream = |l: usize| [Activation::ResidPre(l), Activation::ResidMid(l), Activation::ResidPost(l)];
        let places = (0..LAYERS).flat_map(stream).chain([Activation::Normalized(LnSite::LnF)]);
        let places: Vec<_> = places.collect();
        let mut other = Capture::of(&places).unwrap();
        let flipped = ids().flip([0]);
        let run = |hook: &mut dyn Hook| {
            let out = way.model.forward(&flipped, &way.ln, way.compute, hook).unwrap();
            out.to_kind(Kind::Float)
        };
        let expected = run(&mut other);
        for at in places {
            let value = other.get(at).unwrap();
            let mut patch = without_patterns(
                |here: Activation, x: Tensor| {
                    if here == at { value.shallow_clone() } else { x }
                },
            );
            let found = way.logits(&mut patch);
            let limit = if way.compute.dtype == Kind::Float { 1e-5 } else { 2e-2 };
            assert!(relative_rms(&found, &expected) < limit, "{}: {at:?}", way.name);
        }
    }
}

#[test]
fn what_lns_observe_is_the_patched_stream() {
    let _guard = tch::no_grad_guard();
    for way in ways().iter().filter(|way| way.compute.observe) {
        let observed = |factor: f64| {
            let mut pass = way.model.pass(&ids(), &way.ln, way.compute).unwrap();
            let mut patch =
                |at: Activation, x: Tensor| if at == Activation::ResidMid(1) { x * factor } else { x };
            let last = way.model.residual(&ids(), &mut pass, &mut patch);
            let _ = way.model.final_norm(&last, &mut pass, &mut patch);
            // Row 3 is ln_2 of block 1.
            pass.observations().unwrap().get(3)
        };
        assert!(max_abs(&(observed(1.0) * 3.0), &observed(3.0)) < 1e-3, "{}", way.name);
    }
}

#[test]
fn a_closure_may_do_without_patterns() {
    let _guard = tch::no_grad_guard();
    for way in ways() {
        let mut seen = Vec::new();
        let mut look = without_patterns(|at: Activation, x: Tensor| {
            seen.push(at);
            x
        });
        let _ = way.logits(&mut look);
        assert!(!seen.iter().any(|at| matches!(at, Activation::Pattern(_) | Activation::AttnScores(_))));
        assert_eq!(seen.len(), way.all().len() - 2 * LAYERS, "{}", way.name);
    }
}

#[test]
fn what_cannot_take_an_activations_place_is_an_error_that_names_it() {
    let _guard = tch::no_grad_guard();
    for way in ways().into_iter().step_by(5) {
        for (wanted, size) in way.all() {
            let other_kind = |x: &Tensor| x.to_kind(Kind::Double);
            let wrong: [(&str, Change); 6] = [
                ("less", &|x| x.narrow(1, 0, 1)),
                ("more", &|x| Tensor::cat(&[x, x], 0)),
                ("flat", &|x| x.reshape([-1])),
                ("kind", &other_kind),
                ("none", &|_| Tensor::new()),
                ("sparse", &|x| x.to_sparse(None, None::<&[i64]>, None)),
            ];
            for (what, wrong) in wrong {
                let mut calls_after = 0;
                let mut done = false;
                let mut hook = |at: Activation, x: Tensor| {
                    calls_after += usize::from(done);
                    done |= at == wanted;
                    if at == wanted { wrong(&x) } else { x }
                };
                let error = way.try_logits(&mut hook).unwrap_err();
                let Error::Hook { activation, .. } = &error else { panic!("{error}") };
                assert_eq!((activation, calls_after), (&wanted.to_string(), 0), "{}: {what}", way.name);
                let (text, name) = (error.to_string(), wanted.to_string());
                assert!(text.contains(&name) && text.contains(&format!("{size:?}")), "{text}");
                assert_eq!(text.lines().count(), 1);
            }
        }
    }
}

#[test]
fn parts_of_a_forward_leave_the_error_in_the_pass() {
    let _guard = tch::no_grad_guard();
    let (model, ln) = (tiny(), LnState::plain(LAYERS, Device::Cpu));
    let mut pass = model.pass(&ids(), &ln, Compute::default()).unwrap();
    let mut cut = |at: Activation, x: Tensor| if at == Activation::MlpOut(1) { x.narrow(0, 0, 1) } else { x };
    let residual = model.residual(&ids(), &mut pass, &mut cut);
    assert!(bool::try_from(residual.isnan().all()).unwrap(), "nothing is to be taken for a result");
    let error = pass.check().unwrap_err().to_string();
    assert!(
        error.contains("[1, 12, 64] Float on Cpu for blocks.1.hook_mlp_out, which is [2, 12, 64]"),
        "{error}"
    );
    assert!(pass.check().is_ok(), "an error is handed out once");
}

#[test]
fn a_capture_says_why_it_has_nothing() {
    let _guard = tch::no_grad_guard();
    let (model, ln) = (tiny(), LnState::plain(LAYERS, Device::Cpu));
    let mut kept =
        Capture::of(["blocks.0.attn.hook_z".to_string(), Activation::Z(LAYERS).to_string()]).unwrap();
    let why = |kept: &Capture, at: Activation| kept.get(at).unwrap_err().to_string();
    assert!(why(&kept, Activation::Z(0)).contains("no forward"));
    let _ = model.forward(&ids(), &ln, Compute::default(), &mut kept).unwrap();
    assert_eq!(kept.get(Activation::Z(0)).unwrap().size(), [2, 12, 4, 16]);
    assert!(why(&kept, Activation::Z(LAYERS)).contains("does the model have that block"));
    assert!(why(&kept, Activation::Z(1)).contains("Capture::of"));
    // A shorter text replaces what the one before has left.
    let _ = model.forward(&ids().narrow(1, 0, 5), &ln, Compute::default(), &mut kept).unwrap();
    assert_eq!(kept.get(Activation::Z(0)).unwrap().size(), [2, 5, 4, 16]);
}

/// The constant of a fake LN is what its scale is, and a real LN's is the σ of each token.
#[test]
fn the_scale_of_an_ln_is_what_it_divides_by() {
    let _guard = tch::no_grad_guard();
    for way in ways() {
        let mut kept = Capture::of(way.all().into_keys()).unwrap();
        let _ = way.logits(&mut kept);
        for (l, block) in way.model.h.iter().enumerate() {
            let Some(ln_2) = &block.ln_2 else { continue };
            let site = LnSite::Ln2(l);
            let scale = kept.get(Activation::Scale(site)).unwrap();
            let read = kept.get(Activation::ResidMid(l)).unwrap();
            let sigma = (read.var_dim([-1i64].as_slice(), false, true) + ln_2.eps).sqrt();
            let expected = match way.ln.constant(site, way.compute.observe) {
                Some(std) => std.expand_as(scale),
                None if way.ln.mode(site).is_fake() => continue,
                None => sigma,
            };
            assert!(max_abs(scale, &expected) < 1e-4, "{} {site}", way.name);
        }
    }
}

#[test]
fn a_hook_of_one_activation_is_called_with_that_alone() {
    let _guard = tch::no_grad_guard();
    for way in ways() {
        for wanted in way.all().into_keys() {
            let mut calls = 0;
            let mut double = only(wanted, |x| {
                calls += 1;
                x * 2.0
            })
            .unwrap();
            let found = way.logits(&mut double);
            let mut closure = |at: Activation, x: Tensor| if at == wanted { x * 2.0 } else { x };
            let expected = way.logits(&mut closure);
            let limit = if way.compute.dtype == Kind::Float { 1e-5 } else { 3e-2 };
            assert!(relative_rms(&found, &expected) < limit, "{}: {wanted}", way.name);
            assert_eq!(calls, 1, "{}: {wanted}", way.name);
        }
    }
    assert!(
        only("blocks.0.hook_q", |x| x)
            .map(drop)
            .unwrap_err()
            .to_string()
            .contains("`blocks.0.attn.hook_q` is one")
    );
}

/// A hook may compute in the tensor it is given: nothing but this forward changes.
#[test]
fn a_hook_may_write_into_what_it_is_given() {
    let _guard = tch::no_grad_guard();
    let ids = ids().narrow(0, 0, 1).narrow(1, 0, 1);
    for way in ways() {
        let run = |hook: &mut dyn Hook| {
            way.model.forward(&ids, &way.ln, way.compute, hook).unwrap().to_kind(Kind::Float)
        };
        let before = run(&mut NoHook);
        for wanted in way.all().into_keys() {
            let expected = run(&mut only(wanted, |x| x * 2.0).unwrap());
            let found = run(&mut only(wanted, |mut x| x.g_mul_scalar_(2.0)).unwrap());
            let limit = if way.compute.dtype == Kind::Float { 1e-5 } else { 3e-2 };
            assert!(relative_rms(&found, &expected) < limit, "{}: {wanted}", way.name);
            assert_eq!(max_abs(&run(&mut NoHook), &before), 0.0, "{}: {wanted} stays changed", way.name);
        }
    }
}
