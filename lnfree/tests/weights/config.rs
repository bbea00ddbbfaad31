//! `config.json`.

use std::fs;

use lnfree::config::hf_config::{Gpt2Config, expected};
use lnfree::model::check_shapes;
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
        (
            json!({"model_type": null, "architectures": ["LlamaForCausalLM"]}),
            "architectures = [\"LlamaForCausalLM\"]",
        ),
        (json!({"activation_function": "relu"}), "activation_function = \"relu\""),
        (json!({"activation_function": "gelu_10"}), "activation_function = \"gelu_10\""),
        (json!({"activation_function": null, "hidden_act": "relu"}), "hidden_act = \"relu\""),
        (json!({"hidden_size": 32}), "hidden_size = 32 contradicts n_embd = 64"),
        (json!({"num_attention_heads": 2}), "num_attention_heads = 2 contradicts n_head = 4"),
        (
            json!({"quantization_config": {"bits": 4}}),
            "quantization_config: quantized weights are not supported",
        ),
        (json!({"pruned_heads": {"0": [1]}}), "pruned_heads"),
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
        (json!({"eos_token_id": [1, 2.5]}), "eos_token_id = [1,2.5]"),
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
    for text in ["", "[]", "{", "{}", "nan", "{\"n_layer\": Infinity}", "NaN"] {
        fs::write(folder.path().join("config.json"), text).unwrap();
        assert!(line(Gpt2Config::read(folder.path())).contains("config.json: "));
    }
    for (key, word) in [("layer_norm_epsilon", "NaN"), ("n_embd", "Infinity"), ("eos_token_id", "-Infinity")]
    {
        let text = serde_json::to_string(&changed(json!({key: "?"}))).unwrap().replace("\"?\"", word);
        fs::write(folder.path().join("config.json"), text).unwrap();
        let message = line(Gpt2Config::read(folder.path()));
        assert!(message.contains(&format!("{key} = {word}, must be")), "{message}");
    }
    fs::write(folder.path().join("config.json"), vec![b' '; 2 << 20]).unwrap();
    assert!(line(Gpt2Config::read(folder.path())).contains("too large"));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(line(Gpt2Config::read(folder.path())).contains("is not there"));
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

/// The config of the step-30 checkpoint with `text` in place of what `changed` has under the key `x`, read
/// from a file.
fn read_with(changes: Value, text: &str) -> (tempfile::TempDir, lnfree::Result<Gpt2Config>) {
    let folder = tempfile::tempdir().unwrap();
    let whole = serde_json::to_string(&changed(changes)).unwrap().replace("\"?\"", text);
    fs::write(folder.path().join("config.json"), whole).unwrap();
    let config = Gpt2Config::read(folder.path());
    (folder, config)
}

#[test]
fn names_of_the_same_function_and_of_the_same_number_are_one() {
    let plain = Gpt2Config::try_from(changed(json!({}))).unwrap();
    for changes in [
        json!({"activation_function": "gelu_fast"}),
        json!({"activation_function": "gelu_pytorch_tanh"}),
        json!({"activation_function": "gelu_accurate"}),
        json!({"activation_function": null}),
        json!({"activation_function": null, "hidden_act": "gelu_new"}),
        json!({"model_type": null}),
        json!({"model_type": null, "architectures": null}),
        json!({"n_embd": 64.0, "n_layer": 3.0, "vocab_size": 256.0, "eos_token_id": 255.0}),
        json!({"n_inner": "?"}),
        json!({"hidden_size": 64, "num_attention_heads": 4}),
        json!({"n_embd": null, "hidden_size": 64}),
        json!({"scale_attn_weights": 1, "quantization_config": "?"}),
    ] {
        let (_folder, config) = read_with(changes.clone(), "null");
        assert_eq!(config.unwrap(), plain, "{changes}");
    }
    // Another model's key beside GPT-2's own is read by nobody.
    let (_folder, config) = read_with(json!({"hidden_act": "relu"}), "");
    assert_eq!(config.unwrap().other["hidden_act"], "relu");
}

#[test]
fn unread_keys_may_hold_numbers_that_are_not_finite_and_keep_them() {
    for word in ["NaN", "Infinity", "-Infinity", "[1, {\"a\": NaN}]"] {
        let (folder, config) = read_with(json!({"initial_loss": "?"}), word);
        config.unwrap().write(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
        let text: String = text.split_whitespace().collect();
        let word: String = word.split_whitespace().collect();
        assert!(text.contains(&format!("\"initial_loss\":{word}")), "{text}");
    }
}

#[test]
fn a_byte_order_mark_and_repeated_keys_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = serde_json::to_string(&changed(json!({}))).unwrap();
    fs::write(&path, format!("\u{FEFF}{text}")).unwrap();
    let plain = Gpt2Config::try_from(changed(json!({}))).unwrap();
    assert_eq!(Gpt2Config::read(folder.path()).unwrap(), plain);
    // As in Python the last one counts.
    fs::write(&path, text.replacen('{', "{\"n_embd\": 5, ", 1)).unwrap();
    assert_eq!(Gpt2Config::read(folder.path()).unwrap(), plain);
    let utf16: Vec<u8> = [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    fs::write(&path, utf16).unwrap();
    assert!(line(Gpt2Config::read(folder.path())).contains("UTF-16; save it as UTF-8"));
}

#[test]
fn tokens_outside_the_vocabulary_are_none() {
    for (changes, bos, eos) in [
        (json!({"bos_token_id": 50256, "eos_token_id": 50256}), None, vec![]),
        (json!({"bos_token_id": -1, "eos_token_id": [-1, 3, 256, 4]}), None, vec![3, 4]),
        (json!({"bos_token_id": 256}), None, vec![255]),
    ] {
        let config = Gpt2Config::try_from(changed(changes)).unwrap();
        assert_eq!((config.bos_token_id, config.eos_token_ids), (bos, eos));
    }
    let pad =
        |id| Gpt2Config::try_from(changed(json!({"pad_token_id": id}))).unwrap().other.remove("pad_token_id");
    assert_eq!((pad(-1), pad(256), pad(7)), (None, None, Some(json!(7))));
    // What a caller sets is checked.
    let mut config = Gpt2Config::try_from(changed(json!({}))).unwrap();
    config.eos_token_ids = vec![256];
    let folder = tempfile::tempdir().unwrap();
    assert!(
        line(config.write(folder.path())).contains("eos_token_id = 256 lies outside the vocabulary of 256")
    );
}

#[test]
fn null_leaves_the_head_untied_as_in_python() {
    let (_folder, config) = read_with(json!({"tie_word_embeddings": "?"}), "null");
    assert!(!config.unwrap().tie_word_embeddings);
}
