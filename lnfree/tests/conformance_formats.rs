//! Checkpoints, exports and evaluations, equal to those of the paper's code.

mod common;

use common::{close, json, max_abs, tensors, token_file, vector};
use lnfree::data::TokenFile;
use lnfree::eval::{EvalOptions, Summary, evaluate};
use lnfree::export::{CardFacts, ExportFormat, compare, constant_stds, export};
use lnfree::hook::NoHook;
use lnfree::model::{Compute, LoadedModel, ModelFormat};
use lnfree::norm::ln_names;
use lnfree::tch::{Device, Kind, Tensor, no_grad_guard};

fn load(name: &str, format: Option<ModelFormat>) -> LoadedModel {
    LoadedModel::load(&vector(name), format, Kind::Float, Device::Cpu).unwrap()
}

fn logits(loaded: &LoadedModel, ids: &Tensor) -> Tensor {
    let _guard = no_grad_guard();
    loaded.model.forward(ids, &loaded.ln, Compute::default(), &mut NoHook).unwrap()
}

#[test]
fn checkpoints_of_the_paper() {
    let vectors = tensors("export_logits.safetensors");
    for step in ["step30", "step60"] {
        let loaded = load(&format!("checkpoint/{step}"), None);
        assert_eq!(loaded.format, ModelFormat::Checkpoint);
        let worst =
            max_abs(&logits(&loaded, &vectors["input_ids"]), &vectors[&format!("logits.fakeln_{step}")]);
        assert!(worst < 2e-5, "{step}: largest difference {worst:e}");
    }
    let half_way = load("checkpoint/step30", None);
    assert!(half_way.ln.blocks.iter().all(|b| b.ln1_qk.is_fake() && b.ln2.is_fake()));
    assert!(half_way.ln.blocks[1].ln1_v.is_fake() && !half_way.ln.blocks[2].ln1_v.is_fake());
    assert!(!half_way.ln.lnf.is_fake());
    let refused = constant_stds(&half_way.ln, false).unwrap_err().to_string();
    assert!(refused.contains("h.2.ln_1.v"), "{refused}");
}

#[test]
fn the_papers_export() {
    let vectors = tensors("export_logits.safetensors");
    let loaded = load("exported_noln", None);
    assert_eq!(loaded.format, ModelFormat::Scaled);
    for key in ["logits.exported_hf", "logits.exported_transformerlens"] {
        let worst = max_abs(&logits(&loaded, &vectors["input_ids"]), &vectors[key]);
        assert!(worst < 2e-5, "{key}: largest difference {worst:e}");
    }
}

#[test]
fn our_exports_of_the_papers_checkpoint() {
    let source = load("checkpoint/step60", None);
    let stds = constant_stds(&source.ln, false).unwrap();
    let recorded = &json("export.json")["extracted_std"];
    for (name, std) in ln_names(3).iter().zip(&stds) {
        let hook = match name.as_str() {
            "ln_f" => "blocks.2.hook_resid_post".to_string(),
            _ => {
                let place = if name.ends_with("ln_1") { "pre" } else { "mid" };
                format!("blocks.{}.hook_resid_{place}", &name[2..3])
            }
        };
        close(*std, recorded[&hook].as_f64().unwrap(), 1e-6, &hook);
    }
    let dir = tempfile::tempdir().unwrap();
    let facts = CardFacts { name: "tiny".into(), ..CardFacts::default() };
    let ids = &tensors("export_logits.safetensors")["input_ids"];
    for format in [ExportFormat::Scaled, ExportFormat::Folded, ExportFormat::Identity] {
        let stored = format.stored();
        let out = dir.path().join(format!("{format:?}"));
        let proof = export(&source, format, &out, false, &facts).unwrap();
        assert!(proof.relative_rms < 1e-5, "{format:?}: {proof:?}");
        let reloaded = LoadedModel::load(&out, Some(stored), Kind::Float, Device::Cpu).unwrap();
        let worst = max_abs(&logits(&reloaded, ids), &logits(&source, ids));
        assert!(worst < 2e-5, "{format:?}: largest difference {worst:e}");
        let as_usual = LoadedModel::load(&out, Some(ModelFormat::Transformers), Kind::Float, Device::Cpu);
        match format {
            ExportFormat::Folded => assert!(as_usual.unwrap_err().to_string().contains("-f folded")),
            ExportFormat::Scaled | ExportFormat::Identity => {
                let worst = max_abs(&logits(&as_usual.unwrap(), ids), &logits(&source, ids));
                assert!(worst < 2e-5, "as transformers loads it: largest difference {worst:e}");
            }
        }
    }
    let scaled = lnfree::model::weights::read_weights(&dir.path().join("Scaled")).unwrap();
    let theirs = tensors("exported_noln/model.safetensors");
    assert_eq!(scaled.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, tensor) in &scaled {
        let limit = 1e-6 * theirs[name].abs().max().double_value(&[]).max(1.0);
        assert!(max_abs(tensor, &theirs[name]) <= limit, "{name}");
    }
}

/// In bf16 the folded model rounds less often than the model with LN and must not be further from float32.
#[test]
fn folded_in_bf16_is_no_worse() {
    let _guard = no_grad_guard();
    let source = load("checkpoint/step60", None);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("folded");
    export(&source, ExportFormat::Folded, &out, false, &CardFacts::default()).unwrap();
    let folded = LoadedModel::load(&out, None, Kind::Float, Device::Cpu).unwrap();
    let ids = &tensors("eval_tokens.safetensors")["tokens"];
    let bf16 = Compute { dtype: Kind::BFloat16, ..Compute::default() };
    let exact = logits(&source, ids);
    let error = |m: &LoadedModel| {
        let low = m.model.forward(ids, &m.ln, bf16, &mut NoHook).unwrap().to_kind(Kind::Float);
        common::relative_rms(&low, &exact)
    };
    let (folded_error, source_error) = (error(&folded), error(&source));
    assert!(folded_error < 1.1 * source_error, "folded {folded_error:e}, unfolded {source_error:e}");
    let proof = compare((&source.model, &source.ln), (&folded.model, &folded.ln)).unwrap();
    assert!(proof.relative_rms < 1e-5);
}

/// A special std is no constant: it is refused by name, or put aside when that is asked for.
#[test]
fn special_stds_are_refused_or_put_aside() {
    let mut source = load("checkpoint/step60", None);
    source.ln.settings.special_std = true;
    let _ = source.ln.statistics.frozen.select(1, 1).fill_(7.0);
    let dir = tempfile::tempdir().unwrap();
    for format in [ExportFormat::Scaled, ExportFormat::Folded, ExportFormat::Identity] {
        let out = dir.path().join(format!("{format:?}"));
        let refused = export(&source, format, &out, false, &CardFacts::default()).unwrap_err().to_string();
        assert!(refused.contains("h.0.ln_2") && refused.contains("--ignore-special"), "{refused}");
        assert!(!out.exists());
        let proof = export(&source, format, &out, true, &CardFacts::default()).unwrap();
        assert!(proof.relative_rms < 1e-5, "{format:?}: {proof:?}");
    }
}

#[test]
fn evaluations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.arrow");
    token_file(&path, &tensors("eval_tokens.safetensors")["tokens"]);
    let tokens = TokenFile::open(&path).unwrap();
    let losses = tensors("eval_losses.safetensors");
    let recorded = json("eval.json");
    let options = EvalOptions { batch_size: 4, drop_last: true, ..EvalOptions::default() };
    for (name, source) in [
        ("tiny", "tiny-a"),
        ("fakeln_step60", "checkpoint/step60"),
        ("exported_hf", "exported_noln"),
        ("exported_transformerlens", "exported_noln"),
    ] {
        let loaded = load(source, None);
        let before = loaded.ln.copy();
        let found = evaluate(&loaded.model, &loaded.ln, &tokens, options, |_| {}).unwrap();
        assert_eq!(found.sequences.len(), 20);
        let worst = max_abs(&Tensor::from_slice(&found.losses), &losses[&format!("losses.{name}")].view(-1));
        assert!(worst < 2e-5, "{name}: largest difference {worst:e}");
        let (summary, want) = (Summary::new(&found.losses), &recorded["models"][name]);
        let near = |found: f64, want: &serde_json::Value, what: &str| {
            let want = want.as_f64().unwrap();
            assert!((found - want).abs() < 2e-5, "{name} {what}: {found} should be {want}");
        };
        near(summary.mean, &want["mean_float64"], "mean");
        near(summary.mean, &want["returned_avg_loss"], "returned mean");
        near(summary.median, &want["median"], "median");
        near(summary.ranges["50"][0], &want["q25"], "lower quartile");
        near(summary.ranges["50"][1], &want["q75"], "upper quartile");
        for (width, key) in [("95", "range95"), ("98", "range98"), ("99.8", "range99_8")] {
            near(summary.ranges[width][0], &want[key][0], key);
            near(summary.ranges[width][1], &want[key][1], key);
        }
        for (after, before) in [
            (&loaded.ln.statistics.running, &before.statistics.running),
            (&loaded.ln.statistics.frozen, &before.statistics.frozen),
        ] {
            assert_eq!(max_abs(after, before), 0.0, "{name}: an evaluation moved the standard deviations");
        }
    }
    // All 22 sequences count unless the partial batch is dropped, and their order does not depend on the
    // batch size.
    let loaded = load("tiny-a", None);
    let all = EvalOptions { batch_size: 5, ..EvalOptions::default() };
    let found = evaluate(&loaded.model, &loaded.ln, &tokens, all, |_| {}).unwrap();
    assert_eq!((found.sequences.len(), found.losses.len()), (22, 22 * 63));
    let first = Tensor::from_slice(&found.losses[..1260]);
    assert!(max_abs(&first, &losses["losses.tiny"].view(-1)) < 2e-5);
}

#[test]
fn all_of_this_at_every_level_of_kernels() {
    common::again_at_every_level("all_of_this_at_every_level_of_kernels");
}
