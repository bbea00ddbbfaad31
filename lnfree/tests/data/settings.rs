//! Files beside a vocabulary that change ids: those of transformers, or refused by name.

use std::path::Path;

use lnfree::data::Tokenizer;
use lnfree::data::tokenizer::TOKENIZER_FILES;
use serde_json::{Value, json};

use super::{data, message, nano, vector};

/// A folder with nano's vocabulary and what a case puts beside it.
fn folder_of(case: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let nano = |name: &str| std::fs::read(data("nano").join(name)).unwrap();
    write("vocab.json", &nano("vocab.json"));
    let merges = nano("merges.txt");
    match case["merges"].as_str() {
        Some("crlf") => {
            write("merges.txt", String::from_utf8(merges).unwrap().replace('\n', "\r\n").as_bytes())
        }
        Some("bom") => write("merges.txt", &[b"\xEF\xBB\xBF", merges.as_slice()].concat()),
        _ => write("merges.txt", &merges),
    }
    if case["whole"] == true {
        let mut whole: Value = serde_json::from_slice(&nano("tokenizer.json")).unwrap();
        for (key, value) in case["tokenizer"].as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        write("tokenizer.json", whole.to_string().as_bytes());
    }
    if !case["config"].is_null() {
        write("tokenizer_config.json", case["config"].to_string().as_bytes());
    }
    for (name, value) in case["files"].as_object().into_iter().flatten() {
        write(&format!("{name}.json"), value.to_string().as_bytes());
    }
    dir
}

/// `scripts/tests/tokenizer_settings.py` made the ids, and says with what.
#[test]
fn settings_give_the_ids_of_transformers_or_are_refused() {
    let vectors = vector("tokenizer_settings.json");
    let texts: Vec<String> = serde_json::from_value(vectors["texts"].clone()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() > 80);
    for case in cases {
        let dir = folder_of(case);
        let loaded = Tokenizer::from_dir(dir.path());
        if let Some(words) = case["refused"].as_str() {
            let found = message(loaded);
            assert!(found.contains(words) && found.contains(".json: "), "{}: {found}", case["name"]);
            continue;
        }
        let loaded = loaded.unwrap_or_else(|e| panic!("{}: {e}", case["name"]));
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["ids"].clone()).unwrap();
        for (text, ids) in texts.iter().zip(&expected) {
            assert_eq!(loaded.encode(text).unwrap(), *ids, "{}: {text:?}", case["name"]);
        }
        assert_eq!(loaded.encode_batch(&texts).unwrap(), expected, "{}", case["name"]);
        // Saved and loaded, it is the same: all files travel.
        loaded.save(dir.path().join("saved")).unwrap();
        let again = Tokenizer::from_dir(dir.path().join("saved")).unwrap();
        assert_eq!(again.encode_batch(&texts).unwrap(), expected, "{}", case["name"]);
        assert_eq!(again.fingerprint(), loaded.fingerprint());
    }
}

#[test]
fn fingerprints_differ_where_ids_do() {
    let plain = json!({"whole": true, "config": null, "files": {}});
    let of = |case: &Value| Tokenizer::from_dir(folder_of(case).path()).unwrap().fingerprint();
    let space = json!({"whole": true, "config": {"add_prefix_space": true}});
    let added = json!({"whole": true, "config": null, "files": {"added_tokens": {"<x>": 4096}}});
    let nothing = json!({"whole": true, "config": {"model_max_length": 5}});
    assert_eq!(of(&plain), of(&nothing));
    assert!(of(&plain) != of(&space) && of(&plain) != of(&added) && of(&space) != of(&added));
    let (parts, parts_added) = (
        json!({"config": null, "files": {}}),
        json!({"config": null, "files": {"added_tokens": {"<x>": 4096}}}),
    );
    assert_ne!(of(&parts), of(&parts_added));
}

#[test]
fn checkpoints_and_exports_carry_every_file_of_a_tokenizer() {
    let case = json!({"whole": true, "config": {}, "files": {"added_tokens": {}, "special_tokens_map": {}}});
    let (from, to) = (folder_of(&case), tempfile::tempdir().unwrap());
    lnfree::data::tokenizer::copy_tokenizer(from.path(), to.path()).unwrap();
    for name in TOKENIZER_FILES {
        assert!(to.path().join(name).is_file(), "{name}");
    }
}

#[test]
fn merges_are_read_with_and_without_their_first_line() {
    let dir = folder_of(&json!({"config": null, "files": {}}));
    let merges = std::fs::read_to_string(dir.path().join("merges.txt")).unwrap();
    let (first, rest) = merges.split_once('\n').unwrap();
    assert!(first.starts_with("#version"));
    std::fs::write(dir.path().join("merges.txt"), rest).unwrap();
    let text = "Fellow citizens of the Senate";
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().encode(text).unwrap(), nano().encode(text).unwrap());
    std::fs::write(dir.path().join("merges.txt"), format!("{first}\na b c\n")).unwrap();
    assert!(message(Tokenizer::from_dir(dir.path())).contains("merges.txt: line 2: expected two tokens"));
}

#[test]
fn bytes_that_a_vocabulary_lacks_do_not_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
    write("vocab.json", "{\"a\": 0, \"b\": 1, \"<|endoftext|>\": 2}");
    write("merges.txt", "#version: 0.2\n");
    let small = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(small.encode("abba").unwrap(), [0, 1, 1, 0]);
    assert!(message(small.encode("ab!")).contains("no token for byte 0x21"));
    assert!(message(small.encode_batch(&["ab".into(), "é".into()])).contains("no token for byte 0xc3"));
}

#[test]
fn a_vocabulary_with_gaps_takes_no_added_token_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
    write("vocab.json", "{\"a\": 0, \"<|endoftext|>\": 1, \"b\": 3}");
    write("merges.txt", "#version: 0.2\n");
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().encode("b").unwrap(), [3]);
    write("added_tokens.json", "{\"<x>\": 3}");
    assert!(message(Tokenizer::from_dir(dir.path())).contains("not contiguous"));
}

#[test]
fn a_tokenizer_json_by_its_path_is_taken_as_it_is() {
    let case = json!({"whole": true, "config": {"add_prefix_space": true}});
    let dir = folder_of(&case);
    let alone = Tokenizer::from_file(Path::new(dir.path()).join("tokenizer.json")).unwrap();
    assert_eq!(alone.encode("The").unwrap(), nano().encode("The").unwrap());
    assert_ne!(Tokenizer::from_dir(dir.path()).unwrap().encode("The").unwrap(), alone.encode("The").unwrap());
}
