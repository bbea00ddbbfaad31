//! Model folders that are missing, damaged, hostile or of another format: one line that names the file.

use std::path::{Path, PathBuf};

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
        (&tiny, "fakeln_checkpoint", "transformers"),
        (&tiny, "noLN_HF_model", "transformers"),
        (&exported, "folded", "noLN_HF_model"),
    ] {
        let args = ["eval", "-m", model, "-d", "tokens.arrow", "-f", wrong];
        place.fails(&args, &[&format!("pass -f {right}"), wrong]);
    }
    // A model whose LNs are gone for good is not trained on.
    let words = ["exported_noln", "noLN_HF_model", "LN"];
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
    // In the middle of the schedule, and where position 0 keeps a standard deviation of its own for ln_2 and ln_f.
    place.fails(&export("run/checkpoints/step-8", "out"), &["step-8", "real LayerNorm"]);
    place.ok(&strs(&place.train("special", &[])));
    place.fails(&export("special", "out"), &["position 0", "--ignore-special"]);
    assert!(!place.path("out").exists());
}
