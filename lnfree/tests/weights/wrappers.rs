//! Names that torch.compile, DDP, FSDP, Opacus and PEFT leave in files.

use std::fs;
use std::path::Path;

use lnfree::hook::NoHook;
use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::model::{Compute, LoadedModel};
use lnfree::tch::{Device, Kind, Tensor};

use crate::{line, vector};

/// A folder with tiny-a's config and its weights under other names: what `rename` makes of
/// `transformer.h.0.…`.
fn renamed(rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(vector("tiny-a/config.json"), folder.path().join("config.json")).unwrap();
    let weights = read_weights(&vector("tiny-a")).unwrap();
    let weights: Weights =
        weights.into_iter().map(|(name, tensor)| (rename(&format!("transformer.{name}")), tensor)).collect();
    write(folder.path(), &weights);
    folder
}

fn write(folder: &Path, weights: &Weights) {
    write_safetensors(&folder.join("model.safetensors"), weights, &Default::default()).unwrap();
}

fn load(folder: &Path) -> lnfree::Result<LoadedModel> {
    LoadedModel::load(folder, None, Kind::Float, Device::Cpu)
}

fn logits(loaded: &LoadedModel) -> Tensor {
    let ids = Tensor::from_slice(&[5i64, 9, 2, 255]).unsqueeze(0);
    loaded.model.forward(&ids, &loaded.ln, Compute::default(), &mut NoHook).unwrap()
}

#[test]
fn a_model_in_any_wrapping_is_the_model() {
    let plain = logits(&load(&vector("tiny-a")).unwrap());
    let in_blocks = |name: &str, part: &str| match name.split_once(".h.") {
        Some((before, rest)) => {
            let (layer, rest) = rest.split_once('.').unwrap();
            format!("{before}.h.{layer}.{part}.{rest}")
        }
        None => name.to_string(),
    };
    let renames: [&dyn Fn(&str) -> String; 9] = [
        &|name| format!("_orig_mod.{name}"),
        &|name| format!("module._orig_mod.{name}"),
        &|name| format!("_orig_mod.module.{name}"),
        &|name| format!("_module.{name}"),
        &|name| format!("base_model.model.{name}"),
        &|name| in_blocks(name, "_orig_mod"),
        &|name| format!("_fsdp_wrapped_module.{}", in_blocks(name, "_fsdp_wrapped_module")),
        &|name| in_blocks(name, "_fsdp_wrapped_module._checkpoint_wrapped_module"),
        &|name| format!("model._orig_mod.{}", name.replace(".weight", "._orig_mod.weight")),
    ];
    for (i, rename) in renames.iter().enumerate() {
        let folder = renamed(rename);
        assert_eq!(logits(&load(folder.path()).unwrap()), plain, "{i}");
    }
}

#[test]
fn two_names_for_one_tensor_are_refused() {
    let folder = renamed(str::to_string);
    let mut weights: Weights = read_weights(folder.path()).unwrap();
    weights.insert(
        "_orig_mod.transformer.h.1._orig_mod.ln_1.bias".into(),
        Tensor::zeros([64], (Kind::Float, Device::Cpu)),
    );
    write(folder.path(), &weights);
    let message = line(load(folder.path()));
    assert!(
        message.contains("holds `h.1.ln_1.bias` twice") && message.contains("_orig_mod.transformer"),
        "{message}"
    );
}

#[test]
fn a_prefix_that_nobody_knows_is_shown() {
    let folder = renamed(|name| format!("student.net.{name}"));
    let message = line(load(folder.path()));
    assert!(
        message.contains("lack `") && message.contains("there is `student.net.transformer."),
        "{message}"
    );
}

#[test]
fn adapters_and_quantized_weights_are_refused_by_name() {
    for (name, word) in [
        ("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", "merge_and_unload"),
        ("transformer.h.0.mlp.c_fc.qweight", "dequantize"),
        ("transformer.h.0.mlp.c_fc.weight_orig", "pruning"),
    ] {
        // Beside a whole model it would be dropped without a word.
        let folder = renamed(str::to_string);
        let mut weights = read_weights(folder.path()).unwrap();
        weights.insert(name.into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
        write(folder.path(), &weights);
        let message = line(load(folder.path()));
        assert!(message.contains(name) && message.contains(word), "{message}");
    }
}
