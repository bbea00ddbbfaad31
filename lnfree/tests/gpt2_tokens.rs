//! GPT-2's own tokenizer: on hard texts the ids that three other encoders give
//! (`scripts/tests/gpt2_tokens.py`)
//!
//! `scripts/tests/gpt2_tokenizer.sh` gets the vocabulary; `LNFREE_GPT2_TOKENIZER` may name another folder
//! with it.

mod common;

use std::path::PathBuf;

use common::json;
use lnfree::data::text::documents;
use lnfree::data::{Tokenizer, data_dir};
use serde_json::Value;
use sha2::{Digest, Sha256};

const EOT: u32 = 50256;

fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("LNFREE_GPT2_TOKENIZER").or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(cache.join("lnfree/gpt2-tokenizer")).filter(|folder| folder.is_dir())
    })
}

/// GPT-2's tokenizer, or none where it has not been fetched; continuous integration has to have it.
fn gpt2() -> Option<Tokenizer> {
    let Some(folder) = folder() else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "GPT-2's tokenizer is missing: run scripts/tests/gpt2_tokenizer.sh"
        );
        println!("skipped: GPT-2's tokenizer is missing; scripts/tests/gpt2_tokenizer.sh gets it");
        return None;
    };
    Some(Tokenizer::from_dir(folder).unwrap())
}

/// The ids of all texts have the count and the hash that the vectors tell, and decode to the texts.
fn check(gpt2: &Tokenizer, texts: &[String], expected: &Value) {
    assert_eq!(expected["texts"], texts.len());
    let (mut hash, mut tokens) = (Sha256::new(), 0);
    for (text, ids) in texts.iter().zip(gpt2.encode_batch(texts).unwrap()) {
        hash.update((ids.len() as u32).to_le_bytes());
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        tokens += ids.len();
        assert_eq!(gpt2.decode(&ids).unwrap(), *text);
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&expected["tokens"], &expected["sha256"]), (&tokens.into(), &hash.into()));
}

#[test]
fn hard_texts_get_the_ids_of_gpt2() {
    let Some(gpt2) = gpt2() else { return };
    assert_eq!((gpt2.vocab_size(), gpt2.eot_id()), (50257, EOT));
    let cases = json("gpt2_tokens.json")["cases"].as_array().unwrap().clone();
    assert!(cases.len() > 90);
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(gpt2.encode(text).unwrap(), ids, "{}: {text:?}", case["about"]);
        assert_eq!(gpt2.decode(&ids).unwrap(), text, "{}", case["about"]);
        let ends = ids.iter().filter(|id| **id == EOT).count();
        assert_eq!(ends, text.matches("<|endoftext|>").count(), "{text:?}");
    }
}

#[test]
fn every_character_gets_the_ids_of_gpt2() {
    let Some(gpt2) = gpt2() else { return };
    let expected = &json("gpt2_tokens.json")["characters"];
    let ranges: Vec<(u32, u32)> = serde_json::from_value(expected["ranges"].clone()).unwrap();
    let characters =
        ranges.iter().flat_map(|(first, last)| *first..=*last).map(|c| char::from_u32(c).unwrap());
    // In a word, as a word, and beside a number.
    let texts: Vec<String> = characters.map(|c| format!("a{c} {c}1{c}{c}")).collect();
    check(&gpt2, &texts, expected);
}

#[test]
fn random_texts_get_the_ids_of_gpt2() {
    let Some(gpt2) = gpt2() else { return };
    let expected = &json("gpt2_tokens.json")["random"];
    let alphabet: Vec<char> = expected["alphabet"].as_str().unwrap().chars().collect();
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        alphabet[(state >> 33) as usize % alphabet.len()]
    };
    let n_texts = expected["texts"].as_u64().unwrap();
    let texts: Vec<String> = (0..n_texts).map(|number| (0..number % 100).map(|_| draw()).collect()).collect();
    check(&gpt2, &texts, expected);
}

#[test]
fn documents_get_the_ids_of_gpt2() {
    let Some(gpt2) = gpt2() else { return };
    for (name, expected) in json("gpt2_tokens.json")["documents"].as_object().unwrap() {
        let path = data_dir().unwrap().join(name).with_extension("parquet");
        let texts: Vec<String> = documents(&path).unwrap().collect::<Result<_, _>>().unwrap();
        check(&gpt2, &texts, expected);
    }
}
