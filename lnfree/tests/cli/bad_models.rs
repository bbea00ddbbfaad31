//! Model folders that are missing, damaged, hostile or of another format: one line that names the file.

use std::path::{Path, PathBuf};

use lnfree::model::names::hf_names;
use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::tch::Kind;

use super::{Place, common, strs};

#[allow(dead_code)]
#[path = "../weights/files.rs"]
mod files;

/// A copy of the tiny model to be spoilt.
fn model(place: &Place, name: &str) -> PathBuf {
    let to = place.path(name);
    std::fs::create_dir_all(&to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(common::vector("tiny-a").join(file), to.join(file)).unwrap();
    }
    to
}

/// Both training and evaluation refuse the model, naming `words`.
#[track_caller]
fn refused(place: &Place, model: &str, words: &[&str]) {
    place.fails(&["eval", "-m", model, "-d", "tokens.arrow"], words);
    place.fails(&strs(&place.train("run", &["--model", model])), words);
    assert!(!place.path("run/checkpoints").exists());
}

fn change_config(dir: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let file = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&file, config.to_string()).unwrap();
}

#[test]
fn folders_without_a_model() {
    let place = Place::new();
    refused(&place, "no-such-model", &["no-such-model"]);
    std::fs::create_dir(place.path("nothing")).unwrap();
    refused(&place, "nothing", &["nothing", "config.json"]);
    std::fs::remove_file(model(&place, "no-weights").join("model.safetensors")).unwrap();
    refused(&place, "no-weights", &["no-weights"]);
    refused(&place, "tokens.arrow", &["tokens.arrow"]);
}

#[test]
fn damaged_weights() {
    let place = Place::new();
    let dir = model(&place, "cut");
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(dir.join("model.safetensors"), &bytes[..length]).unwrap();
        refused(&place, "cut", &["cut/model.safetensors"]);
    }
    std::fs::write(dir.join("model.safetensors"), &bytes).unwrap();
    std::fs::write(dir.join("config.json"), "{\"n_layer\": 3,").unwrap();
    refused(&place, "cut", &["cut/config.json"]);
}

#[test]
fn shapes_that_contradict_the_config() {
    let place = Place::new();
    for (key, value) in
        [("n_embd", 128), ("vocab_size", 300), ("n_positions", 128), ("n_layer", 4), ("n_head", 5)]
    {
        let dir = model(&place, key);
        change_config(&dir, |config| {
            config[key] = value.into();
            if key == "n_positions" {
                config["n_ctx"] = value.into();
            }
        });
        place.fails(&["eval", "-m", key, "-d", "tokens.arrow"], &[key]);
    }
}

#[test]
fn a_pickle_that_wants_to_run_something() {
    let place = Place::new();
    let dir = model(&place, "evil");
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    let command = files::text(&format!("touch {}", place.path("pwned").display()));
    let pickle = files::plain(&[b"cos\nsystem\n".as_slice(), &command, b"\x85R"].concat());
    for bytes in [files::torch_zip(&pickle, &[]), files::torch_legacy(&pickle), pickle.clone()] {
        std::fs::write(dir.join("pytorch_model.bin"), bytes).unwrap();
        refused(&place, "evil", &["evil/pytorch_model.bin"]);
        assert!(!place.path("pwned").exists());
    }
}

#[test]
fn formats_that_the_model_is_not_of() {
    let place = Place::new();
    let tiny = common::vector("tiny-a").display().to_string();
    let exported = common::vector("exported_noln").display().to_string();
    for (model, wrong, right) in [
        (&tiny, "folded", "transformers"),
        (&tiny, "checkpoint", "transformers"),
        (&tiny, "scaled", "transformers"),
        (&tiny, "identity", "transformers"),
        (&exported, "folded", "scaled"),
    ] {
        let args = ["eval", "-m", model, "-d", "tokens.arrow", "-f", wrong];
        place.fails(&args, &[&format!("pass -f {right}"), wrong]);
    }
    // A model whose LNs are gone for good is not trained on.
    let words = ["exported_noln", "scaled", "LN"];
    place.fails(&strs(&place.train("run", &["--model", &exported])), &words);
}

#[test]
fn exports_that_cannot_be_made() {
    let place = Place::new();
    let tiny = common::vector("tiny-a").display().to_string();
    let export = |from, out| ["export", from, "--format", "folded", "--out", out];
    place.fails(&export(&tiny, "out"), &["tiny-a", "real LayerNorm", "last removal"]);
    place.fails(&export("nowhere", "out"), &["nowhere"]);
    assert!(!place.path("out").exists());
    let plain = ["--set", "norm.special_std=false", "--set", "train.keep_checkpoints=0"];
    place.ok(&strs(&place.train("run", &plain)));
    std::fs::create_dir(place.path("mine")).unwrap();
    std::fs::write(place.path("mine/thesis.txt"), "years of work").unwrap();
    place.fails(&export("run", "mine"), &["mine", "holds no exported model"]);
    place.fails(&export("run", "tokens.arrow"), &["tokens.arrow"]);
    place.fails(&export("run", "no/folder/out"), &["no/folder"]);
    assert_eq!(place.text("mine/thesis.txt"), "years of work");
    // In the middle of the schedule, and where position 0 keeps a standard deviation of its own for ln_2 and
    // ln_f.
    place.fails(&export("run/checkpoints/step-8", "out"), &["step-8", "real LayerNorm"]);
    place.ok(&strs(&place.train("special", &[])));
    place.fails(&export("special", "out"), &["position 0", "--ignore-special"]);
    assert!(!place.path("out").exists());
}

/// A copy of the tiny model whose weights were changed.
fn changed(place: &Place, name: &str, change: impl FnOnce(&mut Weights)) -> PathBuf {
    let dir = model(place, name);
    let file = dir.join("model.safetensors");
    let mut weights = read_weights(&file).unwrap();
    change(&mut weights);
    write_safetensors(&file, &hf_names(weights), &Default::default()).unwrap();
    dir
}

#[test]
fn weights_that_are_not_finite() {
    let place = Place::new();
    for (name, weight, value) in
        [("nan", "wte.weight", f64::NAN), ("inf", "h.1.attn.c_attn.weight", f64::INFINITY)]
    {
        changed(&place, name, |weights| drop(weights[weight].view(-1).narrow(0, 70, 1).fill_(value)));
        refused(&place, name, &[name, &format!("`{weight}`: 1 of "), "--allow-non-finite"]);
        place.fails(&["std", "-m", name, "-d", "tokens.arrow"], &[weight]);
        for command in ["eval", "std"] {
            let ended =
                place.lnfree(&[command, "-m", name, "-d", "tokens.arrow", "--allow-non-finite", "-n", "2"]);
            let warning = format!("`{weight}`: 1 of ");
            assert!(
                ended.stderr.contains(&warning) && ended.stderr.contains("read all the same"),
                "{ended:?}"
            );
        }
    }
}

#[test]
fn moments_that_are_not_finite() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &[])));
    let checkpoint = place.path("run/checkpoints/step-24");
    let file = checkpoint.join("optimizer.safetensors");
    let moments = read_weights(&file).unwrap();
    let (name, moment) = moments.iter().find(|(_, moment)| moment.is_floating_point()).unwrap();
    let _ = moment.view(-1).narrow(0, 0, 1).fill_(f64::NAN);
    write_safetensors(&file, &moments, &Default::default()).unwrap();
    lnfree::atomic::write_checksums(&checkpoint).unwrap();
    place.fails(
        &["train", "--device", "cpu", "--resume", "run"],
        &["optimizer.safetensors", &format!("`{name}`: 1 of ")],
    );
}

#[test]
fn special_tokens_outside_the_vocabulary_are_told_and_unused() {
    let place = Place::new();
    let dir = model(&place, "m");
    let eval = ["eval", "-m", "m", "-d", "tokens.arrow", "-n", "2"];
    let mean = |text: &str| text.lines().find(|line| line.contains("mean")).map(str::to_string);
    let plain = place.ok(&eval);
    change_config(&dir, |config| {
        config["bos_token_id"] = 50256.into();
        config["eos_token_id"] = 50256.into();
    });
    let ended = place.lnfree(&eval);
    assert_eq!((ended.code, mean(&ended.stdout)), (Some(0), mean(&plain)), "{ended:?}");
    for key in ["bos_token_id", "eos_token_id"] {
        let warning = format!("m/config.json: {key} = 50256 lies outside the vocabulary of 256 tokens");
        assert_eq!(ended.stderr.matches(&warning).count(), 1, "{ended:?}");
    }
}

#[test]
fn tensors_that_are_not_read_are_told() {
    let place = Place::new();
    let dir = changed(&place, "m", |weights| {
        let head = &weights["wte.weight"] * 2.0;
        weights.insert("lm_head.weight".into(), head);
    });
    change_config(&dir, |config| config["n_layer"] = 2.into());
    let ended = place.lnfree(&["eval", "-m", "m", "-d", "tokens.arrow", "-n", "2"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("m: 12 tensors are not read, the first is `h.2.attn.c_attn.bias`"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("m: `lm_head.weight` differs from `wte.weight` and is not read"),
        "{ended:?}"
    );
}

/// transformers converts to what `dtype` names: an export of a float16 model would be infinities.
#[test]
fn exports_and_checkpoints_say_what_they_store() {
    let place = Place::new();
    let dir = changed(&place, "half", |weights| {
        weights.values_mut().for_each(|tensor| *tensor = tensor.to_kind(Kind::Half));
    });
    change_config(&dir, |config| {
        config["torch_dtype"] = "float16".into();
        config["_name_or_path"] = "someone/else".into();
        config["auto_map"] = serde_json::json!({"AutoModel": "code.Model"});
        config["eos_token_id"] = serde_json::json!([255, 3]);
    });
    let generation = "{\"eos_token_id\": [255, 3, 256], \"temperature\": 0.5}";
    std::fs::write(dir.join("generation_config.json"), generation).unwrap();
    let plain = ["--model", "half", "--set", "norm.special_std=false"];
    place.ok(&strs(&place.train("run", &plain)));
    place.ok(&strs(&place.train("run16", &[&plain[..], &["--set", "train.param_dtype=bfloat16"]].concat())));
    let json = |file: &str| -> serde_json::Value { serde_json::from_slice(&place.read(file)).unwrap() };
    for (folder, dtype) in [("run", "float32"), ("run16", "bfloat16")] {
        let config = json(&format!("{folder}/checkpoints/latest/config.json"));
        assert_eq!((&config["dtype"], &config["torch_dtype"]), (&dtype.into(), &dtype.into()), "{folder}");
    }
    for format in ["scaled", "folded"] {
        place.ok(&["export", "run16", "--format", format, "--out", format]);
        let config = json(&format!("{format}/config.json"));
        assert_eq!((&config["dtype"], &config["torch_dtype"]), (&"float32".into(), &"float32".into()));
        assert!(config.get("auto_map").is_none() && config.get("_name_or_path").is_none(), "{config}");
        assert_eq!(config["tie_word_embeddings"], format == "scaled");
        let stored = read_weights(&place.path(format)).unwrap();
        assert!(stored.values().all(|tensor| tensor.kind() == Kind::Float));
        let generation = json(&format!("{format}/generation_config.json"));
        assert_eq!(generation, serde_json::json!({"eos_token_id": [255, 3], "temperature": 0.5}));
    }
    std::fs::remove_file(place.path("run/checkpoints/latest/generation_config.json")).unwrap();
    place.ok(&["export", "run", "--format", "folded", "--out", "without"]);
    assert_eq!(json("without/generation_config.json")["eos_token_id"], serde_json::json!([255, 3]));
}
