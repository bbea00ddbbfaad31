//! `generation_config.json`, compared with what transformers' generate makes of it
//! (`tests/vectors/generation/make.py`).

use std::fs;

use lnfree::config::FloatType;
use lnfree::generate::{Generator, SampleOptions};
use lnfree::model::{GenerationConfig, Gpt2Config, LoadedModel};
use lnfree::tch::{Device, Kind};
use serde_json::Value;

use crate::{line, vector};

/// tiny-a with keys of its config changed.
fn tiny(changes: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(vector("tiny-a/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(vector("tiny-a/config.json")).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn texts_are_those_of_transformers() {
    let expected: Value =
        serde_json::from_slice(&fs::read(vector("generation/expected.json")).unwrap()).unwrap();
    for case in expected["cases"].as_array().unwrap() {
        let folder = tiny(&case["config"]);
        if !case["generation_config"].is_null() {
            let path = folder.path().join("generation_config.json");
            fs::write(path, case["generation_config"].to_string()).unwrap();
        }
        let loaded = LoadedModel::load(folder.path(), None, Kind::Float, Device::Cpu).unwrap();
        let prompt: Vec<u32> = serde_json::from_value(case["prompt"].clone()).unwrap();
        let config = loaded.generation_config().unwrap();
        assert!(config.unused.is_empty(), "{case}");
        let mut options = SampleOptions { temperature: 0.0, ..SampleOptions::of(&config, prompt.len()) };
        if case["limit"] == true {
            options.max_new_tokens = expected["max_new_tokens"].as_u64().unwrap() as usize;
        }
        let generator = Generator::of(&loaded, FloatType::Float32).unwrap();
        let found = generator.generate(&prompt, options, |_| true).unwrap();
        // Ours leave the end token out.
        let mut text: Vec<u32> = serde_json::from_value(case["text"].clone()).unwrap();
        if text.last().is_some_and(|&id| config.eos_token_ids.contains(&i64::from(id))) {
            text.pop();
        }
        assert_eq!([prompt, found].concat(), text, "{case}");
    }
}

fn read(text: &str) -> lnfree::Result<GenerationConfig> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("generation_config.json"), text).unwrap();
    GenerationConfig::read(folder.path(), &Gpt2Config::read(&vector("tiny-a")).unwrap())
}

#[test]
fn every_key_is_honoured_or_told() {
    let config = read(
        "\u{FEFF}{\"eos_token_id\": [3, 4.0], \"bos_token_id\": 7, \"pad_token_id\": -1, \"do_sample\": true, \"top_k\": 0,
         \"temperature\": 0.5, \"top_p\": 0.9, \"num_beams\": 4, \"typical_p\": 1.0, \"length_penalty\": NaN, \"use_cache\": true,
         \"output_scores\": true, \"no_repeat_ngram_size\": 0, \"bad_words_ids\": [[5]], \"novel\": 1, \"other\": null,
         \"transformers_version\": \"4.57.6\", \"_from_model_config\": true}",
    )
    .unwrap();
    assert_eq!((config.eos_token_ids.as_slice(), config.bos_token_id), ([3, 4].as_slice(), Some(7)));
    assert_eq!((config.do_sample, config.temperature, config.top_k), (Some(true), Some(0.5), Some(0)));
    assert_eq!(config.top_p, Some(0.9));
    let mut unused = config.unused;
    unused.sort();
    assert_eq!(unused, ["bad_words_ids = [[5]]", "length_penalty = NaN", "novel = 1", "num_beams = 4"]);
}

#[test]
fn what_cannot_be_is_refused_by_its_key() {
    for (text, expected) in [
        ("{\"temperature\": -1}", "temperature = -1"),
        ("{\"temperature\": NaN}", "temperature = NaN"),
        ("{\"top_k\": 2.5}", "top_k = 2.5"),
        ("{\"top_p\": 1.1}", "top_p = 1.1"),
        ("{\"repetition_penalty\": 0}", "repetition_penalty = 0"),
        ("{\"eos_token_id\": \"end\"}", "eos_token_id = \"end\""),
        ("{\"max_length\": -3}", "max_length = -3"),
        ("{\"do_sample\": \"yes\"}", "do_sample = \"yes\""),
        ("[]", "is not a JSON object"),
        ("{", "is not a JSON object"),
    ] {
        let message = line(read(text));
        assert!(
            message.contains("generation_config.json: ") && message.contains(expected),
            "{text}: {message}"
        );
    }
}
