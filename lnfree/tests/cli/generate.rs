//! `generate`: where texts end, what a model's folder says about them, and models that cannot be drawn from.

use std::path::{Path, PathBuf};

use lnfree::data::Tokenizer;
use lnfree::model::names::{hf_names, metadata};
use lnfree::model::weights::{Weights, write_safetensors};
use lnfree::model::{Gpt2, Gpt2Config};
use lnfree::prelude::locate_model;
use lnfree::tch::{Device, Kind, Tensor};
use serde_json::{Value, json};

use super::{Ended, Place, one_line};

/// A small random model with nano's tokenizer; its tokens are likely to differ from one position to the next.
fn model(place: &Place, name: &str, vocab_size: i64, change: impl FnOnce(&mut Weights)) -> PathBuf {
    let config = Gpt2Config::new(2, 2, 16, 48, vocab_size).unwrap();
    let mut weights = Gpt2::init(config.clone(), 3, Device::Cpu).unwrap().to_weights();
    for (name, tensor) in &mut weights {
        if name.starts_with('w') {
            *tensor = &*tensor * 40.0;
        }
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
    let ids = tokenizer.encode(whole.trim_end_matches('\n')).unwrap();
    let prompt = tokenizer.encode("the").unwrap().len();
    let third = ids[prompt + 2];
    assert!(!ids[..prompt + 2].contains(&third), "{ids:?}");
    let until = tokenizer.decode(&ids[..prompt + 2]).unwrap() + "\n";
    set_config(&dir, "eos_token_id", json!([4095, third]));
    assert_eq!(text(likely(&place, "m", &["-t", "0", "-n", "12"])), until);
    // The other file goes before config.json, and flags before both.
    std::fs::write(dir.join("generation_config.json"), "{\"eos_token_id\": 4095, \"max_new_tokens\": 5}")
        .unwrap();
    let five = text(likely(&place, "m", &["-t", "0"]));
    assert!(five.len() > until.len() && whole.starts_with(five.trim_end()), "{five}");
    assert_eq!(text(likely(&place, "m", &["-t", "0", "-n", "12"])), whole);
    set_config(&dir, "eos_token_id", json!(4095));
    let end = json!({"eos_token_id": [third, 99_999], "do_sample": false, "max_length": 20});
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
        text(place.lnfree(&["generate", "-m", "m", "-t", "0", "-n", "6", "--device", "cpu"]))
    };
    assert_ne!(begun(5), begun(6));
    std::fs::write(dir.join("generation_config.json"), "{\"temperature\": \"hot\"}").unwrap();
    place.fails(&["generate", "-m", "m"], &["m/generation_config.json", "temperature = \"hot\""]);
    place.fails(&["generate", "-m", "m", "--top-p", "2"], &["top_p 2"]);
}

#[test]
fn tokens_that_the_tokenizer_lacks_are_never_drawn() {
    let place = Place::new();
    let mut rows = None;
    model(&place, "plain", 4096, |weights| rows = Some(weights["wte.weight"].copy()));
    let (size, options) = ([64, 16], (Kind::Float, Device::Cpu));
    model(&place, "padded", 4160, |weights| {
        // Far from the others in all directions: the likeliest of all tokens is a padding.
        let padding = Tensor::randn(size, options) * 400.0;
        weights.insert("wte.weight".into(), Tensor::cat(&[rows.unwrap(), padding], 0));
    });
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
        assert_eq!(ended.code, Some(1), "{ended:?}");
        one_line(&ended, &["logits are NaN or infinite"]);
    }
    model(&place, "nan", 4096, |weights| drop(weights["wte.weight"].narrow(0, 9, 1).fill_(f64::NAN)));
    let ended = likely(&place, "nan", &["-t", "0"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    one_line(&ended, &["nan: `wte.weight`: 16 of 65536 values are NaN or infinite, the first at [9, 0]"]);
    let ended = likely(&place, "nan", &["-t", "0", "--allow-non-finite"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("read all the same") && ended.stderr.contains("logits are NaN"),
        "{ended:?}"
    );
}
