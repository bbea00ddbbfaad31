//! Processed weights: other numbers, the same predictions, whatever is left of the LNs.

mod common;

use common::{max_abs, of_the_paper, relative_rms, tensors};
use lnfree::eval::locate_model;
use lnfree::export::fold;
use lnfree::hook::{Capture, NoHook};
use lnfree::interp::{
    ActivationCache, Circuits, Detail, LogitDecomposition, Positions, Processing, attribution_needs, process,
    run_with_cache,
};
use lnfree::model::{Block, Compute, Gpt2, LoadedModel};
use lnfree::norm::{LnSite, LnState, NormSettings, RemovalKind, SpecialAxis};
use lnfree::tch::{Device, Kind, Tensor, no_grad, no_grad_guard};

const LAYERS: usize = 3;

/// Each part alone, none and all.
const OPTIONS: [(&str, Processing); 6] = [
    ("nothing", Processing::NONE),
    ("fold_ln", Processing { fold_ln: true, ..Processing::NONE }),
    ("center_writing_weights", WRITING),
    ("center_unembed", Processing { center_unembed: true, ..Processing::NONE }),
    ("fold_value_biases", Processing { fold_value_biases: true, ..Processing::NONE }),
    ("everything", ALL),
];
const WRITING: Processing = Processing { center_writing_weights: true, ..Processing::NONE };
const ALL: Processing =
    Processing { fold_ln: true, center_writing_weights: true, center_unembed: true, fold_value_biases: true };

fn ids() -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 2).narrow(1, 0, 20).contiguous()
}

/// The paper's tiny model with γ, β and biases that differ from channel to channel, and a stream with a mean.
fn tiny() -> Gpt2 {
    let model = of_the_paper("baseline").model;
    let _guard = no_grad_guard();
    for (i, (name, mut parameter)) in model.named_parameters().into_iter().enumerate() {
        if name.contains("ln_") || name.ends_with(".bias") {
            let channels = Tensor::arange(parameter.size()[0], (Kind::Float, Device::Cpu));
            let wave = (channels + 10.0 * i as f64).sin() * 0.3;
            let _ = parameter.g_add_(&wave);
        }
        if name == "wpe.weight" {
            let _ = parameter.g_add_scalar_(0.1);
        }
    }
    model
}

fn stds() -> Vec<f64> {
    (0..2 * LAYERS + 1).map(|i| 0.6 + 0.1 * i as f64).collect()
}

/// LNs of these kinds are fake, each with its own constant; with `special`, position 0 (or feature 0) is
/// divided by another.
fn state(kinds: &[RemovalKind], special: Option<SpecialAxis>) -> LnState {
    let pairs: Vec<(f64, f64)> = stds().into_iter().map(|std| (std, 3.0 * std)).collect();
    let settings = NormSettings {
        special_std: special.is_some(),
        special_axis: special.unwrap_or_default(),
        ..NormSettings::default()
    };
    let mut ln = LnState::real(&pairs, settings, Device::Cpu);
    kinds.iter().for_each(|&kind| ln.remove(kind, None));
    ln
}

/// Every way of having LNs, those with an LN before all that reads the stream first, then the folded one.
fn models() -> Vec<(&'static str, Gpt2, LnState)> {
    use RemovalKind::{Ln1Qk, Ln1V, Ln2, LnF};
    let sites = [Ln2, Ln1Qk, Ln1V, LnF];
    let mut tapered = state(&[Ln2], None);
    tapered.set_gates(vec![(LnSite::Ln1Qk(1), 0.4), (LnSite::LnF, 0.7)]);
    let (checkpoint, exported) = (of_the_paper("checkpoint"), of_the_paper("noLN"));
    vec![
        ("real", tiny(), LnState::plain(LAYERS, Device::Cpu)),
        ("half", tiny(), state(&[Ln2, Ln1Qk], None)),
        ("tapered", tiny(), tapered),
        ("fake", tiny(), state(&sites, None)),
        ("position 0 apart", tiny(), state(&sites, Some(SpecialAxis::Position))),
        ("feature 0 apart", tiny(), state(&sites, Some(SpecialAxis::Feature))),
        ("checkpoint", checkpoint.model, checkpoint.ln),
        ("scaled", exported.model, exported.ln),
        ("folded", fold(&tiny(), &stds()).unwrap(), LnState::plain(LAYERS, Device::Cpu)),
    ]
}

fn logits(model: &Gpt2, ln: &LnState) -> Tensor {
    no_grad(|| model.forward(&ids(), ln, Compute::default(), &mut NoHook)).unwrap()
}

fn log_probs(logits: &Tensor) -> Tensor {
    logits.log_softmax(-1, Kind::Double)
}

fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

/// Means over the last axis, against the largest number.
fn relative_mean(x: &Tensor) -> f64 {
    largest(&x.to_kind(Kind::Double).mean_dim(-1i64, false, Kind::Double)) / largest(x)
}

/// The activations of these names.
fn kept(model: &Gpt2, ln: &LnState, names: &[String]) -> Capture {
    let mut kept = Capture::of(names.iter().map(String::as_str)).unwrap();
    let _ = no_grad(|| model.forward(&ids(), ln, Compute::default(), &mut kept)).unwrap();
    kept
}

/// `blocks.0.` and the others before each of `names`.
fn of_blocks(names: &[&str]) -> Vec<String> {
    (0..LAYERS).flat_map(|l| names.iter().map(move |name| format!("blocks.{l}.{name}"))).collect()
}

#[test]
fn predictions_stay_with_every_option_and_all_together() {
    assert_eq!(Processing::default(), ALL);
    for (name, model, ln) in models() {
        let own = logits(&model, &ln);
        for (option, options) in OPTIONS {
            let what = format!("{name}, {option}");
            if name == "folded" && options.center_writing_weights {
                continue;
            }
            let found = process(&model, &ln, options).unwrap();
            let logits = logits(&found.model, &found.ln);
            let apart = relative_rms(&log_probs(&logits), &log_probs(&own));
            assert!(apart < 1e-4, "{what}: {apart:e}");
            if options.center_unembed {
                assert!(relative_mean(&logits) < 1e-5, "{what}: {:e}", relative_mean(&logits));
            } else {
                assert!(relative_rms(&logits, &own) < 1e-4, "{what}");
            }
        }
    }
}

#[test]
fn nano_and_its_ln_free_model_predict_the_same_processed() {
    let ids = Tensor::from_slice(&[511i64, 443, 283, 759, 4095, 12]).unsqueeze(0);
    for name in ["nano", "nano_LNFree200"] {
        let dir = locate_model(name).unwrap();
        let nano = LoadedModel::load(&dir, None, Kind::Float, Device::Cpu).unwrap();
        let own = no_grad(|| nano.model.forward(&ids, &nano.ln, Compute::default(), &mut NoHook)).unwrap();
        let found = process(&nano.model, &nano.ln, ALL).unwrap();
        let (logits, cache) = run_with_cache(&found.model, &found.ln, &ids, |_| true).unwrap();
        assert!(relative_rms(&log_probs(&logits), &log_probs(&own)) < 1e-4, "{name}");
        assert!(relative_mean(cache.get(("resid_post", 5)).unwrap()) < 1e-5, "{name}");
        assert!(relative_mean(&logits) < 1e-5, "{name}");
        // All that a forward of the original shows.
        let (_, before) = run_with_cache(&nano.model, &nano.ln, &ids, |_| true).unwrap();
        assert_eq!(cache.names(), before.names(), "{name}");
        for layer in 0..6 {
            let [pattern, expected] = [&cache, &before].map(|cache| cache.get(("pattern", layer)).unwrap());
            assert!(max_abs(pattern, expected) < 1e-3, "{name} {layer}");
        }
    }
}

#[test]
fn what_is_written_loses_its_mean_and_nothing_else() {
    let writers = ["hook_attn_out", "hook_mlp_out", "hook_resid_pre", "hook_resid_mid", "hook_resid_post"];
    let mut names = of_blocks(&writers);
    names.extend(["hook_embed".to_string(), "hook_pos_embed".to_string()]);
    for (what, model, ln) in models().into_iter().filter(|(name, ..)| *name != "folded") {
        let found = process(&model, &ln, WRITING).unwrap();
        let (before, after) = (kept(&model, &ln, &names), kept(&found.model, &found.ln, &names));
        for name in &names {
            let [x, y] = [&before, &after].map(|kept| kept.get(name.as_str()).unwrap());
            assert!(relative_mean(y) < 1e-5, "{what} {name}: {:e}", relative_mean(y));
            let rest = x - x.mean_dim(-1i64, true, Kind::Float);
            assert!(relative_rms(y, &rest) < 1e-4, "{what} {name}");
        }
        if what == "real" {
            assert!(relative_mean(before.get("hook_pos_embed").unwrap()) > 1e-2);
        }
        // What reads is as it was, LNs included, and so is the unembedding, which was the embedding.
        assert_eq!(found.model.h[1].mlp.c_fc.weight, model.h[1].mlp.c_fc.weight, "{what}");
        let [ln_1, was] = [&found.model, &model].map(|model| model.h[1].ln_1.as_ref().unwrap());
        assert!(ln_1.weight == was.weight && ln_1.bias == was.bias && ln_1.eps == was.eps, "{what}");
        assert_eq!(found.model.unembedding(), model.unembedding(), "{what}");
        assert!(!found.model.config.tie_word_embeddings && found.model.lm_head.is_some(), "{what}");
        assert!(max_abs(&found.model.wte, found.model.unembedding()) > 1e-4, "{what}");
    }
}

#[test]
fn a_folded_ln_only_centres_and_divides() {
    let options = Processing { fold_ln: true, ..Processing::NONE };
    let read = of_blocks(&["attn.hook_q", "attn.hook_k", "attn.hook_v", "mlp.hook_pre"]);
    for (what, model, ln) in models() {
        let found = process(&model, &ln, options).unwrap();
        for block in &found.model.h {
            for norm in [&block.ln_1, &block.ln_2].into_iter().flatten() {
                assert!(norm.weight == norm.weight.ones_like(), "{what}");
                assert!(norm.bias == norm.bias.zeros_like(), "{what}");
            }
        }
        assert_eq!(found.model.ln_f.is_some(), model.ln_f.is_some(), "{what}");
        if let Some(ln_f) = &found.model.ln_f {
            assert!(ln_f.weight == ln_f.weight.ones_like(), "{what}");
        }
        let (before, after) = (kept(&model, &ln, &read), kept(&found.model, &found.ln, &read));
        for name in &read {
            let [expected, found] = [&before, &after].map(|kept| kept.get(name.as_str()).unwrap());
            assert!(relative_rms(found, expected) < 1e-4, "{what} {name}");
        }
        // Columns of what reads a centred stream sum to nothing; where feature 0 is divided by another
        // number it is not centred, and where no LN is there nothing is said of it.
        let sums = relative_mean(&found.model.h[1].attn.c_attn.weight.tr());
        let centred = !["feature 0 apart", "folded"].contains(&what);
        assert_eq!(sums < 1e-6, centred, "{what}: {sums:e}");
    }
    // What a real LN hands on has a mean of zero and a variance of one, and ln_f its own shift besides.
    let model = tiny();
    let found = process(&model, &LnState::plain(LAYERS, Device::Cpu), options).unwrap();
    let names = ["blocks.1.ln1.hook_normalized", "blocks.2.ln2.hook_normalized", "ln_final.hook_normalized"];
    let kept = kept(&found.model, &found.ln, &names.map(String::from));
    for name in names {
        let bias = &found.model.ln_f.as_ref().unwrap().bias;
        let shift = if name.starts_with("ln_final") { bias.shallow_clone() } else { bias.zeros_like() };
        let x = kept.get(name).unwrap() - shift;
        let variance = x.var_dim(-1i64, false, false);
        assert!(relative_mean(&x) < 1e-5 && max_abs(&variance, &variance.ones_like()) < 1e-3, "{name}");
    }
}

/// Circuits fold LNs too, in other code: they find nothing left to fold.
#[test]
fn circuits_of_folded_weights_are_those_of_the_model() {
    let (model, ln) = (tiny(), LnState::plain(LAYERS, Device::Cpu));
    let options = Processing { fold_ln: true, ..Processing::NONE };
    let found = process(&model, &ln, options).unwrap();
    let circuits = |model: &Gpt2, ln: &LnState| Circuits::of(model, ln).unwrap();
    let (after, before) = (circuits(&found.model, &found.ln), circuits(&model, &ln));
    for (layer, (found, expected)) in after.blocks.iter().zip(&before.blocks).enumerate() {
        for (name, found, expected) in [
            ("W_Q", &found.w_q, &expected.w_q),
            ("b_Q", &found.b_q, &expected.b_q),
            ("W_K", &found.w_k, &expected.w_k),
            ("b_K", &found.b_k, &expected.b_k),
            ("W_V", &found.w_v, &expected.w_v),
            ("b_V", &found.b_v, &expected.b_v),
        ] {
            assert!(relative_rms(found, expected) < 1e-5, "{name} of block {layer}");
        }
    }
    assert!(relative_rms(&after.w_u, &before.w_u) < 1e-5);
    assert!(largest(&before.b_u) > 1e-3 && relative_rms(&after.b_u, &before.b_u) < 1e-5);
    // Without its mean over the vocabulary, b_U as well.
    let found = process(&model, &ln, ALL).unwrap();
    let centred = circuits(&found.model, &found.ln);
    assert!(relative_mean(&centred.w_u) < 1e-6 && relative_mean(&centred.b_u.unsqueeze(0)) < 1e-5);
}

#[test]
fn biases_of_values_are_written_by_nobodys_head() {
    let options = Processing { fold_value_biases: true, ..Processing::NONE };
    let names = of_blocks(&["attn.hook_q", "attn.hook_v", "hook_attn_out"]);
    for (what, model, ln) in models() {
        let found = process(&model, &ln, options).unwrap();
        let (before, after) = (kept(&model, &ln, &names), kept(&found.model, &found.ln, &names));
        for (layer, block) in found.model.h.iter().enumerate() {
            let values = |block: &Block| block.attn.c_attn.bias.narrow(0, 128, 64);
            let (b_v, was) = (values(block), values(&model.h[layer]));
            assert_eq!(largest(&b_v), 0.0, "{what} {layer}");
            let at = |kept: &Capture, name: &str| {
                kept.get(format!("blocks.{layer}.{name}").as_str()).unwrap().shallow_clone()
            };
            let (own, attn_out) = (at(&before, "hook_attn_out"), at(&after, "hook_attn_out"));
            assert!(relative_rms(&attn_out, &own) < 1e-4, "{what} {layer}");
            assert!(relative_rms(&at(&after, "attn.hook_q"), &at(&before, "attn.hook_q")) < 1e-4, "{what}");
            // Each value has lost the same.
            let lost = at(&before, "attn.hook_v") - at(&after, "attn.hook_v");
            let limit = 1e-4 * (1.0 + largest(&at(&before, "attn.hook_v")));
            assert!(max_abs(&lost.flatten(2, 3), &was.expand([2, 20, 64], false)) < limit, "{what} {layer}");
        }
    }
}

fn decomposed(model: &Gpt2, ln: &LnState, other: Option<&Tensor>) -> LogitDecomposition {
    let cache = ActivationCache::new(model, ln, &ids(), attribution_needs).unwrap();
    let tokens = ids().flip([1]);
    cache.decompose_logits(&tokens, other, Detail::Heads, Positions::All).unwrap()
}

#[test]
fn shares_sum_to_the_logits_and_are_those_of_the_model() {
    let other = Tensor::from(7i64);
    for (what, model, ln) in models() {
        let options = Processing { center_writing_weights: what != "folded", ..ALL };
        let found = process(&model, &ln, options).unwrap();
        let parts = decomposed(&found.model, &found.ln, None);
        let tokens = ids().flip([1]).unsqueeze(-1);
        let own = logits(&found.model, &found.ln).gather(-1, &tokens, false).squeeze_dim(-1);
        assert!(relative_rms(&parts.sum, &own) < 1e-4, "{what}");
        assert!(parts.relative_error < 1e-4, "{what}: {:e}", parts.relative_error);
        // Heads keep their values' biases here, as they do in the model.
        let found = process(&model, &ln, Processing { fold_value_biases: false, ..options }).unwrap();
        let after = decomposed(&found.model, &found.ln, Some(&other));
        let before = decomposed(&model, &ln, Some(&other));
        assert_eq!(after.labels, before.labels);
        assert_eq!(after.is_exact, before.is_exact, "{what}");
        assert!(relative_rms(&after.shares, &before.shares) < 1e-3, "{what}");
        let apart = max_abs(&after.constant, &before.constant);
        assert!(apart < 1e-4 * (1.0 + largest(&before.constant)), "{what}: {apart:e}");
    }
}

#[test]
fn the_model_itself_is_as_it_was() {
    let (model, ln) = (tiny(), state(&[RemovalKind::Ln2], None));
    let own = logits(&model, &ln);
    for (option, options) in OPTIONS {
        let mut found = process(&model, &ln, options).unwrap();
        for (name, mut parameter) in found.model.named_parameters() {
            assert!(parameter.kind() == Kind::Float && !parameter.requires_grad(), "{option} {name}");
            let _ = no_grad(|| parameter.fill_(0.5));
        }
        found.ln.remove(RemovalKind::LnF, None);
        assert_eq!(max_abs(&logits(&model, &ln), &own), 0.0, "{option}");
    }
    assert!(model.lm_head.is_none() && model.config.tie_word_embeddings && !ln.mode(LnSite::LnF).is_fake());
}

#[test]
fn what_would_change_predictions_is_refused_in_one_line() {
    let refused = |model: &Gpt2, ln: &LnState, options| {
        let message = process(model, ln, options).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    };
    let plain = LnState::plain(LAYERS, Device::Cpu);
    let folded = fold(&tiny(), &stds()).unwrap();
    let message = refused(&folded, &plain, ALL);
    assert!(message.starts_with("center_writing_weights: h.0.ln_1 is not there"), "{message}");
    assert!(message.ends_with("pass center_writing_weights: false"), "{message}");

    // Of all LNs but the last two.
    let mut model = tiny();
    model.h[2].ln_2 = None;
    let message = refused(&model, &plain, WRITING);
    assert!(message.starts_with("center_writing_weights: h.2.ln_2 is not there"), "{message}");
    model.ln_f = None;
    assert!(process(&model, &plain, Processing { center_writing_weights: false, ..ALL }).is_ok());

    let model = tiny();
    let _ = no_grad(|| model.ln_f.as_ref().unwrap().weight.get(3).fill_(0.0));
    let message = refused(&model, &plain, ALL);
    assert!(message.starts_with("fold_ln: ln_f has a weight of zero"), "{message}");
    assert!(process(&model, &plain, Processing { fold_ln: false, ..ALL }).is_ok());

    let message = refused(&model, &LnState::plain(2, Device::Cpu), Processing::NONE);
    assert_eq!(message, "the LN state is of 2 blocks, the model has 3");
}
