//! The format `identity`: what is in the file, what plain GPT-2 code makes of it, and what other programs can
//! do to it.

mod common;

use common::{max_abs, relative_rms, tensors, vector};
use lnfree::export::{CardFacts, EPSILON, ExportFormat, GAMMA, compare, export};
use lnfree::hook::{Activation, Capture, NoHook};
use lnfree::interp::ResidualNorms;
use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::model::{Compute, LoadedModel, ModelFormat};
use lnfree::norm::{LnSite, ln_names};
use lnfree::tch::{Device, Kind, Tensor, no_grad_guard};

const LAYERS: usize = 3;

fn load(dir: &std::path::Path, format: Option<ModelFormat>) -> lnfree::Result<LoadedModel> {
    LoadedModel::load(dir, format, Kind::Float, Device::Cpu)
}

fn source() -> LoadedModel {
    load(&vector("checkpoint/step60"), None).unwrap()
}

fn ids() -> Tensor {
    tensors("export_logits.safetensors")["input_ids"].shallow_clone()
}

fn logits(loaded: &LoadedModel) -> Tensor {
    let _guard = no_grad_guard();
    loaded.model.forward(&ids(), &loaded.ln, Compute::default(), &mut NoHook).unwrap()
}

/// The export of the checkpoint in a temporary folder.
fn exported(format: ExportFormat) -> (tempfile::TempDir, std::path::PathBuf, lnfree::export::Proof) {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join(format.to_string());
    let proof = export(&source(), format, &out, false, &CardFacts::default()).unwrap();
    (place, out, proof)
}

fn change_config(dir: &std::path::Path, key: &str, value: serde_json::Value) {
    let file = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(&file, config.to_string()).unwrap();
}

#[test]
fn the_file_has_norms_that_are_exact_and_a_shift_in_one_place() {
    let (_place, out, proof) = exported(ExportFormat::Identity);
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["layer_norm_epsilon"], 1073741824.0);
    assert_eq!(
        (&config["tie_word_embeddings"], &config["lnfree_format"]),
        (&false.into(), &"identity".into())
    );
    assert_eq!(EPSILON, GAMMA * GAMMA);
    let stored = read_weights(&out).unwrap();
    for name in ln_names(LAYERS) {
        let (weight, bias) = (&stored[&format!("{name}.weight")], &stored[&format!("{name}.bias")]);
        assert_eq!(max_abs(weight, &weight.full_like(GAMMA)), 0.0, "{name}");
        assert_eq!(bias.abs().max().double_value(&[]) == 0.0, name != "ln_f", "{name}");
    }
    // All that writes to the stream is centred, and the last MLP's bias is its own.
    let source = source();
    let centred = |x: &Tensor| x - x.mean_dim(-1i64, true, Kind::Float);
    for (name, tensor) in &stored {
        if name.contains("c_proj") || name == "wte.weight" || name == "wpe.weight" {
            let mean = tensor.mean_dim(-1i64, false, Kind::Float).abs().max().double_value(&[]);
            assert!(mean < 1e-7 * (1.0 + tensor.abs().max().double_value(&[])), "{name}: {mean:e}");
        }
    }
    let bias = &source.model.h[LAYERS - 1].mlp.c_proj.bias;
    assert!(max_abs(&stored["h.2.mlp.c_proj.bias"], &centred(bias)) < 1e-7);
    // δ = βσ̄/γ, and the unembedding has γ/σ̄.
    let ln_f = source.model.ln_f.as_ref().unwrap();
    let std = source.ln.statistics.frozen.get(2 * LAYERS as i64).double_value(&[0]);
    let shift = &ln_f.bias * std / &ln_f.weight;
    assert!(relative_rms(&stored["ln_f.bias"], &shift) < 1e-6);
    assert!(relative_rms(&stored["lm_head.weight"], &(&source.model.wte * &ln_f.weight / std)) < 1e-6);
    assert!(proof.relative_rms < 1e-5 && proof.lens < 1e-5 && proof.attribution < 1e-5, "{proof:?}");
    assert!(proof.variance > 0.0 && proof.epsilon_error > 0.0 && proof.epsilon_error < 1e-5, "{proof:?}");
    // The parameters that are counted are those of the file.
    let numbers: usize = stored.values().map(Tensor::numel).sum();
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains(&format!("{numbers} parameters")) && card.contains("(identity)"), "{card}");
}

#[test]
fn plain_code_and_ours_compute_the_checkpoint() {
    let (_place, out, _) = exported(ExportFormat::Identity);
    let expected = logits(&source());
    for format in [None, Some(ModelFormat::Identity), Some(ModelFormat::Transformers)] {
        let loaded = load(&out, format).unwrap();
        let worst = max_abs(&logits(&loaded), &expected);
        assert!(worst < 5e-5, "{format:?}: largest difference {worst:e}");
        assert_eq!(loaded.format, format.unwrap_or(ModelFormat::Identity));
        assert_eq!(loaded.ln.all_fake(), format != Some(ModelFormat::Transformers));
    }
    // Ours divide by one, and the model says of itself what any GPT-2 does.
    let loaded = load(&out, None).unwrap();
    assert_eq!(loaded.model.config.layer_norm_epsilon, 1e-5);
    assert!(!loaded.model.config.other.contains_key("lnfree_format"));
    let _guard = no_grad_guard();
    let mut kept = Capture::of([Activation::Scale(LnSite::LnF), Activation::ResidPost(2)]).unwrap();
    let _logits = loaded.model.forward(&ids(), &loaded.ln, Compute::default(), &mut kept).unwrap();
    let scale = kept.get(Activation::Scale(LnSite::LnF)).unwrap();
    assert_eq!(max_abs(scale, &scale.ones_like()), 0.0);
    // The stream of the last block is that of the checkpoint, which a folded model's is not.
    let behind = |loaded: &LoadedModel| {
        let norms = ResidualNorms::of(&loaded.model, &loaded.ln, &ids()).unwrap().norms;
        norms.iter().map(|norm| norm.others.mean).collect::<Vec<f64>>()
    };
    let (theirs, ours) = (behind(&source()), behind(&loaded));
    let n = theirs.len();
    for (a, b) in theirs.iter().zip(&ours).take(n - 1) {
        common::close(*b, *a, 1e-4, "norm");
    }
    let (_place, folded, _) = exported(ExportFormat::Folded);
    let folded = behind(&load(&folded, None).unwrap());
    assert!((folded[n - 2] - theirs[n - 2]).abs() > 1e-3 * theirs[n - 2], "{folded:?}");
}

/// What a new user met: a folded model's logits are right and its insides are not.
#[test]
fn insides_are_compared_and_a_shift_in_a_bias_is_seen() {
    let (_place, out, identity) = exported(ExportFormat::Identity);
    let (_elsewhere, _, folded) = exported(ExportFormat::Folded);
    assert!(folded.relative_rms < 1e-5 && identity.relative_rms < 1e-5);
    assert!(folded.attribution > 100.0 * identity.attribution, "{folded:?} {identity:?}");
    assert!(folded.lens > 100.0 * identity.lens, "{folded:?} {identity:?}");
    // Moved from ln_f's bias into the last MLP's, the same shift leaves the logits and spoils the insides.
    let mut weights = read_weights(&out).unwrap();
    let shift = weights["ln_f.bias"].copy();
    let moved = &weights["h.2.mlp.c_proj.bias"] + (&shift - shift.mean(Kind::Float));
    weights.insert("h.2.mlp.c_proj.bias".into(), moved);
    weights.insert("ln_f.bias".into(), shift.full_like(shift.mean(Kind::Float).double_value(&[])));
    let hf = lnfree::model::names::hf_names(weights);
    write_safetensors(&out.join("model.safetensors"), &hf, &Default::default()).unwrap();
    let (spoilt, source) = (load(&out, Some(ModelFormat::Transformers)).unwrap(), source());
    let found = compare((&source.model, &source.ln), (&spoilt.model, &spoilt.ln)).unwrap();
    assert!(found.relative_rms < 1e-5 && found.lens > 1e-3 && found.attribution > 1e-3, "{found:?}");
}

#[test]
fn every_format_turns_into_every_other() {
    let expected = logits(&source());
    for first in [ExportFormat::Identity, ExportFormat::Folded, ExportFormat::Scaled] {
        let (place, out, _) = exported(first);
        let from = load(&out, None).unwrap();
        for second in [ExportFormat::Identity, ExportFormat::Folded, ExportFormat::Scaled] {
            let to = place.path().join(format!("again-{second}"));
            let facts = CardFacts::of("some/model", &out).unwrap();
            let made = export(&from, second, &to, false, &facts);
            if first == ExportFormat::Folded && second != ExportFormat::Identity {
                assert!(made.unwrap_err().to_string().contains("folded already"));
                continue;
            }
            made.unwrap();
            let loaded = load(&to, None).unwrap();
            assert_eq!(loaded.format, second.stored());
            let worst = max_abs(&logits(&loaded), &expected);
            assert!(worst < 5e-5, "{first} to {second}: largest difference {worst:e}");
            let card = std::fs::read_to_string(to.join("README.md")).unwrap();
            assert!(card.contains(&format!("`some/model`, which is the same model in the format `{first}`")));
            for empty in ["``", " 0 steps", "on ,", "on ."] {
                assert!(!card.split("```").step_by(2).any(|prose| prose.contains(empty)), "{empty}: {card}");
            }
            assert!(!card.contains("Constants that took the place"), "{card}");
        }
    }
}

#[test]
fn what_other_programs_write_over_is_noticed() {
    for format in [ExportFormat::Identity, ExportFormat::Scaled] {
        let (_place, out, _) = exported(format);
        change_config(&out, "layer_norm_epsilon", 1e-5.into());
        let refused = load(&out, None).unwrap_err().to_string();
        assert!(refused.contains("layer_norm_epsilon = 1e-5") && refused.lines().count() == 1, "{refused}");
        // Asked for by name, it is what the file says.
        let explodes = load(&out, Some(ModelFormat::Transformers)).unwrap();
        assert!(max_abs(&logits(&explodes), &logits(&source())) > 1.0);
    }
    let (_place, out, _) = exported(ExportFormat::Identity);
    change_config(&out, "tie_word_embeddings", true.into());
    let refused = load(&out, None).unwrap_err().to_string();
    assert!(refused.contains("tie_word_embeddings = false"), "{refused}");
    // An LN that somebody has trained on is none of ours any more: what it computes is still right.
    let (_place, out, _) = exported(ExportFormat::Identity);
    let mut weights: Weights = read_weights(&out).unwrap();
    let trained = &weights["h.1.ln_2.weight"] * 1.01;
    weights.insert("h.1.ln_2.weight".into(), trained);
    let hf = lnfree::model::names::hf_names(weights);
    write_safetensors(&out.join("model.safetensors"), &hf, &Default::default()).unwrap();
    let (as_found, plain) = (load(&out, None).unwrap(), load(&out, Some(ModelFormat::Transformers)).unwrap());
    assert_eq!(as_found.format, ModelFormat::Scaled);
    assert!(max_abs(&logits(&as_found), &logits(&plain)) < 5e-5);
    // Nor is an ordinary model's γ of a power of two taken for one.
    let tiny = load(&vector("tiny-a"), None).unwrap();
    assert_eq!(tiny.format, ModelFormat::Transformers);
}

#[test]
fn a_stream_that_is_too_large_for_epsilon_is_refused() {
    let mut source = source();
    source.model.wte = &source.model.wte * 1e5;
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let refused = export(&source, ExportFormat::Identity, &out, false, &CardFacts::default()).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("variance") && refused.contains("--format folded"), "{refused}");
    assert!(refused.lines().count() == 1 && !out.exists());
}

/// Sixteen bits hold γ; what they lose is what they lose of the checkpoint.
#[test]
fn bfloat16_moves_the_logits_no_further_than_the_checkpoint_s() {
    let _guard = no_grad_guard();
    let (_place, out, _) = exported(ExportFormat::Identity);
    let (source, plain) = (source(), load(&out, Some(ModelFormat::Transformers)).unwrap());
    let bf16 = Compute { dtype: Kind::BFloat16, ..Compute::default() };
    let exact = logits(&source);
    let error = |loaded: &LoadedModel| {
        let low = loaded.model.forward(&ids(), &loaded.ln, bf16, &mut NoHook).unwrap().to_kind(Kind::Float);
        relative_rms(&low, &exact)
    };
    let (ours, theirs) = (error(&plain), error(&source));
    assert!(ours.is_finite() && ours < 1.5 * theirs, "identity {ours:e}, checkpoint {theirs:e}");
    for kind in [Kind::Half, Kind::BFloat16] {
        let stored = read_weights(&out).unwrap();
        let gamma = &stored["ln_f.weight"];
        assert_eq!(max_abs(&gamma.to_kind(kind), gamma), 0.0);
        assert!(stored.values().all(|x| bool::try_from(x.to_kind(kind).isfinite().all()).unwrap()));
    }
}

#[test]
fn all_of_this_at_every_level_of_kernels() {
    common::again_at_every_level("all_of_this_at_every_level_of_kernels");
}
