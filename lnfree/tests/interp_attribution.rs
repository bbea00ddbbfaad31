//! What parts of a model write to the residual stream and to the logits: equal to what the paper's code
//! finds, and, for models without LN, all that there is.

mod common;

use common::{close, json, max_abs, of_the_paper, relative_rms, tensors};
use lnfree::export::{CardFacts, ExportFormat, export};
use lnfree::hook::{Activation, NoHook, only};
use lnfree::interp::{
    ActivationCache, Components, Detail, DirectEffects, EffectTarget, Positions, attribution_needs,
    run_with_cache,
};
use lnfree::model::{Compute, Gpt2, Gpt2Config, LoadedModel};
use lnfree::norm::{LnState, NormSettings, RemovalKind, SpecialAxis};
use lnfree::tch::{Device, Kind, Tensor, no_grad, no_grad_guard};
use serde_json::Value;

const DETAILS: [Detail; 3] = [Detail::Layers, Detail::Heads, Detail::Neurons];
const POSITIONS: [Positions; 3] = [Positions::All, Positions::Last, Positions::At(0)];

/// A model without LN in every format, the checkpoint first.
fn formats() -> Vec<(String, LoadedModel)> {
    let checkpoint = of_the_paper("checkpoint");
    let folder = tempfile::tempdir().unwrap();
    let exports = [ExportFormat::Folded, ExportFormat::Scaled, ExportFormat::Identity].map(|format| {
        let out = folder.path().join(format.to_string());
        export(&checkpoint, format, &out, false, &CardFacts::default()).unwrap();
        (format.to_string(), LoadedModel::load(&out, None, Kind::Float, Device::Cpu).unwrap())
    });
    [("checkpoint".to_string(), checkpoint)].into_iter().chain(exports).collect()
}

/// `n` rows of `pos` tokens.
fn ids(n: i64, pos: i64) -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, n).narrow(1, 0, pos).contiguous()
}

fn cache<'a>(loaded: &'a LoadedModel, ids: &Tensor) -> ActivationCache<'a> {
    ActivationCache::new(&loaded.model, &loaded.ln, ids, attribution_needs).unwrap()
}

/// By a forward without anything else.
fn logits(model: &Gpt2, ln: &LnState, ids: &Tensor) -> Tensor {
    no_grad(|| model.forward(ids, ln, Compute::default(), &mut NoHook)).unwrap()
}

/// Of logits `[batch, pos, vocab]` those of tokens `[batch, pos]`.
fn of_tokens(logits: &Tensor, tokens: &Tensor) -> Tensor {
    logits.gather(-1, &tokens.unsqueeze(-1), false).squeeze_dim(-1).to_kind(Kind::Double)
}

fn there(x: &Tensor, positions: Positions) -> Tensor {
    match positions {
        Positions::All => x.shallow_clone(),
        Positions::Last => x.narrow(1, x.size()[1] - 1, 1),
        Positions::At(at) => x.narrow(1, at as i64, 1),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Each within 2e-5 or a relative 1e-4, which is how far libraries differ.
#[track_caller]
fn near(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let [found, expected] = [found, expected].map(|x| x.to_kind(Kind::Double));
    let over = (&found - &expected).abs() - (expected.abs() * 1e-4).clamp_min(2e-5);
    let worst = over.max().double_value(&[]);
    assert!(worst <= 0.0, "{what}: over the tolerance by {worst:e}");
}

#[test]
fn attribution_and_direct_effect_of_heads() {
    let (recorded, arrays) = (json("interp.json"), tensors("interp_tensors.safetensors"));
    for name in ["baseline", "finetuned", "noLN"] {
        let LoadedModel { model, ln, .. } = of_the_paper(name);
        let found = DirectEffects::of(&model, &ln, &ids(12, 64), EffectTarget::LastInput).unwrap();
        near(&found.dla, &arrays[&format!("dla.DLA_heads.{name}")], name);
        near(&found.direct, &arrays[&format!("dla.direct_ablation.{name}")], name);
        let recorded = &recorded["dla"][name];
        if name == "noLN" {
            // Pure rounding.
            assert!(found.global_nmae < 0.01, "{}", found.global_nmae);
            assert!(found.per_head_nmae.iter().all(|nmae| *nmae < 0.01), "{:?}", found.per_head_nmae);
            continue;
        }
        close(found.global_nmae, recorded["global_nmae_percent"].as_f64().unwrap(), 1e-3, name);
        let expected = numbers(&recorded["per_head_nmae_percent"]);
        assert_eq!(found.per_head_nmae.len(), expected.len());
        for (head, (found, expected)) in found.per_head_nmae.iter().zip(&expected).enumerate() {
            close(*found, *expected, 1e-3, &format!("{name}, head {head}"));
        }
        for (value, [low, high]) in [
            (found.mean_nmae(), found.mean_nmae_interval().unwrap()),
            (found.global_nmae, found.global_nmae_interval().unwrap()),
        ] {
            assert!(0.0 < low && low < value && value < high, "{name}: {value} [{low}, {high}]");
        }
    }
}

#[test]
fn the_next_token_is_the_one_that_the_model_is_not_given() {
    let LoadedModel { model, ln, .. } = of_the_paper("baseline");
    let ids = ids(3, 20);
    let last = DirectEffects::of(&model, &ln, &ids, EffectTarget::LastInput).unwrap();
    let said_twice = Tensor::cat(&[&ids, &ids.narrow(1, 19, 1)], 1);
    let next = DirectEffects::of(&model, &ln, &said_twice, EffectTarget::Next).unwrap();
    assert!(max_abs(&last.dla, &next.dla) < 1e-6 && max_abs(&last.direct, &next.direct) < 1e-6);
    let other = DirectEffects::of(&model, &ln, &said_twice, EffectTarget::LastInput).unwrap();
    assert!(max_abs(&other.dla, &next.dla) > 1e-3);
    for (ids, target) in
        [(ids.narrow(1, 0, 1), EffectTarget::Next), (ids.narrow(0, 0, 0), EffectTarget::LastInput)]
    {
        let refused = DirectEffects::of(&model, &ln, &ids, target).unwrap_err().to_string();
        assert!(refused.starts_with("direct effects need") && refused.lines().count() == 1, "{refused}");
    }
}

#[test]
fn components_sum_to_the_stream() {
    let ids = ids(2, 16);
    let mut models = formats();
    models.push(("baseline".into(), of_the_paper("baseline")));
    for (name, loaded) in &models {
        let cache = cache(loaded, &ids);
        for (layer, stream) in [(Some(1), "blocks.1.hook_resid_pre"), (Some(0), "blocks.0.hook_resid_pre")] {
            let expected = cache.get(stream).unwrap();
            for detail in DETAILS {
                for positions in POSITIONS {
                    let found = cache.full_decomposition(layer, detail, positions).unwrap().sum().unwrap();
                    let worst = relative_rms(&found, &there(expected, positions));
                    assert!(worst < 1e-6, "{name} {layer:?} {detail:?} {positions:?}: {worst:e}");
                }
            }
        }
        let last = cache.accumulated_resid(None, false, Positions::All).unwrap().get("final_post").unwrap();
        for detail in DETAILS {
            let found = cache.full_decomposition(None, detail, Positions::All).unwrap().sum().unwrap();
            assert!(relative_rms(&found, &last) < 1e-6, "{name} {detail:?}");
        }
        // Heads with the bias of the projection are the layer's attention.
        let heads = cache.stack_head_results(Some(2), Positions::All, true).unwrap();
        let of_1 = (0..4).map(|head| heads.get(&format!("L1H{head}")).unwrap()).reduce(|a, b| a + b).unwrap();
        let attn_out = cache.get(("attn_out", 1)).unwrap();
        assert!(relative_rms(&(of_1 + &loaded.model.h[1].attn.c_proj.bias), attn_out) < 1e-6, "{name}");
        let stream = cache.get(("resid_pre", 2)).unwrap();
        assert!(relative_rms(&heads.sum().unwrap(), stream) < 1e-6, "{name}");
        let neurons = cache.stack_neuron_results(Some(2), Positions::Last, true).unwrap();
        assert!(relative_rms(&neurons.sum().unwrap(), &there(stream, Positions::Last)) < 1e-6, "{name}");
    }
}

#[test]
fn labels_and_shapes_are_those_of_transformer_lens() {
    let loaded = of_the_paper("baseline");
    let cache = cache(&loaded, &ids(2, 16));
    let streams = cache.accumulated_resid(Some(1), true, Positions::All).unwrap();
    assert_eq!(streams.labels, ["0_pre", "0_mid", "1_pre"]);
    assert_eq!(streams.values.size(), [3, 2, 16, 64]);
    let all = cache.accumulated_resid(None, false, Positions::At(3)).unwrap();
    assert_eq!(all.labels, ["0_pre", "1_pre", "2_pre", "final_post"]);
    assert_eq!(all.values.size(), [4, 2, 1, 64]);
    let layers = cache.decompose_resid(Some(1), Positions::Last).unwrap();
    assert_eq!(layers.labels, ["embed", "pos_embed", "0_attn_out", "0_mlp_out"]);
    assert_eq!(layers.positions(), Positions::Last);
    let heads = cache.stack_head_results(Some(1), Positions::Last, true).unwrap();
    assert_eq!(heads.labels, ["L0H0", "L0H1", "L0H2", "L0H3", "remainder"]);
    let parts = cache.full_decomposition(Some(1), Detail::Heads, Positions::Last).unwrap();
    assert_eq!(parts.labels, ["L0H0", "L0H1", "L0H2", "L0H3", "0_mlp_out", "embed", "pos_embed", "bias"]);
    let parts = cache.full_decomposition(None, Detail::Neurons, Positions::Last).unwrap();
    // 12 heads and 768 neurons come before the embeddings.
    for (at, label) in [
        (0, "L0H0"),
        (11, "L2H3"),
        (12, "L0N0"),
        (12 + 256, "L1N0"),
        (12 + 767, "L2N255"),
        (780, "embed"),
        (781, "pos_embed"),
        (782, "bias"),
    ] {
        assert_eq!(parts.labels[at], label);
    }
    assert_eq!(parts.values.size(), [783, 2, 1, 64]);
}

#[test]
fn neurons_of_one_position_take_the_memory_of_one_position() {
    let loaded = of_the_paper("baseline");
    let cache = cache(&loaded, &ids(2, 16));
    let all = cache.stack_neuron_results(None, Positions::All, false).unwrap();
    for (positions, at) in [(Positions::Last, 15), (Positions::At(4), 4)] {
        let one = cache.stack_neuron_results(None, positions, false).unwrap();
        assert_eq!(one.values.numel() * 16, all.values.numel());
        assert!(max_abs(&one.values, &all.values.narrow(2, at, 1)) < 1e-7);
    }
    // A neuron writes its activation times its output weights.
    let post = cache.get(("post", 2)).unwrap().select(-1, 7).unsqueeze(-1);
    let expected = post * loaded.model.h[2].mlp.c_proj.weight.get(7);
    assert!(max_abs(&all.get("L2N7").unwrap(), &expected) < 1e-6);
}

#[test]
fn shares_sum_to_the_logits() {
    let ids = ids(2, 16);
    let tokens = ids.flip([1]);
    let other = Tensor::from(7i64);
    let mut models = formats();
    models.push(("baseline".into(), of_the_paper("baseline")));
    for (name, loaded) in &models {
        let own = logits(&loaded.model, &loaded.ln, &ids);
        let expected = of_tokens(&own, &tokens);
        let difference = &expected - of_tokens(&own, &other.expand([2, 16], false));
        let cache = cache(loaded, &ids);
        let largest = own.abs().max().double_value(&[]);
        for positions in POSITIONS {
            for detail in DETAILS {
                let what = format!("{name} {detail:?} {positions:?}");
                let tokens = there(&tokens, positions);
                let found = cache.decompose_logits(&tokens, None, detail, positions).unwrap();
                assert_eq!(found.shares.size()[0] as usize, found.labels.len());
                let worst = max_abs(&found.sum, &there(&expected, positions)) / largest;
                assert!(worst < 1e-5 && found.relative_error < 1e-5, "{what}: {worst:e}");
                assert_eq!(found.is_exact, name != "baseline", "{what}");
                assert_eq!(found.freezing_nmae.is_none(), found.is_exact, "{what}");
                assert!(found.freezing_nmae.is_none_or(|nmae| nmae > 0.1), "{what}");
                let found = cache.decompose_logits(&tokens, Some(&other), detail, positions).unwrap();
                let worst = max_abs(&found.sum, &there(&difference, positions)) / largest;
                assert!(worst < 1e-5 && found.relative_error < 1e-5, "{what}: {worst:e}");
            }
        }
    }
}

/// A head's share is the same whatever the model is stored as; only the shift of ln_f changes its place.
#[test]
fn shares_are_those_of_every_format() {
    let ids = ids(2, 16);
    let tokens = ids.flip([1]);
    let models = formats();
    let decomposed = |loaded: &LoadedModel| {
        cache(loaded, &ids).decompose_logits(&tokens, None, Detail::Heads, Positions::All).unwrap()
    };
    let expected = decomposed(&models[0].1);
    assert!(expected.constant.abs().max().double_value(&[]) > 1e-4);
    for (name, loaded) in &models[1..] {
        let found = decomposed(loaded);
        assert_eq!(found.labels, expected.labels);
        // All heads, MLPs but the last, and the embeddings.
        for label in expected.labels.iter().filter(|label| !["bias", "2_mlp_out"].contains(&label.as_str())) {
            let apart = relative_rms(&found.share(label).unwrap(), &expected.share(label).unwrap());
            assert!(apart < 1e-4, "{name} {label}: {apart:e}");
        }
        let constant = found.constant.abs().max().double_value(&[]);
        assert_eq!(constant == 0.0, name == "folded", "{name}: {constant}");
        let (label, size) = found.ranked().unwrap()[0];
        let mean = found.shares.abs().mean_dim([1i64, 2].as_slice(), false, Kind::Double);
        assert!((size - mean.max().double_value(&[])).abs() < 1e-12 && !label.is_empty());
    }
}

/// Half of the LNs gone, and position 0 (or feature 0) divided by something else.
#[test]
fn special_positions_and_half_removed_models() {
    let config = Gpt2Config::new(2, 2, 16, 12, 50).unwrap();
    let mut model = Gpt2::init(config, 0, Device::Cpu).unwrap();
    model.scale_embeddings(20.0);
    let ids = Tensor::from_slice(&[3i64, 4, 9, 3, 1, 2]).view([2, 3]);
    for axis in [SpecialAxis::Position, SpecialAxis::Feature] {
        let settings = NormSettings { special_std: true, special_axis: axis, ..NormSettings::default() };
        let mut ln = LnState::real(&[(0.4, 3.0); 5], settings, Device::Cpu);
        ln.remove(RemovalKind::LnF, None);
        ln.remove(RemovalKind::Ln2, Some(0));
        let own = logits(&model, &ln, &ids);
        let cache = ActivationCache::new(&model, &ln, &ids, attribution_needs).unwrap();
        for positions in [Positions::All, Positions::Last, Positions::At(0), Positions::At(1)] {
            let tokens = there(&ids, positions);
            let found = cache.decompose_logits(&tokens, None, Detail::Heads, positions).unwrap();
            assert!(found.is_exact && found.relative_error < 1e-5, "{axis:?} {positions:?}");
            let worst = relative_rms(&found.sum, &there(&of_tokens(&own, &ids), positions));
            assert!(worst < 1e-5, "{axis:?} {positions:?}: {worst:e}");
        }
        // A head that is taken away takes just its share.
        let share = cache.decompose_logits(&ids, None, Detail::Heads, Positions::All).unwrap();
        let head = cache.stack_head_results(None, Positions::All, false).unwrap().get("L1H1").unwrap();
        let mut ablate = only("blocks.1.hook_resid_post", |x| x - &head).unwrap();
        let without = no_grad(|| model.forward(&ids, &ln, Compute::default(), &mut ablate)).unwrap();
        let effect = of_tokens(&own, &ids) - of_tokens(&without, &ids);
        assert!(relative_rms(&share.share("L1H1").unwrap(), &effect) < 1e-3, "{axis:?}");
    }
    // With ln_f there, and the rest gone, the same call says that it is not exact.
    let mut ln = LnState::real(&[(0.4, 3.0); 5], NormSettings::default(), Device::Cpu);
    for kind in [RemovalKind::Ln2, RemovalKind::Ln1Qk, RemovalKind::Ln1V] {
        ln.remove(kind, None);
    }
    let cache = ActivationCache::new(&model, &ln, &ids, attribution_needs).unwrap();
    let found = cache.decompose_logits(&ids, None, Detail::Heads, Positions::All).unwrap();
    assert!(!found.is_exact && found.relative_error < 1e-5 && found.freezing_nmae > Some(0.1));
}

/// By a forward for each component, in which it is taken out of what ln_f sees.
#[test]
fn what_freezing_costs_is_what_removal_says() {
    let (loaded, ids) = (of_the_paper("baseline"), ids(2, 16));
    let own = of_tokens(&logits(&loaded.model, &loaded.ln, &ids), &ids);
    let cache = cache(&loaded, &ids);
    let found = cache.decompose_logits(&ids, None, Detail::Layers, Positions::All).unwrap();
    let parts = cache.decompose_resid(None, Positions::All).unwrap();
    let (mut apart, mut size) = (0.0f64, 0.0f64);
    let total = |x: &Tensor| x.abs().sum(Kind::Double).double_value(&[]);
    for label in &parts.labels {
        let part = parts.get(label).unwrap();
        let mut ablate = only("blocks.2.hook_resid_post", |x| x - &part).unwrap();
        let without = no_grad(|| loaded.model.forward(&ids, &loaded.ln, Compute::default(), &mut ablate));
        let effect = &own - of_tokens(&without.unwrap(), &ids);
        apart += total(&(found.share(label).unwrap() - &effect));
        size += total(&effect);
    }
    close(found.freezing_nmae.unwrap(), 100.0 * apart / size, 1e-3, "NMAE");
}

#[test]
fn logit_attributions() {
    let ids = ids(2, 16);
    let tokens = ids.flip([1]);
    for name in ["baseline", "checkpoint"] {
        let loaded = of_the_paper(name);
        let (all_logits, cache) = run_with_cache(&loaded.model, &loaded.ln, &ids, attribution_needs).unwrap();
        assert!(relative_rms(&all_logits, &logits(&loaded.model, &loaded.ln, &ids)) < 1e-5, "{name}");
        let sum = |parts: &Components, tokens: &Tensor, other: Option<&Tensor>| {
            let found = cache.logit_attrs(parts, tokens, other).unwrap();
            found.values.sum_dim_intlist(0i64, false, Kind::Double) + found.constant
        };
        let parts = cache.full_decomposition(None, Detail::Neurons, Positions::All).unwrap();
        let expected = of_tokens(&all_logits, &tokens);
        assert!(relative_rms(&sum(&parts, &tokens, None), &expected) < 1e-5, "{name}");
        // One token for all, against one for each sequence.
        let (one, each) = (Tensor::from(3i64), Tensor::from_slice(&[8i64, 9]));
        let difference = of_tokens(&all_logits, &one.expand([2, 16], false))
            - of_tokens(&all_logits, &each.unsqueeze(-1).expand([2, 16], false));
        assert!(relative_rms(&sum(&parts, &one, Some(&each)), &difference) < 1e-4, "{name}");
        // What ln_f has divided already is not divided again.
        let normed = cache.apply_ln_to_stack(&parts).unwrap();
        let again = cache.apply_ln_to_stack(&normed).unwrap();
        assert_eq!(max_abs(&normed.values, &again.values), 0.0);
        let [a, b] = [&parts, &normed].map(|parts| cache.logit_attrs(parts, &tokens, None).unwrap().values);
        assert!(relative_rms(&b, &a) < 1e-5, "{name}");
        assert!(max_abs(&normed.values, &parts.values) > 1e-2, "{name}");
        let whole = normed.sum().unwrap();
        if name == "baseline" {
            // The stream that a real ln_f has divided has a variance of one.
            let variance = whole.var_dim(-1i64, false, false);
            assert!(max_abs(&variance, &variance.ones_like()) < 1e-3);
        }
    }
}

#[test]
fn a_lens_is_the_model_cut_off_there() {
    let ids = ids(3, 16);
    for name in ["baseline", "checkpoint"] {
        let loaded = of_the_paper(name);
        let cache = cache(&loaded, &ids);
        let mut seen = Vec::new();
        cache
            .logit_lens(Positions::All, true, |label, logits| {
                seen.push((label.to_string(), logits.copy()));
                Ok(())
            })
            .unwrap();
        let labels: Vec<&str> = seen.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, ["0_pre", "1_pre", "2_pre", "final_post"]);
        let own = logits(&loaded.model, &loaded.ln, &ids);
        assert!(relative_rms(&seen[3].1, &own) < 1e-6, "{name}");
        if name == "baseline" {
            let mut cut = of_the_paper(name);
            cut.model.h.truncate(1);
            let expected = logits(&cut.model, &LnState::plain(1, Device::Cpu), &ids);
            assert!(relative_rms(&seen[1].1, &expected) < 1e-5);
        }
        let summary = cache.lens_summary(true).unwrap();
        for (layer, (label, logits)) in summary.iter().zip(&seen) {
            assert_eq!(&layer.label, label);
            assert_eq!(layer.top, logits.argmax(-1i64, false));
            let logp = logits.narrow(1, 0, 15).log_softmax(-1, Kind::Double);
            let expected = -logp.gather(-1, &ids.narrow(1, 1, 15).unsqueeze(-1), false).squeeze_dim(-1);
            assert!(max_abs(&layer.loss, &expected) < 1e-5, "{name} {label}");
        }
        // Without LN the unembedding reads the bare stream.
        let _guard = no_grad_guard();
        let stream = cache.get("blocks.0.hook_resid_pre").unwrap().narrow(1, 15, 1);
        let mut first = None;
        cache
            .logit_lens(Positions::Last, false, |_, logits| {
                first.get_or_insert(logits.copy());
                Ok(())
            })
            .unwrap();
        let expected = stream.matmul(&loaded.model.unembedding().tr());
        assert!(relative_rms(&first.unwrap(), &expected) < 1e-5, "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let loaded = of_the_paper("baseline");
    let ids = ids(2, 16);
    let full = cache(&loaded, &ids);
    let few = |at: Activation| matches!(at, Activation::Embed | Activation::PosEmbed);
    let few = ActivationCache::new(&loaded.model, &loaded.ln, &ids, few).unwrap();
    let token = Tensor::from(3i64);
    let parts = full.decompose_resid(None, Positions::Last).unwrap();
    let attrs = |tokens: &Tensor| full.logit_attrs(&parts, tokens, None).err();
    let decomposed =
        |cache: &ActivationCache| cache.decompose_logits(&token, None, Detail::Heads, Positions::Last).err();
    for (refused, why) in [
        (full.decompose_resid(Some(4), Positions::All).err(), "before block 4"),
        (
            full.stack_head_results(None, Positions::At(16), false).err(),
            "At(16) is no position of sequences of 16",
        ),
        (few.stack_neuron_results(None, Positions::Last, false).err(), "blocks.0.mlp.hook_post was not kept"),
        (few.decompose_resid(None, Positions::All).err(), "blocks.0.hook_attn_out was not kept"),
        (few.accumulated_resid(Some(1), false, Positions::All).err(), "blocks.0.hook_resid_pre was not kept"),
        (decomposed(&few), "blocks.0.attn.hook_z was not kept"),
        (parts.get("L0H0").err(), "no component `L0H0` among 8; `embed` is one"),
        (attrs(&Tensor::from(-1i64)), "a token is none of the model's"),
        (attrs(&Tensor::from_slice(&[1i64, 2, 3])), "[2] or [2, 1] here, not [3]"),
        (attrs(&Tensor::from(1.0f32)), "tokens must be int64"),
        (ActivationCache::new(&loaded.model, &loaded.ln, &ids.view([32]), |_| false).err(), "[batch, pos]"),
    ] {
        let refused = refused.unwrap().to_string();
        assert!(refused.contains(why) && refused.lines().count() == 1, "{refused}");
    }
    assert!(decomposed(&full).is_none());
}
