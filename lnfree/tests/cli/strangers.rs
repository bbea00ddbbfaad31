//! What somebody meets who types what seems right: the way on is in the message.

use lnfree::data::{Layout, write_tokens};

use crate::Place;

#[test]
fn text_without_a_tokenizer_in_reach() {
    let place = Place::new();
    std::fs::write(place.path("text.txt"), "some text").unwrap();
    for arguments in [
        &["data", "prepare", "text.txt", "--out", "tokens2.arrow"][..],
        &["data", "prepare", "text.txt"],
        &["data", "info", "text.txt"],
    ] {
        place.fails(arguments, &["gpt2", "--tokenizer"]);
    }
    // Another one was named: the hint would be none.
    let ended = place.fails(&["data", "prepare", "text.txt", "--tokenizer", "some/where"], &["some/where"]);
    assert!(!ended.stderr.contains("--tokenizer"), "{ended:?}");
}

#[test]
fn tokens_of_an_unknown_vocabulary_are_counted() {
    let place = Place::new();
    let rows =
        (0..40).map(|row| Ok((0..64).map(|at| if at == 63 { 50256 } else { 64 * row + at }).collect()));
    write_tokens(place.path("gpt2.arrow"), rows, Layout::Fixed(64), 50257).unwrap();
    let said = place.ok(&["data", "info", "gpt2.arrow"]);
    assert!(said.contains("sequences    40, 64 tokens each") && said.contains("tokens       2560"), "{said}");
    assert!(!said.contains("begins with"), "{said}");
    assert!(place.ok(&["data", "info", "tokens.arrow"]).contains("begins with"));
}

#[test]
fn runs_without_a_checkpoint() {
    let place = Place::new();
    place.fails(&["train", "--resume", "latest"], &["runs", "no run to resume"]);
    std::fs::create_dir_all(place.path("run/checkpoints")).unwrap();
    for model in ["run", "run/checkpoints"] {
        place.fails(&["eval", "-m", model, "-d", "tokens.arrow"], &["run", "has no checkpoint yet"]);
    }
    place.fails(&["train", "--resume", "run"], &["run", "has no checkpoint yet"]);
    place.fails(
        &["export", "nowhere", "--format", "folded", "--out", "x"],
        &["nowhere", "no such file or folder"],
    );
    std::fs::create_dir_all(place.path("empty")).unwrap();
    place.fails(&["eval", "-m", "empty", "-d", "tokens.arrow"], &["config.json", "no model's folder"]);
    // With one, its folder means it.
    place.ok(&["train", "--mode", "without_ln", "--config", "tiny.toml", "--device", "cpu", "--out", "run"]);
    place.ok(&["eval", "-m", "run/checkpoints", "-d", "tokens.arrow", "--device", "cpu"]);
}
