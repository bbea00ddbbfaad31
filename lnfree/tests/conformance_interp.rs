//! What heads and neurons do, equal to what the paper's analysis code finds on the same models and tokens.

mod common;

use common::{close, json, max_abs, of_the_paper, tensors, vector};
use lnfree::export::{CardFacts, ExportFormat, export};
use lnfree::interp::{AttentionSinks, EntropyNeurons, MeanAblation, ResidualNorms, Spread};
use lnfree::model::LoadedModel;
use lnfree::tch::{Device, Kind, Tensor};
use serde_json::Value;

const MODELS: [&str; 3] = ["baseline", "finetuned", "noLN"];

/// The first 8 rows.
fn ids() -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 8)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// Within 2e-5 or a relative 1e-4, which is how far libraries differ.
#[track_caller]
fn near(found: f64, expected: f64, what: &str) {
    let limit = f64::max(2e-5, 1e-4 * expected.abs());
    assert!((found - expected).abs() <= limit, "{what}: {found} should be {expected}");
}

#[test]
fn attention_sinks() {
    let (recorded, patterns) = (json("interp.json"), tensors("interp_tensors.safetensors"));
    for name in MODELS {
        let LoadedModel { model, ln, .. } = of_the_paper(name);
        let sinks = AttentionSinks::of(&model, &ln, &ids()).unwrap();
        let expected = &patterns[&format!("sink.attn_to_pos0.{name}")];
        let worst = max_abs(&sinks.to_first, expected);
        assert!(worst < 2e-5, "{name}: largest difference {worst:e}");
        let recorded = &recorded["sink_rate"][name];
        for (threshold, key) in [(0.3, "all_layers"), (0.1, "eps0.1"), (0.05, "eps0.05")] {
            let rate = sinks.rate(threshold).unwrap();
            assert!((rate - number(&recorded[key])).abs() < 1e-6, "{name} {key}: {rate}");
        }
        let by_head = sinks.by_head(0.3).unwrap();
        let expected = recorded["per_layer_head_fraction_eps0.3"].as_array().unwrap();
        assert_eq!(by_head.len(), expected.len());
        for (heads, expected) in by_head.iter().zip(expected) {
            assert_eq!(heads, &numbers(expected), "{name}");
        }
    }
}

#[test]
fn residual_norms() {
    let recorded = &json("interp.json")["residual_norms"]["models"];
    for name in MODELS {
        let LoadedModel { model, ln, .. } = of_the_paper(name);
        let found = ResidualNorms::of(&model, &ln, &ids()).unwrap();
        let recorded = &recorded[name];
        assert_eq!(found.norms.len(), recorded["hooks"].as_object().unwrap().len());
        for norm in &found.norms {
            let expected = &recorded["hooks"][norm.at.to_string()];
            let check = |found: Spread, of: &str| {
                let what = format!("{name} {} {of}", norm.at);
                close(found.mean, number(&expected[format!("{of}_mean")]), 1e-5, &what);
                near(found.std, number(&expected[format!("{of}_std")]), &what);
            };
            check(norm.first, "first");
            check(norm.others, "others");
        }
        let pairs = recorded["pairs"].as_array().unwrap();
        assert_eq!(found.growth.len(), pairs.len());
        for (step, expected) in found.growth.iter().zip(pairs) {
            assert_eq!(expected["pair"][0], step.from.to_string());
            assert_eq!(expected["pair"][1], step.to.to_string());
            for (found, key) in [
                (step.first, "growth_first_mean"),
                (step.others, "growth_others_mean"),
                (step.cosine_first, "cos_first_mean"),
                (step.cosine_others, "cos_others_mean"),
            ] {
                near(found, number(&expected[key]), &format!("{name} {} {key}", step.to));
            }
        }
    }
}

#[test]
fn entropy_neurons() {
    let (recorded, weights) = (json("interp.json"), tensors("interp_tensors.safetensors"));
    for name in MODELS {
        let found = EntropyNeurons::of(&of_the_paper(name).model).unwrap();
        for (found, key) in [(&found.norms, "W_out_norm"), (&found.logit_variances, "logit_var")] {
            let expected = Vec::<f64>::try_from(&weights[&format!("entropy.{key}.{name}")]).unwrap();
            assert_eq!(found.len(), expected.len());
            for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
                close(*found, *expected, 1e-4, &format!("{name} {key} {n}"));
            }
        }
        let recorded = &recorded["entropy_neurons"]["models"][name];
        let ranked: Vec<f64> = found.ranked().iter().map(|&n| n as f64).collect();
        assert_eq!(ranked[..6], numbers(&recorded["top_indices"]), "{name}");
        assert_eq!(ranked[ranked.len() - 3..], numbers(&recorded["bottom_indices"]), "{name}");
        let top = found.ranked()[0];
        close(found.ratio(top), number(&recorded["ratio_top"][0]), 1e-4, name);
        for (found, key) in [
            (&found.singular_values, "unembed_singular_values_normalised"),
            (
                &Vec::try_from(found.alignment.get(top as i64)).unwrap(),
                "top0_squared_cos_with_left_singular_vectors",
            ),
        ] {
            for (n, (found, expected)) in found.iter().zip(numbers(&recorded[key])).enumerate() {
                near(*found, expected, &format!("{name} {key} {n}"));
            }
        }
        for (n, key) in [(1, "top0_fraction_in_smallest_1"), (8, "top0_fraction_in_smallest_8")] {
            near(found.in_smallest(top, n), number(&recorded[key]), key);
        }
    }
}

#[test]
fn ablated_neurons() {
    let recorded = &json("interp.json")["entropy_neurons"]["models"];
    for name in MODELS {
        let LoadedModel { model, ln, .. } = of_the_paper(name);
        let recorded = &recorded[name];
        let ablation = MeanAblation::new(&model, &ln, &ids()).unwrap();
        let mean = |x: &Tensor| x.mean(Kind::Double).double_value(&[]);
        let own = ablation.of(&[]).unwrap();
        near(mean(&own.loss), number(&recorded["simulated_loss_mean"]), name);
        near(mean(&own.entropy), number(&recorded["simulated_entropy_mean"]), name);
        for (neuron, expected) in recorded["single_ablation"].as_object().unwrap() {
            let found = ablation.of(&[neuron.parse().unwrap()]).unwrap();
            for (found, own, key) in
                [(&found.loss, &own.loss, "loss"), (&found.entropy, &own.entropy, "entropy")]
            {
                let effect = (found - own).abs();
                let what = format!("{name} {neuron} {key}");
                let first = Vec::<f64>::try_from(effect.reshape([-1]).narrow(0, 0, 8)).unwrap();
                let of_first = numbers(&expected[format!("{key}_effect_first8")]);
                let of_mean = number(&expected[format!("{key}_effect_mean")]);
                for (found, expected) in first.into_iter().zip(of_first).chain([(mean(&effect), of_mean)]) {
                    let limit = f64::max(3e-6, 1e-3 * expected);
                    assert!((found - expected).abs() <= limit, "{what}: {found} should be {expected}");
                }
            }
        }
        let ranked = EntropyNeurons::of(&model).unwrap().ranked();
        for expected in recorded["cumulative_ablation"].as_array().unwrap() {
            let found = ablation.of(&ranked[..expected["n"].as_u64().unwrap() as usize]).unwrap();
            for (found, key) in [(&found.loss, "loss"), (&found.entropy, "entropy")] {
                near(mean(found), number(&expected[format!("{key}_mean")]), name);
                near(found.std(true).double_value(&[]), number(&expected[format!("{key}_std")]), name);
            }
        }
    }
}

/// An LN-free model is the same whatever it is stored as.
#[test]
fn formats_do_not_matter() {
    let checkpoint = LoadedModel::load(&vector("checkpoint/step60"), None, Kind::Float, Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let formats = [ExportFormat::Folded, ExportFormat::Scaled, ExportFormat::Identity];
    let found = formats.map(|format| {
        let out = folder.path().join(format.to_string());
        export(&checkpoint, format, &out, false, &CardFacts::default()).unwrap();
        LoadedModel::load(&out, None, Kind::Float, Device::Cpu).unwrap()
    });
    let of = |loaded: &LoadedModel| {
        let LoadedModel { model, ln, .. } = loaded;
        let neurons = EntropyNeurons::of(model).unwrap();
        let ablation = MeanAblation::new(model, ln, &ids()).unwrap();
        let ablated = ablation.of(&neurons.ranked()[..3]).unwrap().loss;
        let norms = ResidualNorms::of(model, ln, &ids()).unwrap();
        let sinks = AttentionSinks::of(model, ln, &ids()).unwrap().to_first;
        (neurons, ablated, norms, sinks)
    };
    let (neurons, ablated, norms, sinks) = of(&checkpoint);
    for other in &found {
        let (other_neurons, other_ablated, other_norms, other_sinks) = of(other);
        assert_eq!(neurons.ranked()[..6], other_neurons.ranked()[..6]);
        assert!(max_abs(&other_ablated, &ablated) < 1e-4);
        assert!(max_abs(&other_sinks, &sinks) < 1e-4);
        // A folded model's last MLP adds ln_f's bias too.
        for (a, b) in norms.norms.iter().zip(&other_norms.norms).take(norms.norms.len() - 2) {
            close(b.others.mean, a.others.mean, 1e-4, &a.at.to_string());
        }
    }
}
