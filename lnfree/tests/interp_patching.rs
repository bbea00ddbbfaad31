//! Activation, attribution and path patching and ablation: the numbers of the paper's code, and what is
//! reused against whole forwards with a hook.

mod common;
#[path = "common/ln_states.rs"]
mod ln_states;

use std::cell::Cell;

use common::{max_abs, of_the_paper, tensors};
use ln_states::{load, states, texts};
use lnfree::hook::{Activation, Capture, NoHook, only, without_patterns};
use lnfree::interp::{
    Ablation, AttributionPatching, Component, EdgeAttribution, HeadSite, Means, Metric, Patching, Receiver,
    Sender, StreamSite, Substitute,
};
use lnfree::loss::{targets, token_losses};
use lnfree::model::{Compute, LoadedModel};
use lnfree::tch::{self, Device, Kind, Tensor, no_grad};

const SITES: [StreamSite; 4] =
    [StreamSite::ResidPre, StreamSite::ResidMid, StreamSite::AttnOut, StreamSite::MlpOut];

#[track_caller]
fn same(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let worst = max_abs(found, expected);
    let limit = 1e-5 * expected.abs().max().double_value(&[]).max(1.0);
    assert!(worst < limit, "{what}: largest difference {worst:e}");
}

/// Absolute 2e-5 or relative 1e-4: how far libraries differ.
#[track_caller]
fn near(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let beyond = (found - expected).abs() - (expected.abs() * 1e-4).clamp_min(2e-5);
    let worst = beyond.max().double_value(&[]);
    assert!(worst <= 0.0, "{what}: {worst:e} beyond the limit");
}

#[test]
fn patches_are_those_of_the_papers_code() {
    let recorded = tensors("interp_tensors.safetensors");
    let [clean, corrupted, answers] =
        ["clean_tokens", "corrupted_tokens", "answer_tokens"].map(|name| &recorded[&format!("patch.{name}")]);
    let runs = common::json("interp.json");
    for name in ["baseline", "finetuned", "noLN"] {
        let LoadedModel { model, ln, .. } = of_the_paper(name);
        let metric = Metric::logit_difference(answers);
        let patching = Patching::new(&model, &ln, clean, corrupted, &metric).unwrap();
        for (found, key) in [(&patching.clean, "clean"), (&patching.corrupted, "corrupted")] {
            let expected = runs["patching"][name][format!("{key}_logit_diff")].as_array().unwrap();
            let expected: Vec<f32> = expected.iter().map(|x| x.as_f64().unwrap() as f32).collect();
            near(found, &Tensor::from_slice(&expected), &format!("{name} {key}"));
        }
        let found = patching.by_position(StreamSite::ResidPre).unwrap();
        near(&found.effect(), &recorded[&format!("patch.activation.{name}")], name);
        let found = AttributionPatching::of(&model, &ln, clean, corrupted, &metric).unwrap();
        near(&found.resid_pre, &recorded[&format!("patch.attribution.{name}")], name);
        near(&found.corrupted, &patching.corrupted, name);
        near(&found.clean, &patching.clean, name);
    }
}

#[test]
fn what_is_reused_gives_what_whole_forwards_give() {
    let [clean, corrupted, answers] = texts();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        for site in SITES {
            let found = patching.by_position(site).unwrap().metric;
            let whole = patching.by_layer(site).unwrap().metric;
            for layer in 0..3 {
                let at = site.activation(layer);
                for pos in 0..6 {
                    let expected = patching.recompute(at, Some(pos), None).unwrap();
                    let found = found.get(layer as i64).get(pos);
                    same(&found, &expected, &format!("{name}: {at}, position {pos}"));
                }
                let expected = patching.recompute(at, None, None).unwrap();
                same(&whole.get(layer as i64), &expected, &format!("{name}: {at}"));
            }
        }
        for site in HeadSite::ALL {
            let found = patching.by_head(site).unwrap().metric;
            let by_position =
                (site != HeadSite::Pattern).then(|| patching.by_head_and_position(site).unwrap().metric);
            for (layer, head) in (0..3).flat_map(|layer| (0..4).map(move |head| (layer, head))) {
                let at = site.activation(layer);
                let expected = patching.recompute(at, None, Some(head)).unwrap();
                same(&found.get(layer as i64).get(head), &expected, &format!("{name}: {at} {head}"));
                for pos in [0, 2, 3, 5] {
                    let Some(found) = &by_position else { continue };
                    let found = found.get(layer as i64).get(pos).get(head);
                    let expected = patching.recompute(at, Some(pos), Some(head)).unwrap();
                    same(&found, &expected, &format!("{name}: {at} {head}, position {pos}"));
                }
            }
        }
        assert!(patching.by_head_and_position(HeadSite::Pattern).is_err());
    }
}

/// Metrics that read all logits, and one that reads a position before the last.
#[test]
fn any_metric_is_read_where_it_says() {
    let [clean, corrupted, _] = texts();
    let (model, ln) = load("checkpoint/step30");
    let next = Tensor::from_slice(&[9i64, 2, 45]);
    let logits = no_grad(|| model.forward(&clean, &ln, Compute::default(), &mut NoHook)).unwrap();
    let own = |metric: Metric, at: i64| {
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        same(&patching.clean, &metric.of_logits(&logits.select(1, at)).unwrap(), "of the clean run");
        let found = patching.by_position(StreamSite::ResidPre).unwrap();
        assert_eq!(found.metric.size(), [3, 6, 3]);
        for (layer, pos) in [(0, 2), (1, 3), (2, 3), (2, at)] {
            let expected = patching.recompute(Activation::ResidPre(layer), Some(pos), None).unwrap();
            same(&found.metric.get(layer as i64).get(pos), &expected, &format!("{layer}, {pos}"));
        }
        // What comes behind the position that is read cannot change it.
        if at < 5 {
            let behind = found.effect().narrow(1, at + 1, 5 - at);
            assert_eq!(max_abs(&behind, &behind.zeros_like()), 0.0);
            let attributed = AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).unwrap();
            assert_eq!(attributed.z.size(), [3, 6, 4, 3]);
            assert_eq!(max_abs(&attributed.resid_pre.narrow(1, at + 1, 5 - at), &behind), 0.0);
        }
        (patching.clean.copy(), patching.corrupted.copy())
    };
    let (loss, _) = own(Metric::loss(&next).at(4), 4);
    let expected = token_losses(&logits.narrow(1, 0, 5), &targets(&clean, None));
    same(&loss, &expected.select(1, 4), "loss");
    let (own_kl, other_kl) = own(Metric::kl_divergence(&logits.select(1, 5)), 5);
    assert!(own_kl.abs().max().double_value(&[]) < 1e-6, "no distance from itself");
    assert!(other_kl.max().double_value(&[]) > 1e-4);
    let largest = |logits: &Tensor| logits.amax([-1i64], false);
    let _ = own(Metric::new(largest), 5);
}

/// Values against whole logits, patches against whole forwards.
#[test]
fn a_metric_at_several_positions_is_the_mean_over_them() {
    let [clean, corrupted, _] = texts();
    let read = [1i64, 3, 4];
    let index = Tensor::from_slice(&read);
    let next = clean.index_select(1, &(&index + 1i64));
    let answers = Tensor::arange(18i64, (Kind::Int64, Device::Cpu)).view([3, 3, 2]) * 13i64;
    let mean = |x: &Tensor| x.mean_dim(-1i64, false, Kind::Float);
    let largest = |logits: &Tensor| logits.amax([-1i64], false);
    for (name, model, ln) in states() {
        let logits = no_grad(|| model.forward(&clean, &ln, Compute::default(), &mut NoHook)).unwrap();
        let there = logits.index_select(1, &index);
        let losses = token_losses(&logits.narrow(1, 0, 5), &targets(&clean, None)).index_select(1, &index);
        let found = there.gather(-1, &answers, false);
        let differences = found.select(2, 0) - found.select(2, 1);
        let none = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        for (what, metric, expected) in [
            ("loss", Metric::loss(&next), mean(&losses)),
            ("logit difference", Metric::logit_difference(&answers), mean(&differences)),
            ("distance from itself", Metric::kl_divergence(&there), none),
            ("largest logit", Metric::new(largest), mean(&largest(&there))),
        ] {
            let (what, metric) = (format!("{name}: {what}"), metric.at_positions(&read));
            same(&metric.of_logits(&there).unwrap(), &expected, &what);
            let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
            same(&patching.clean, &expected, &what);
            let streams = patching.by_position(StreamSite::AttnOut).unwrap();
            let heads = patching.by_head(HeadSite::V).unwrap().metric;
            let keys = patching.by_head_and_position(HeadSite::K).unwrap().metric;
            for (layer, pos) in (0..3).flat_map(|layer| (0..5).map(move |pos| (layer, pos))) {
                let of = |x: &Tensor| x.get(layer as i64).get(pos);
                let what = format!("{what}, block {layer}, position {pos}");
                let expected = patching.recompute(Activation::AttnOut(layer), Some(pos), None).unwrap();
                same(&of(&streams.metric), &expected, &what);
                let expected = patching.recompute(Activation::K(layer), Some(pos), Some(2)).unwrap();
                same(&of(&keys).get(2), &expected, &what);
            }
            for (layer, head) in (0..3).flat_map(|layer| (0..4).map(move |head| (layer, head))) {
                let expected = patching.recompute(Activation::V(layer), None, Some(head)).unwrap();
                same(&heads.get(layer as i64).get(head), &expected, &format!("{what}, head {layer}.{head}"));
            }
            // What comes behind the last position that is read cannot change it.
            let behind = streams.effect().narrow(1, 5, 1);
            assert_eq!(max_abs(&behind, &behind.zeros_like()), 0.0, "{what}");
            assert!(streams.effect().abs().max().double_value(&[]) > 0.0, "{what}: nothing was patched");
        }
        let shared = Metric::logit_difference(&answers.select(1, 0)).at_every_position();
        let found = logits.gather(-1, &answers.narrow(1, 0, 1).expand([3, 6, 2], false), false);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &shared).unwrap();
        same(&patching.clean, &mean(&(found.select(2, 0) - found.select(2, 1))), name);
    }
}

/// Everything that reads a metric is linear in it where it does not divide by it.
#[test]
fn what_is_found_at_several_positions_is_the_mean_of_what_is_found_at_each() {
    let [clean, corrupted, _] = texts();
    let read = [1i64, 3, 4];
    let answers = Tensor::arange(18i64, (Kind::Int64, Device::Cpu)).view([3, 3, 2]) * 13i64;
    let together = Metric::logit_difference(&answers).at_positions(&read);
    let each = (0i64..).zip(read).map(|(i, at)| Metric::logit_difference(&answers.select(1, i)).at(at));
    let each: Vec<Metric> = each.collect();
    for (name, model, ln) in states() {
        let check = |what: &str, found: &dyn Fn(&Metric) -> Tensor| {
            let parts: Vec<Tensor> = each.iter().map(found).collect();
            let expected = Tensor::stack(&parts, 0).mean_dim(0i64, false, Kind::Float);
            same(&found(&together), &expected, &format!("{name}: {what}"));
            assert!(max_abs(&parts[0], &parts[1]) > 1e-6, "{name}: {what}: all positions are alike");
        };
        let attributed =
            |metric: &Metric| AttributionPatching::of(&model, &ln, &clean, &corrupted, metric).unwrap();
        check("attribution of heads", &|metric| attributed(metric).z);
        check("metric of the corrupted run", &|metric| attributed(metric).corrupted);
        check("edges", &|metric| {
            EdgeAttribution::of(&model, &ln, &clean, &corrupted, metric).unwrap().scores
        });
        check("paths", &|metric| {
            let patching = Patching::new(&model, &ln, &clean, &corrupted, metric).unwrap();
            patching.paths_from_heads(Receiver::K { layer: 2, head: 1 }).unwrap().metric
        });
        check("ablations", &|metric| {
            let ablation = Ablation::new(&model, &ln, &clean, metric, Substitute::Zero).unwrap();
            ablation.every_head().unwrap().metric
        });
    }
}

#[test]
fn no_logits_are_made_that_a_metric_does_not_read() {
    let [clean, corrupted, _] = texts();
    let (model, ln) = load("checkpoint/step30");
    let called = Cell::new(0);
    let metric = Metric::new(|logits| {
        called.set(called.get() + 1);
        logits.amax([-1i64], false)
    });
    let metric = metric.at_positions(&[1, 4]);
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    assert_eq!(called.take(), 4, "two runs at two positions");
    patching.by_position(StreamSite::ResidPre).unwrap();
    // The texts differ at positions 2 and 3 and, behind block 0, at 4 too: none of these patches reaches
    // position 1.
    assert_eq!(called.take(), 2 + 3 + 3);
    patching.by_layer(StreamSite::ResidPre).unwrap();
    assert_eq!(called.take(), 3 * 2);
}

#[test]
fn between_the_two_runs() {
    let [clean, corrupted, answers] = texts();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        // All of the stream before the first block is the clean run.
        let all = patching.by_layer(StreamSite::ResidPre).unwrap();
        let first = all.metric.get(0);
        same(&first, &patching.recompute(Activation::ResidPre(0), None, None).unwrap(), name);
        // The third corrupted text has end-of-text where the clean one has another token, and a patch of the
        // stream leaves the ids, by which LNs that set end-of-text apart go, as they are.
        let texts = if name == "fake, position 0 apart" { 2 } else { 3 };
        same(&first.narrow(0, 0, texts), &patching.clean.narrow(0, 0, texts), name);
        assert!(texts < 3 || (all.normalised().double_value(&[0]) - 1.0).abs() < 1e-2, "{name}");
        // Texts that are alike up to a position have nothing to patch there, and bit for bit so.
        let found = patching.by_position(StreamSite::ResidPre).unwrap();
        assert_eq!(
            max_abs(&found.effect().narrow(1, 0, 2), &Tensor::zeros([1], (Kind::Float, Device::Cpu))),
            0.0
        );
        assert!(found.effect().abs().max().double_value(&[]) > 1e-3, "{name}: nothing was patched");
        let alike = Patching::new(&model, &ln, &corrupted, &corrupted, &metric).unwrap();
        for site in SITES {
            let worst = max_abs(&alike.by_position(site).unwrap().metric, &alike.clean);
            assert!(worst < 1e-5, "{name}: {site:?}: {worst:e}");
        }
        let [resid_pre, attn_out, mlp_out] = patching.every_block().unwrap();
        for (block, site) in [(resid_pre, SITES[0]), (attn_out, SITES[2]), (mlp_out, SITES[3])] {
            same(&block.metric, &patching.by_position(site).unwrap().metric, name);
        }
    }
}

/// A small step from the corrupted towards the clean activation changes the metric by that part of what is
/// attributed.
#[test]
fn attribution_is_the_slope_of_a_patch() {
    let [clean, corrupted, answers] = texts();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let found = AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).unwrap();
        let step = 0.02;
        let _guard = tch::no_grad_guard();
        let sites = [
            (StreamSite::ResidPre, &found.resid_pre),
            (StreamSite::AttnOut, &found.attn_out),
            (StreamSite::MlpOut, &found.mlp_out),
        ];
        let places =
            sites.iter().flat_map(|(site, found)| (0..3).map(move |l| (site.activation(l), l, *found)));
        let z = (0..3).map(|l| (Activation::Z(l), l, &found.z));
        for (at, layer, found) in places.chain(z) {
            let mut of_clean = Capture::of([at]).unwrap();
            let _ = model.forward(&clean, &ln, Compute::default(), &mut of_clean).unwrap();
            let moved = |by: f64| {
                let value = of_clean.get(at).unwrap();
                let mut hook = only(at, |x| &x + (value - &x) * by).unwrap();
                let logits = model.forward(&corrupted, &ln, Compute::default(), &mut hook).unwrap();
                metric.of_logits(&logits.select(1, 5)).unwrap()
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            // Over positions, and heads where there are any.
            let total = found.get(layer as i64).reshape([-1, 3]).sum_dim_intlist(0i64, false, Kind::Float);
            let worst = max_abs(&total, &slope);
            let limit = 2e-3 + 2e-2 * slope.abs().max().double_value(&[]);
            assert!(worst < limit, "{name}: {at}: {worst:e}");
        }
    }
}

/// The same by hand, with a whole forward for each step.
#[test]
fn a_path_is_the_senders_change_at_the_receivers_input() {
    let [clean, corrupted, answers] = texts();
    let _guard = tch::no_grad_guard();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        let run = |ids: &Tensor, hook: &mut dyn lnfree::hook::Hook| {
            model.forward(ids, &ln, Compute::default(), hook).unwrap()
        };
        let value = |ids: &Tensor, at: Activation| {
            let mut kept = Capture::of([at]).unwrap();
            let _ = run(ids, &mut kept);
            kept.get(at).unwrap().shallow_clone()
        };
        let read = |logits: &Tensor| metric.of_logits(&logits.select(1, 5)).unwrap();
        // What head 1.2 writes, found by leaving it out of what attention adds.
        let head = |ids: &Tensor| {
            let mut without = Capture::of([Activation::AttnOut(1)]).unwrap();
            let mut hook = without_patterns(|at: Activation, x: Tensor| {
                if at == Activation::Z(1) {
                    let _ = x.select(2, 2).zero_();
                }
                lnfree::hook::Hook::on(&mut without, at, x)
            });
            let _ = run(ids, &mut hook);
            value(ids, Activation::AttnOut(1)) - without.get(Activation::AttnOut(1)).unwrap()
        };
        let of_head = head(&clean) - head(&corrupted);
        let of_mlp = value(&clean, Activation::MlpOut(0)) - value(&corrupted, Activation::MlpOut(0));
        let senders = [(Sender::Head { layer: 1, head: 2 }, of_head), (Sender::Mlp { layer: 0 }, of_mlp)];
        for (sender, change) in &senders {
            let plus = |at: Activation| only(at, move |x| x + change).unwrap();
            let found = |receiver| patching.path(*sender, receiver).unwrap();
            let logits = run(&corrupted, &mut plus(Activation::ResidPost(2)));
            same(&found(Receiver::Logits), &read(&logits), &format!("{name}: {sender:?} to the logits"));
            // The MLP's output with the change in what it reads, put into the corrupted run.
            let mut kept = Capture::of([Activation::MlpOut(1)]).unwrap();
            let mut both = without_patterns(|at: Activation, x: Tensor| {
                let x = if at == Activation::ResidMid(1) { x + change } else { x };
                lnfree::hook::Hook::on(&mut kept, at, x)
            });
            let _ = run(&corrupted, &mut both);
            let out = kept.get(Activation::MlpOut(1)).unwrap();
            let logits = run(&corrupted, &mut only(Activation::MlpOut(1), |_| out.shallow_clone()).unwrap());
            same(
                &found(Receiver::Mlp { layer: 1 }),
                &read(&logits),
                &format!("{name}: {sender:?} to an MLP"),
            );
            for (receiver, at) in [
                (Receiver::Q { layer: 2, head: 3 }, Activation::Q(2)),
                (Receiver::K { layer: 2, head: 3 }, Activation::K(2)),
                (Receiver::V { layer: 2, head: 3 }, Activation::V(2)),
            ] {
                let mut kept = Capture::of([at]).unwrap();
                let mut both = without_patterns(|here: Activation, x: Tensor| {
                    let x = if here == Activation::ResidPre(2) { x + change } else { x };
                    lnfree::hook::Hook::on(&mut kept, here, x)
                });
                let _ = run(&corrupted, &mut both);
                let other = kept.get(at).unwrap().select(2, 3);
                let mut hook = only(at, |x| {
                    let x = x.copy();
                    x.select(2, 3).copy_(&other);
                    x
                })
                .unwrap();
                let logits = run(&corrupted, &mut hook);
                same(&found(receiver), &read(&logits), &format!("{name}: {sender:?} to {receiver:?}"));
            }
        }
    }
}

#[test]
fn every_sender_is_found_in_its_place() {
    let [clean, corrupted, answers] = texts();
    let (model, ln) = load("checkpoint/step60");
    let metric = Metric::logit_difference(&answers);
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    let receiver = Receiver::V { layer: 2, head: 1 };
    let heads = patching.paths_from_heads(receiver).unwrap().metric;
    assert_eq!(heads.size(), [3, 4, 3]);
    let one = patching.path(Sender::Head { layer: 1, head: 3 }, receiver).unwrap();
    same(&heads.get(1).get(3), &one, "head 1.3");
    assert!(max_abs(&one, &patching.corrupted) > 1e-6, "the path does nothing");
    assert_eq!(max_abs(&heads.get(2), &patching.corrupted), 0.0, "no head of block 2 is read by its values");
    let mlps = patching.paths_from_mlps(receiver).unwrap().metric;
    same(&mlps.get(0), &patching.path(Sender::Mlp { layer: 0 }, receiver).unwrap(), "MLP 0");
    // Without LN the logits are linear in what is written: all direct paths and the embedding together are
    // the whole way from one run to the other.
    let direct = [patching.paths_from_heads(Receiver::Logits), patching.paths_from_mlps(Receiver::Logits)];
    let [heads, mlps] = direct.map(|found| found.unwrap().effect().reshape([-1, 3]));
    let last = Tensor::cat(&[heads, mlps], 0).sum_dim_intlist(0i64, false, Kind::Float);
    let [from, to] = [&corrupted, &clean].map(|ids| {
        let mut kept = Capture::of([Activation::ResidPre(0)]).unwrap();
        let _ = model.forward(ids, &ln, Compute::default(), &mut kept).unwrap();
        kept.get(Activation::ResidPre(0)).unwrap().shallow_clone()
    });
    let _guard = tch::no_grad_guard();
    let mut hook = only(Activation::ResidPost(2), |x| x + (&to - &from)).unwrap();
    let logits = model.forward(&corrupted, &ln, Compute::default(), &mut hook).unwrap();
    let embedding = metric.of_logits(&logits.select(1, 5)).unwrap() - &patching.corrupted;
    // Sixteen differences of numbers that are each rounded.
    let worst = max_abs(&(last + embedding), &(&patching.clean - &patching.corrupted));
    assert!(worst < 1e-4, "all paths: {worst:e}");
}

#[test]
fn ablations_are_forwards_with_a_hook() {
    let [ids, others, answers] = texts();
    let _guard = tch::no_grad_guard();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let means = Means::of(&model, &ln, &others).unwrap();
        let seen = |at: Activation| {
            let mut kept = Capture::of([at]).unwrap();
            let _ = model.forward(&others, &ln, Compute::default(), &mut kept).unwrap();
            kept.get(at).unwrap().shallow_clone()
        };
        let expected = |hook: &mut dyn lnfree::hook::Hook| {
            let logits = model.forward(&ids, &ln, Compute::default(), hook).unwrap();
            let loss = token_losses(&logits.narrow(1, 0, 5), &targets(&ids, None));
            (metric.of_logits(&logits.select(1, 5)).unwrap(), loss)
        };
        let mean = |x: Tensor| x.mean_dim([0i64, 1].as_slice(), true, Kind::Float);
        let substitutes: [(Substitute, &dyn Fn(Activation) -> Tensor); 3] = [
            (Substitute::Zero, &|at| seen(at).zeros_like()),
            (Substitute::Mean(&means), &|at| mean(seen(at))),
            (Substitute::Resample(&others), &seen),
        ];
        for (substitute, value) in substitutes {
            let what = format!("{name}: {substitute:?}").chars().take(60).collect::<String>();
            let ablation = Ablation::new(&model, &ln, &ids, &metric, substitute).unwrap();
            let check = |found: lnfree::interp::Ablated, hook: &mut dyn lnfree::hook::Hook, of: &str| {
                let (metric, loss) = expected(hook);
                same(&found.metric, &metric, &format!("{what}, {of}"));
                same(&found.loss, &loss, &format!("{what}, {of}"));
            };
            check(ablation.nothing().unwrap(), &mut NoHook, "nothing");
            check(ablation.of(&[]).unwrap(), &mut NoHook, "no component");
            let head = Component::Head { layer: 1, head: 2 };
            let neurons = Component::Neurons { layer: 2, neurons: vec![0, 200] };
            let (z, post, out) =
                (value(Activation::Z(1)), value(Activation::MlpPost(2)), value(Activation::MlpOut(0)));
            let put = |x: Tensor, other: &Tensor, dim: i64, at: &[i64]| {
                let (x, other) = (x.copy(), other.expand_as(&x));
                at.iter().for_each(|&i| x.select(dim, i).copy_(&other.select(dim, i)));
                x
            };
            let mut both = without_patterns(|at: Activation, x: Tensor| match at {
                Activation::Z(1) => put(x, &z, 2, &[2]),
                Activation::MlpPost(2) => put(x, &post, 2, &[0, 200]),
                _ => x,
            });
            check(ablation.of(&[neurons, head]).unwrap(), &mut both, "a head and neurons");
            let mlp = [Component::Mlp { layer: 0 }];
            let mut hook = only(Activation::MlpOut(0), |x| out.expand_as(&x)).unwrap();
            check(ablation.of(&mlp).unwrap(), &mut hook, "an MLP");
            // One position alone.
            let mut hook = only(Activation::MlpOut(0), |x| put(x, &out, 1, &[3])).unwrap();
            let at_3 = Ablation::new(&model, &ln, &ids, &metric, substitute).unwrap().at(&[3]).unwrap();
            check(at_3.of(&mlp).unwrap(), &mut hook, "an MLP at a position");
            for ablation in [ablation, at_3] {
                let every = ablation.every_head().unwrap();
                assert_eq!((every.metric.size(), every.loss.size()), (vec![3, 4, 3], vec![3, 4, 3, 5]));
                for (layer, head) in [(0, 0), (1, 2), (2, 3)] {
                    let one = ablation.of(&[Component::Head { layer, head }]).unwrap();
                    let of = |x: &Tensor| x.get(layer as i64).get(head as i64);
                    same(&of(&every.metric), &one.metric, &format!("{what}, head {layer}.{head}"));
                    same(&of(&every.loss), &one.loss, &format!("{what}, head {layer}.{head}"));
                }
            }
        }
    }
}

#[test]
fn no_analysis_changes_the_statistics() {
    let [clean, corrupted, answers] = texts();
    let (model, ln) = load("checkpoint/step60");
    let before = ln.statistics.copy();
    let metric = Metric::logit_difference(&answers);
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    patching.every_block().unwrap();
    patching.by_head(HeadSite::Q).unwrap();
    let _ = patching.recompute(Activation::ResidMid(1), None, None).unwrap();
    patching.paths_from_heads(Receiver::Logits).unwrap();
    AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).unwrap();
    let means = Means::of(&model, &ln, &corrupted).unwrap();
    let ablation = Ablation::new(&model, &ln, &clean, &metric, Substitute::Mean(&means)).unwrap();
    ablation.every_head().unwrap();
    assert_eq!(ln.statistics.running, before.running);
    assert_eq!(ln.statistics.frozen, before.frozen);
    assert!(!model.wte.grad().defined(), "a parameter has a gradient");
}

#[test]
fn what_cannot_be_patched_is_an_error_of_one_line() {
    let [clean, corrupted, answers] = texts();
    let (model, ln) = load("tiny-a");
    let metric = Metric::logit_difference(&answers);
    let error = |result: lnfree::Result<()>, says: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(says) && text.lines().count() == 1, "{text}");
    };
    let shorter = clean.narrow(1, 0, 5);
    let new = |ids: &Tensor, metric: &Metric| Patching::new(&model, &ln, ids, &corrupted, metric).map(drop);
    error(new(&shorter, &metric), "clean ids are [3, 5] and corrupted ids [3, 6]");
    error(AttributionPatching::of(&model, &ln, &shorter, &corrupted, &metric).map(drop), "[3, 5]");
    error(new(&clean, &Metric::logit_difference(&answers).at(6)), "position 6");
    error(new(&clean, &Metric::logit_difference(&answers.narrow(0, 0, 2))), "batch of 3");
    error(new(&clean, &Metric::new(|logits| logits.sum(Kind::Float))), "[batch]");
    let at = |positions: &[i64]| Metric::logit_difference(&answers).at_positions(positions);
    error(new(&clean, &at(&[4, 2])), "[4, 2]: name them in ascending order");
    error(new(&clean, &at(&[2, 2])), "each once");
    error(new(&clean, &at(&[2, 6])), "position 6");
    error(new(&clean, &at(&[])), "no position");
    let targets_of_two = Metric::loss(&clean.narrow(1, 0, 2)).at_positions(&[1, 2, 3]);
    error(new(&clean, &targets_of_two), "must be [3] or [3, 3]");
    let of_two = Tensor::zeros([3, 2, 256], (Kind::Float, Device::Cpu));
    error(metric.of_logits(&of_two).map(drop), "a metric of 1 positions");
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    error(patching.recompute(Activation::Z(1), None, Some(4)).map(drop), "no head 4");
    error(patching.recompute(Activation::MlpOut(1), None, Some(0)).map(drop), "no head 0");
    error(patching.recompute(Activation::MlpOut(1), Some(6), None).map(drop), "no position 6");
    error(patching.recompute(Activation::MlpOut(3), None, None).map(drop), "have that block");
    let late = patching.path(Sender::Mlp { layer: 2 }, Receiver::Q { layer: 2, head: 0 });
    error(late.map(drop), "writes after");
    let none = patching.path(Sender::Head { layer: 0, head: 4 }, Receiver::Logits);
    error(none.map(drop), "no head 4");
    let resample = Ablation::new(&model, &ln, &clean, &metric, Substitute::Resample(&shorter));
    error(resample.map(drop), "one shape");
    let ablation = Ablation::new(&model, &ln, &clean, &metric, Substitute::Zero).unwrap();
    error(ablation.of(&[Component::Mlp { layer: 3 }]).map(drop), "no block 3");
    error(ablation.of(&[Component::Neurons { layer: 0, neurons: vec![256] }]).map(drop), "no neuron 256");
    error(ablation.at(&[6]).map(drop), "no position 6");
}
