//! `pretrain`: a model from scratch, what its config says of the beginning, and what is refused.

use lnfree::model::LoadedModel;
use tch::{Device, Kind, Tensor};

use super::Place;

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/nano");

/// The small config with a shape for `pretrain`.
fn scratch() -> String {
    super::config("small".as_ref())
        .replace("n_layer = 3", "n_layer = 2\nn_head = 2\nn_embd = 16\nblock_size = 64\nvocab_size = 4096")
}

fn begin(out: &str) -> [&str; 9] {
    ["pretrain", "--config", "scratch.toml", "--tokenizer", NANO, "--device", "cpu", "--out", out]
}

#[test]
fn a_model_from_scratch() {
    let place = Place::new();
    std::fs::write(place.path("scratch.toml"), scratch()).unwrap();
    place.ok(&begin("calm"));
    // As if killed after step 20: what came later is not there.
    place.ok(&begin("again"));
    std::fs::remove_dir_all(place.path("again/checkpoints/step-24")).unwrap();
    place.ok(&["pretrain", "--device", "cpu", "--resume", "again"]);
    for file in ["model.safetensors", "optimizer.safetensors", "tokenizer.json"] {
        let read = |run: &str| place.read(&format!("{run}/checkpoints/latest/{file}"));
        assert!(read("calm") == read("again"), "{file}");
    }
    let run: serde_json::Value = serde_json::from_str(&place.text("calm/run.json")).unwrap();
    assert_eq!(run["mode"], "pretrain");
    // A run directory stands for its latest checkpoint; the text begins with the prompt and follows from the
    // seed.
    let text = |seed: &str| {
        place.ok(&["generate", "-m", "calm", "-p", "Fellow citizens", "--max-new-tokens", "20", "-s", seed])
    };
    assert!(text("1").starts_with("Fellow citizens"));
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
    place.ok(&["generate", "-m", "calm", "--max-new-tokens", "0"]);
    assert!(
        !place.ok(&["generate", "-m", "calm", "--max-new-tokens", "3", "--dtype", "bfloat16"]).is_empty()
    );
    place.ok(&["generate", "-m", "calm", "--max-new-tokens", "80", "-k", "0", "--temperature", "1e-9"]);
    place.ok(&["eval", "-m", "calm", "-d", "tokens.arrow"]);
    // Without what a model from scratch needs, and with the wrong way to start it.
    let mut args = begin("run").to_vec();
    args[2] = "tiny.toml";
    place.fails(&args, &["model.n_head"]);
    args[2] = "missing.toml";
    place.fails(&args, &["missing.toml"]);
}

fn set<'a>(mut args: Vec<&'a str>, keys: &[&'a str]) -> Vec<&'a str> {
    keys.iter().for_each(|key| args.extend(["--set", key]));
    args
}

#[test]
fn weights_begin_as_the_config_says() {
    let place = Place::new();
    std::fs::write(place.path("scratch.toml"), scratch()).unwrap();
    // Steps this small change nothing that is looked at.
    let still = ["train.learning_rate=1e-12", "train.min_lr=1e-12"];
    let weights = |out: &str, keys: &[&str]| {
        place.ok(&set(set(begin(out).to_vec(), &still), keys));
        let run = place.path(&format!("{out}/checkpoints/latest"));
        LoadedModel::load(&run, None, Kind::Float, Device::Cpu).unwrap().model
    };
    let std = |x: &Tensor| x.std(true).double_value(&[]);
    let near = |x: f64, wanted: f64| assert!((x / wanted - 1.0).abs() < 0.05, "{x} for {wanted}");

    let plain = weights("plain", &[]);
    near(std(&plain.wte), 0.02);
    let ranges = ["model.initializer_range=0.25", "model.embedding_range=0.01"];
    let model = weights("ranges", &ranges);
    near(std(&model.wte), 0.01);
    near(std(&model.wpe), 0.01);
    near(std(&model.h[0].mlp.c_fc.weight), 0.25);
    let model = weights("waves", &["model.sinusoidal_positions=0.5"]);
    near(std(&model.wte), 0.02);
    near(model.wpe.square().mean(Kind::Double).double_value(&[]).sqrt(), 0.5 / 2f64.sqrt());
}

/// Each kind of repetition reaches the training: the weights become others.
#[test]
fn sequences_repeat_as_the_config_says() {
    let place = Place::new();
    std::fs::write(place.path("scratch.toml"), scratch()).unwrap();
    let weights = |out: &str, keys: &[&str]| {
        place.ok(&set(begin(out).to_vec(), keys));
        place.read(&format!("{out}/checkpoints/latest/model.safetensors"))
    };
    let plain = weights("plain", &["data.repeated_passages=0"]);
    for key in ["data.repeated_passages=1", "data.repeated_random=1"] {
        assert!(weights(key, &[key]) != plain, "{key} changes nothing");
    }
}

#[test]
fn beginnings_that_make_no_sense_are_refused() {
    let place = Place::new();
    std::fs::write(place.path("scratch.toml"), scratch()).unwrap();
    for (key, words) in [
        ("model.initializer_range=0", ["model.initializer_range", "above 0"]),
        ("model.embedding_range=-0.1", ["model.embedding_range", "above 0"]),
        ("model.sinusoidal_positions=11", ["model.sinusoidal_positions", "at most at 10"]),
        ("data.repeated_passages=-0.1", ["data.repeated_passages", "between 0 and 1"]),
        ("data.repeated_random=1.5", ["data.repeated_random", "between 0 and 1"]),
        ("data.repeated_random=nan", ["data.repeated_random", "between 0 and 1"]),
    ] {
        place.fails(&set(begin("run").to_vec(), &[key]), &words);
    }
    let both = ["data.repeated_passages=0.6", "data.repeated_random=0.6"];
    place.fails(&set(begin("run").to_vec(), &both), &["data.repeated_random", "more than the whole data"]);
    assert!(!place.path("run").exists());
}
