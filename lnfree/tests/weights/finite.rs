//! Weights that are not finite: refused wherever a model is loaded, by the tensor's name.

use std::fs;
use std::path::Path;

use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::model::{LoadOptions, LoadedModel};
use lnfree::tch::{Device, Kind, Tensor};

use crate::{line, vector};

/// tiny-a or a checkpoint in `kind`, with its weights changed.
fn model(name: &str, kind: Kind, change: impl FnOnce(&mut Weights)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(vector(name)).unwrap().flatten() {
        if file.path().extension().is_some_and(|end| end == "json") {
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    let weights = read_weights(&vector(name)).unwrap();
    let mut weights: Weights = weights
        .into_iter()
        .map(|(name, tensor)| {
            let copied = if tensor.is_floating_point() { tensor.to_kind(kind) } else { tensor };
            (name, copied.copy())
        })
        .collect();
    change(&mut weights);
    write_safetensors(&folder.path().join("model.safetensors"), &weights, &Default::default()).unwrap();
    folder
}

fn load(folder: &Path) -> lnfree::Result<LoadedModel> {
    LoadedModel::load(folder, None, Kind::Float, Device::Cpu)
}

/// Sets the value at a place of the flattened tensor; negative places count from the end.
fn set(weights: &Weights, name: &str, at: i64, value: f64) {
    let flat = weights[name].view(-1);
    let at = at.rem_euclid(flat.size()[0]);
    let _ = flat.narrow(0, at, 1).fill_(value);
}

#[test]
fn one_value_in_any_weight_of_any_type_is_found() {
    let names = ["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.2.mlp.c_proj.bias", "ln_f.weight"];
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let kinds = [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double];
    for (i, kind) in kinds.into_iter().enumerate() {
        for (j, name) in names.into_iter().enumerate() {
            let value = values[(i + j) % 3];
            // First, last, and somewhere in a vector of the kernels.
            let at = [0, -1, 13][(i + 2 * j) % 3];
            let folder = model("tiny-a", kind, |weights| set(weights, name, at, value));
            let message = line(load(folder.path()));
            assert!(message.contains(&format!("`{name}`: 1 of ")), "{kind:?}, {name}: {message}");
            assert!(message.contains("--allow-non-finite"), "{message}");
        }
    }
}

#[test]
fn they_can_be_looked_at_all_the_same() {
    let folder = model("tiny-a", Kind::Float, |weights| set(weights, "wte.weight", 63 * 64, f64::NAN));
    assert!(load(folder.path()).is_err());
    let options = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
    let loaded = LoadedModel::load_with(folder.path(), options).unwrap();
    assert!(loaded.model.wte.double_value(&[63, 0]).is_nan());
}

#[test]
fn what_is_too_large_for_the_type_computed_in_counts_too() {
    let folder = model("tiny-a", Kind::Double, |weights| set(weights, "h.1.mlp.c_fc.weight", 7, 1e39));
    let message = line(load(folder.path()));
    assert!(message.contains("`h.1.mlp.c_fc.weight`: 1 of 16384 values are too large"), "{message}");
    let as_stored = LoadOptions { kind: Kind::Double, ..LoadOptions::default() };
    LoadedModel::load_with(folder.path(), as_stored).unwrap();
    let folder = model("tiny-a", Kind::Double, |weights| set(weights, "h.1.mlp.c_fc.weight", 7, 3e38));
    load(folder.path()).unwrap();
}

#[test]
fn tensors_that_nothing_reads_may_hold_anything() {
    let nan = || Tensor::from_slice(&[f32::NAN]);
    let folder = model("tiny-a", Kind::Float, |weights| {
        weights.insert("score.weight".into(), nan());
        weights.insert("h.0.attn.masked_bias".into(), nan());
        let head = weights["wte.weight"].copy();
        weights.insert("lm_head.weight".into(), head);
        set(weights, "lm_head.weight", 0, f64::NAN);
    });
    load(folder.path()).unwrap();
}

#[test]
fn the_state_of_lns_has_to_be_finite() {
    let name = "h.1.ln_2.real_average_std";
    let folder = model("checkpoint/step30", Kind::Float, |weights| set(weights, name, 0, f64::NAN));
    let message = line(load(folder.path()));
    assert!(message.contains(&format!("`{name}`: 1 of 1 values")), "{message}");
}
