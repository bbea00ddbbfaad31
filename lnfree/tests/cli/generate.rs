//! `generate`: where texts end, what a model's folder says about them, and models that cannot be drawn from.

use std::path::{Path, PathBuf};

use lnfree::config::hf_config::expected;
use lnfree::data::Tokenizer;
use lnfree::generate::{SampleOptions, generate};
use lnfree::model::names::{hf_names, metadata};
use lnfree::model::weights::{Weights, write_safetensors};
use lnfree::model::{Gpt2Config, LoadedModel};
use lnfree::prelude::locate_model;
use lnfree::tch::{Device, Kind, Tensor};
use serde_json::{Value, json};

use super::{Ended, Place, one_line};

/// A small model with nano's tokenizer, whose texts change from token to token. Its numbers only look random:
/// tests that run beside this one draw from libtorch's generator, too.
fn model(place: &Place, name: &str, vocab_size: i64, change: impl FnOnce(&mut Weights)) -> PathBuf {
    let config = Gpt2Config::new(2, 2, 16, 48, vocab_size).unwrap();
    let number = |i: i64| (i as f64 * 12.9898).sin() * 43758.5453;
    let mut weights = Weights::new();
    for (at, (name, shape)) in expected(&config).into_iter().enumerate() {
        let n: i64 = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (number(i + 1000 * at as i64).fract() * 0.8) as f32).collect();
        let tensor = Tensor::from_slice(&values).view(shape.as_slice());
        let is_norm = name.contains("ln_") && name.ends_with(".weight");
        weights.insert(name, if is_norm { tensor + 1.0 } else { tensor });
    }
    change(&mut weights);
    let dir = place.path(name);
    std::fs::create_dir_all(&dir).unwrap();
    let nano = locate_model("nano").unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(nano.join(file), dir.join(file)).unwrap();
    }
    config.write(&dir).unwrap();
    write_safetensors(&dir.join("model.safetensors"), &hf_names(weights), &metadata()).unwrap();
    dir
}

fn set_config(dir: &Path, key: &str, value: Value) {
    let file = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(&file, config.to_string()).unwrap();
}

/// The most likely text after "the".
fn likely(place: &Place, name: &str, more: &[&str]) -> Ended {
    place.lnfree(&[&["generate", "-m", name, "-p", "the", "--device", "cpu"][..], more].concat())
}

#[track_caller]
fn text(ended: Ended) -> String {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

#[test]
fn every_end_token_ends_a_text() {
    let place = Place::new();
    let dir = model(&place, "m", 4096, |_| {});
    let whole = text(likely(&place, "m", &["-t", "0", "-n", "12"]));
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let prompt = tokenizer.encode("the").unwrap();
    let loaded = LoadedModel::load(&dir, None, Kind::Float, Device::Cpu).unwrap();
    let greedy = SampleOptions { temperature: 0.0, max_new_tokens: 12, ..SampleOptions::default() };
    let new = generate(&loaded.model, &loaded.ln, &prompt, greedy, |_| true).unwrap();
    // Another token than the first, where it comes first.
    let at = new.iter().position(|id| *id != new[0]).unwrap();
    let (last, until) = (new[at], [&prompt, &new[..at]].concat());
    let until = tokenizer.decode(&until).unwrap() + "\n";
    set_config(&dir, "eos_token_id", json!([4095, last]));
    assert_eq!(text(likely(&place, "m", &["-t", "0", "-n", "12"])), until);
    // The other file goes before config.json, and flags before both.
    let file = json!({"eos_token_id": 4095, "max_new_tokens": at + 1});
    std::fs::write(dir.join("generation_config.json"), file.to_string()).unwrap();
    let further = text(likely(&place, "m", &["-t", "0"]));
    assert!(further.len() > until.len() && whole.starts_with(further.trim_end()), "{further}");
    assert_eq!(text(likely(&place, "m", &["-t", "0", "-n", "12"])), whole);
    set_config(&dir, "eos_token_id", json!(4095));
    let end = json!({"eos_token_id": [last, 99_999], "do_sample": false, "max_length": 20});
    std::fs::write(dir.join("generation_config.json"), end.to_string()).unwrap();
    let ended = likely(&place, "m", &[]);
    assert!(ended.stderr.contains("eos_token_id = 99999 lies outside the vocabulary of 4096"), "{ended:?}");
    assert_eq!(text(ended), until);
}

#[test]
fn what_a_generation_config_says_is_honoured_or_told() {
    let place = Place::new();
    let dir = model(&place, "m", 4096, |_| {});
    let plain = text(likely(&place, "m", &["-t", "0", "-n", "9"]));
    let penalised = text(likely(&place, "m", &["-t", "0", "-n", "9", "--repetition-penalty", "1.8"]));
    assert_ne!(plain, penalised);
    let file = json!({
        "eos_token_id": 4095, "do_sample": false, "max_new_tokens": 9, "repetition_penalty": 1.8, "num_beams": 3
    });
    std::fs::write(dir.join("generation_config.json"), format!("\u{FEFF}{file}")).unwrap();
    let ended = likely(&place, "m", &[]);
    assert!(
        ended.stderr.trim_end().ends_with("generation_config.json: not used: num_beams = 3"),
        "{ended:?}"
    );
    assert_eq!(text(ended), penalised);
    assert_eq!(text(likely(&place, "m", &["--repetition-penalty", "1"])), plain);
    // The text begins after the file's own token where there is no prompt.
    let begun = |id: u32| {
        std::fs::write(dir.join("generation_config.json"), json!({"bos_token_id": id}).to_string()).unwrap();
        text(place.lnfree(&["generate", "-m", "m", "-t", "0", "--max-new-tokens", "6", "--device", "cpu"]))
    };
    assert_ne!(begun(5), begun(6));
    std::fs::write(dir.join("generation_config.json"), "{\"temperature\": \"hot\"}").unwrap();
    place.fails(&["generate", "-m", "m"], &["m/generation_config.json", "temperature = \"hot\""]);
    place.fails(&["generate", "-m", "m", "--top-p", "2"], &["top_p 2"]);
}

#[test]
fn tokens_that_the_tokenizer_lacks_are_never_drawn() {
    let place = Place::new();
    let mut plain = Weights::new();
    model(&place, "plain", 4096, |weights| {
        plain.extend(weights.iter().map(|(name, tensor)| (name.clone(), tensor.copy())));
    });
    model(&place, "padded", 4160, |weights| {
        // Longer than all others: the likeliest of all tokens is a padding.
        let padding = plain["wte.weight"].narrow(0, 0, 64) * 100.0;
        let rows = Tensor::cat(&[&plain["wte.weight"], &padding], 0);
        weights.extend(plain);
        weights.insert("wte.weight".into(), rows);
    });
    let loaded = LoadedModel::load(&place.path("padded"), None, Kind::Float, Device::Cpu).unwrap();
    let greedy = SampleOptions { temperature: 0.0, max_new_tokens: 1, ..SampleOptions::default() };
    assert!(generate(&loaded.model, &loaded.ln, &[1909], greedy, |_| true).unwrap()[0] >= 4096);
    let plain = text(likely(&place, "plain", &["-t", "0", "-n", "20"]));
    assert_eq!(text(likely(&place, "padded", &["-t", "0", "-n", "20"])), plain);
    text(likely(&place, "padded", &["-t", "1.5", "-k", "0", "-n", "20"]));
}

#[test]
fn logits_that_are_not_finite_are_an_error() {
    let place = Place::new();
    model(&place, "overflow", 4096, |weights| {
        let large = weights["ln_f.weight"].full_like(3e38);
        weights.insert("ln_f.weight".into(), large);
    });
    for how in [["-t", "0"], ["-t", "0.8"]] {
        let ended = likely(&place, "overflow", &how);
        assert_eq!(ended.code, Some(4), "{ended:?}");
        one_line(&ended, &["logits are NaN or infinite"]);
    }
    model(&place, "nan", 4096, |weights| drop(weights["wte.weight"].narrow(0, 9, 1).fill_(f64::NAN)));
    let ended = likely(&place, "nan", &["-t", "0"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    one_line(&ended, &["nan: `wte.weight`: 16 of 65536 values are NaN or infinite, the first at [9, 0]"]);
    let ended = likely(&place, "nan", &["-t", "0", "--allow-non-finite"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stderr.contains("read all the same") && ended.stderr.contains("logits are NaN"),
        "{ended:?}"
    );
}
