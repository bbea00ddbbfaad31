//! `config.json`.

use std::fs;

use lnfree::model::hf_config::{Gpt2Config, check_shapes, expected};
use lnfree::model::weights::read_weights;
use lnfree::tch::Tensor;
use serde_json::{Map, Value, json};

use crate::{line, vector};

/// The config of the step-30 checkpoint with these keys set, or taken out where the value is null.
fn changed(changes: Value) -> Map<String, Value> {
    let text = fs::read(vector("checkpoint/step30/config.json")).unwrap();
    let mut map: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => map.remove(key),
            value => map.insert(key.clone(), value.clone()),
        };
    }
    map
}

#[test]
fn the_config_of_a_checkpoint_is_read() {
    let config = Gpt2Config::read(&vector("checkpoint/step30")).unwrap();
    assert_eq!((config.n_layer, config.n_head, config.n_embd), (3, 4, 64));
    assert_eq!((config.block_size, config.vocab_size), (64, 256));
    assert_eq!((config.n_inner, config.mlp_width()), (None, 256));
    assert_eq!((config.layer_norm_epsilon, config.initializer_range), (1e-5, 0.02));
    assert_eq!((config.resid_pdrop, config.embd_pdrop, config.attn_pdrop), (0.0, 0.0, 0.0));
    assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(255), [255].as_slice()));
    assert!(config.tie_word_embeddings);
    assert_eq!(config.other["summary_first_dropout"], 0.1);
}

#[test]
fn what_is_written_is_read_back_and_keeps_what_others_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        Gpt2Config::try_from(changed(json!({"eos_token_id": [1, 2], "layer_norm_epsilon": 1e12}))).unwrap();
    config.block_size = 32;
    config.write(folder.path()).unwrap();
    assert_eq!(Gpt2Config::read(&folder.path().join("config.json")).unwrap(), config);
    let text = fs::read(folder.path().join("config.json")).unwrap();
    let map: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    assert_eq!((&map["n_positions"], &map["n_ctx"]), (&json!(32), &json!(32)));
    assert_eq!(map["architectures"], json!(["GPT2LMHeadModel"]));
    assert_eq!(map["eos_token_id"], json!([1, 2]));
    assert_eq!(map["layer_norm_epsilon"], 1e12);
    // Everything that the original had is still there.
    let before = changed(json!({}));
    assert!(before.keys().all(|key| map.contains_key(key)));
    assert!(["summary_type", "torch_dtype", "_name_or_path"].iter().all(|key| map[*key] == before[*key]));
    // It can be a part of something larger, too.
    let inside = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Gpt2Config>(&inside).unwrap(), config);
}

#[test]
fn missing_keys_mean_what_transformers_takes_them_for() {
    let keys = [
        "layer_norm_epsilon",
        "resid_pdrop",
        "embd_pdrop",
        "attn_pdrop",
        "initializer_range",
        "bos_token_id",
    ];
    let mut nothing: Map<String, Value> = keys.iter().map(|key| (key.to_string(), Value::Null)).collect();
    nothing.insert("eos_token_id".into(), Value::Null);
    nothing.insert("activation_function".into(), Value::Null);
    let config = Gpt2Config::try_from(changed(Value::Object(nothing.clone()))).unwrap();
    assert_eq!((config.layer_norm_epsilon, config.initializer_range), (1e-5, 0.02));
    assert_eq!((config.resid_pdrop, config.embd_pdrop, config.attn_pdrop), (0.1, 0.1, 0.1));
    assert_eq!(
        (config.bos_token_id, config.eos_token_ids.len()),
        (None, 0),
        "50256 is outside this vocabulary"
    );
    nothing.insert("vocab_size".into(), json!(50257));
    let config = Gpt2Config::try_from(changed(Value::Object(nothing))).unwrap();
    assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(50256), [50256].as_slice()));
}

#[test]
fn what_cannot_be_is_refused_by_its_key() {
    let cases = [
        (json!({"model_type": "llama"}), "model_type = \"llama\""),
        (json!({"model_type": null}), "model_type is missing"),
        (json!({"activation_function": "relu"}), "activation_function = \"relu\""),
        (json!({"activation_function": "gelu"}), "activation_function = \"gelu\""),
        (json!({"scale_attn_weights": false}), "scale_attn_weights = false"),
        (json!({"scale_attn_by_inverse_layer_idx": true}), "scale_attn_by_inverse_layer_idx = true"),
        (json!({"reorder_and_upcast_attn": true}), "reorder_and_upcast_attn = true"),
        (json!({"add_cross_attention": true}), "add_cross_attention = true"),
        (json!({"n_layer": null}), "n_layer is missing"),
        (json!({"n_layer": -3}), "n_layer = -3"),
        (json!({"n_layer": 0}), "n_layer = 0"),
        (json!({"n_layer": 3.5}), "n_layer = 3.5"),
        (json!({"n_layer": "3"}), "n_layer = \"3\""),
        (json!({"n_layer": u64::MAX}), "n_layer = 18446744073709551615"),
        (json!({"n_layer": 1_000_000}), "n_layer = 1000000"),
        (json!({"n_head": 5}), "n_embd = 64 is not divisible by n_head = 5"),
        (json!({"n_embd": i64::MAX}), "n_embd = "),
        (json!({"n_positions": 0}), "n_positions = 0"),
        (json!({"vocab_size": 0}), "vocab_size = 0"),
        (json!({"n_inner": 0}), "n_inner = 0"),
        (json!({"resid_pdrop": 1.0}), "resid_pdrop = 1"),
        (json!({"attn_pdrop": -0.1}), "attn_pdrop = -0.1"),
        (json!({"layer_norm_epsilon": -1e-5}), "layer_norm_epsilon = "),
        (json!({"layer_norm_epsilon": "small"}), "layer_norm_epsilon = \"small\""),
        (json!({"bos_token_id": 256}), "bos_token_id = 256 lies outside the vocabulary of 256"),
        (json!({"eos_token_id": [1, -1]}), "eos_token_id = -1"),
        (json!({"eos_token_id": "end"}), "eos_token_id = \"end\""),
        (json!({"tie_word_embeddings": "yes"}), "tie_word_embeddings = \"yes\""),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (changes, expected) in cases {
        let path = folder.path().join("config.json");
        fs::write(&path, serde_json::to_string(&changed(changes)).unwrap()).unwrap();
        let message = line(Gpt2Config::read(folder.path()));
        assert!(message.contains("config.json: ") && message.contains(expected), "{expected}: {message}");
    }
    for text in ["", "[]", "{", "{}", "nan", "{\"n_layer\": Infinity}"] {
        fs::write(folder.path().join("config.json"), text).unwrap();
        assert!(line(Gpt2Config::read(folder.path())).contains("config.json: "));
    }
    fs::write(folder.path().join("config.json"), vec![b' '; 2 << 20]).unwrap();
    assert!(line(Gpt2Config::read(folder.path())).contains("too large"));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(line(Gpt2Config::read(folder.path())).contains("No such file"));
}

#[test]
fn shapes_are_compared_with_the_config() {
    let config = Gpt2Config::read(&vector("checkpoint/step30")).unwrap();
    let mut weights = read_weights(&vector("checkpoint/step30")).unwrap();
    // 2 embeddings, 12 tensors in each of 3 blocks, 2 of ln_f; the head is tied.
    assert_eq!(expected(&config).len(), 2 + 3 * 12 + 2);
    let others = check_shapes(&weights, &config).unwrap();
    assert_eq!(
        others.len(),
        weights.len() - expected(&config).len() - 1,
        "all but the parameters and the tied head"
    );
    assert!(
        others.contains(&"h.0.ln_1.is_fake".to_string()) && !others.contains(&"lm_head.weight".to_string())
    );

    let mut wider = config.clone();
    wider.n_inner = Some(128);
    let message = line(check_shapes(&weights, &wider));
    assert!(
        message.contains("`h.0.mlp.c_fc.bias` has the shape [256]") && message.contains("[128]"),
        "{message}"
    );
    let mut deeper = config.clone();
    deeper.n_layer = 4;
    assert!(line(check_shapes(&weights, &deeper)).contains("`h.3."));
    weights.insert(
        "lm_head.weight".into(),
        Tensor::zeros([2, 2], (lnfree::tch::Kind::Float, lnfree::tch::Device::Cpu)),
    );
    assert!(line(check_shapes(&weights, &config)).contains("`lm_head.weight` has the shape [2, 2]"));
    weights.remove("lm_head.weight");
    check_shapes(&weights, &config).unwrap();
    let mut untied = config;
    untied.tie_word_embeddings = false;
    assert!(line(check_shapes(&weights, &untied)).contains("lack `lm_head.weight` of shape [256, 64]"));
}
