//! Whole model folders whose parts say different things.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lnfree::data::dataset_options;
use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::model::{Gpt2Config, LoadedModel};
use lnfree::tch::{Device, Kind, Tensor};
use serde_json::{Value, json};

use crate::{line, vector};

/// A folder with tiny-a's weights and its config with keys changed.
fn folder(config: Value, change: impl FnOnce(&mut Weights)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut map: Value = serde_json::from_slice(&fs::read(vector("tiny-a/config.json")).unwrap()).unwrap();
    for (key, value) in config.as_object().unwrap() {
        map[key] = value.clone();
    }
    fs::write(folder.path().join("config.json"), map.to_string()).unwrap();
    let mut weights = read_weights(&vector("tiny-a")).unwrap();
    change(&mut weights);
    write_safetensors(&folder.path().join("model.safetensors"), &weights, &BTreeMap::new()).unwrap();
    folder
}

fn load(folder: &Path) -> lnfree::Result<LoadedModel> {
    LoadedModel::load(folder, None, Kind::Float, Device::Cpu)
}

/// Cuts the weights of a folder in two shards, and lists a head that neither holds.
fn shard(folder: &Path) {
    let whole = folder.join("model.safetensors");
    let weights = read_weights(&whole).unwrap();
    fs::remove_file(whole).unwrap();
    let mut map = BTreeMap::from([("lm_head.weight".to_string(), "model-00002-of-00002.safetensors")]);
    for (file, in_blocks) in
        [("model-00001-of-00002.safetensors", false), ("model-00002-of-00002.safetensors", true)]
    {
        let part: Weights = weights
            .iter()
            .filter(|(name, _)| name.starts_with("h.") == in_blocks)
            .map(|(name, tensor)| (format!("transformer.{name}"), tensor.shallow_clone()))
            .collect();
        map.extend(part.keys().map(|name| (name.clone(), file)));
        write_safetensors(&folder.join(file), &part, &BTreeMap::new()).unwrap();
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn a_tied_head_that_an_index_lists_and_no_shard_holds() {
    let tied = folder(json!({}), |_| {});
    shard(tied.path());
    assert!(load(tied.path()).unwrap().model.lm_head.is_none());
    let untied = folder(json!({"tie_word_embeddings": false}), |_| {});
    shard(untied.path());
    let message = line(load(untied.path()));
    assert!(message.contains("lack `lm_head.weight` of shape [256, 64]"), "{message}");
}

#[test]
fn rows_and_vocabulary_have_to_agree() {
    for (vocab_size, rows) in [(250, 256), (300, 256)] {
        let folder = folder(json!({"vocab_size": vocab_size}), |_| {});
        let message = line(load(folder.path()));
        assert!(message.contains("`wte.weight` has the shape [256, 64]"), "{message}");
        assert!(message.contains(&format!("set vocab_size to {rows}")), "{message}");
    }
}

#[test]
fn special_tokens_outside_the_vocabulary_are_none() {
    let folder = folder(json!({"bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": -1}), |_| {});
    let model = load(folder.path()).unwrap().model;
    assert_eq!((model.config.bos_token_id, model.config.eos_token_ids.as_slice()), (None, [].as_slice()));
}

#[test]
fn other_parameters_are_no_obstacle() {
    let folder = folder(json!({"architectures": ["GPT2DoubleHeadsModel"]}), |weights| {
        weights.insert(
            "multiple_choice_head.summary.weight".into(),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        );
    });
    load(folder.path()).unwrap();
}

#[test]
fn data_for_a_padded_vocabulary_of_gpt2_are_those_of_gpt2() {
    let tokenizer = |vocab_size: i64, own: bool| {
        let folder = tempfile::tempdir().unwrap();
        Gpt2Config::new(1, 1, 8, 8, vocab_size).unwrap().write(folder.path()).unwrap();
        if own {
            fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        }
        dataset_options(folder.path(), 8).tokenizer.is_none()
    };
    for (vocab_size, own, gpt2) in [
        (50257, false, true),
        (50257, true, true),
        (50304, false, true),
        (50304, true, false),
        (50256, false, false),
        (51200, false, false),
    ] {
        assert_eq!(tokenizer(vocab_size, own), gpt2, "{vocab_size}, {own}");
    }
}
