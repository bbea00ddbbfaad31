//! Splits, shuffles and sequences equal to those of Hugging Face's `datasets`
//! (`scripts/tests/datasets_vectors.py`)

mod common;

use std::fmt::Write;
use std::path::Path;

use common::json;
use lnfree::data::numpy_rng::NumpyRng;
use lnfree::data::shuffles::{STREAM_BUFFER, shuffle_stream, train_test_split};
use lnfree::data::{ChunkScheme, TokenFile, Tokenizer, data_dir, prepare};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Seed of the paper's split.
const SPLIT_SEED: u64 = 2357;
/// Seed of its shuffles.
const SHUFFLE_SEED: u64 = 42;

fn vectors() -> Value {
    json("datasets.json")
}

fn cases(value: &Value) -> &[Value] {
    let cases = value.as_array().unwrap();
    assert!(cases.len() > 1);
    cases
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 over little-endian int64.
fn digest(numbers: impl Iterator<Item = i64>) -> String {
    let mut hash = Sha256::new();
    numbers.for_each(|n| hash.update(n.to_le_bytes()));
    hex(hash)
}

/// The documents that the script draws.
fn documents(vectors: &Value, n: usize) -> Vec<String> {
    let words: Vec<&str> = vectors["words"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let mut state = 2357u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let texts = (0..n).map(|number| {
        let n_words = if number % 97 == 0 { draw(300) } else { draw(12) };
        let text: Vec<&str> = (0..n_words).map(|_| words[draw(words.len())]).collect();
        text.join(" ")
    });
    texts.collect()
}

fn check_rows(rows: &[u32], expected: &Value) {
    let first: Vec<u32> = serde_json::from_value(expected["first"].clone()).unwrap();
    assert_eq!(rows.len(), number(&expected["count"]));
    assert_eq!(rows[..first.len()], first);
    assert_eq!(expected["sha256"], digest(rows.iter().map(|row| i64::from(*row))));
}

/// Prepares the documents of these rows, and compares the first `limit` sequences.
fn check_sequences(
    texts: &[String],
    rows: &[u32],
    block_size: usize,
    scheme: ChunkScheme,
    limit: usize,
    expected: &Value,
) {
    let folder = tempfile::tempdir().unwrap();
    let (text, tokens) = (folder.path().join("text.jsonl"), folder.path().join("tokens.arrow"));
    write_jsonl(&text, rows.iter().map(|row| texts[*row as usize].as_str()));
    let nano = Tokenizer::from_dir(data_dir().unwrap().join("nano")).unwrap();
    let prepared = prepare(&text, &nano, block_size, &tokens, scheme).unwrap();
    assert_eq!(prepared.documents, rows.len());

    let file = TokenFile::open(&tokens).unwrap();
    assert_eq!(file.block_size(), Some(block_size));
    let n_sequences = file.n_sequences().min(limit);
    assert_eq!(n_sequences, number(&expected["sequences"]));
    let ids: Vec<i64> = (0..n_sequences).flat_map(|i| file.row(i).unwrap()).collect();
    let first: Vec<i64> = serde_json::from_value(expected["first"].clone()).unwrap();
    assert_eq!(ids[..first.len()], first);
    assert_eq!(expected["sha256"], digest(ids.into_iter()));
}

fn write_jsonl<'a>(path: &Path, texts: impl Iterator<Item = &'a str>) {
    let mut lines = String::new();
    for text in texts {
        writeln!(lines, "{}", serde_json::json!({ "text": text })).unwrap();
    }
    std::fs::write(path, lines).unwrap();
}

#[test]
fn documents_are_those_of_the_script() {
    let vectors = vectors();
    let expected = &vectors["documents"];
    let mut hash = Sha256::new();
    hash.update(documents(&vectors, number(&expected["n"])).join("\0"));
    assert_eq!(expected["sha256"], hex(hash));
}

#[test]
fn splits_are_those_of_datasets() {
    for case in cases(&vectors()["splits"]) {
        let split =
            train_test_split(number(&case["n"]) as u32, case["test_size"].as_f64().unwrap(), SPLIT_SEED);
        check_rows(&split.train, &case["train"]);
        check_rows(&split.test, &case["test"]);
    }
}

#[test]
fn a_split_becomes_the_sequences_of_32_processes() {
    let vectors = vectors();
    for case in cases(&vectors["prepared"]) {
        let (n, block_size) = (number(&case["n"]), number(&case["block_size"]));
        let texts = documents(&vectors, n);
        let split = train_test_split(n as u32, case["test_size"].as_f64().unwrap(), SPLIT_SEED);
        for (rows, expected) in [(&split.train, &case["train"]), (&split.test, &case["test"])] {
            check_rows(rows, &expected["rows"]);
            check_sequences(&texts, rows, block_size, ChunkScheme::PEER, usize::MAX, expected);
        }
    }
}

#[test]
fn draws_are_those_of_numpy() {
    let draws = &vectors()["draws"];
    let numbers = |name: &str| serde_json::from_value::<Vec<u64>>(draws[name].clone()).unwrap();
    let mut random = NumpyRng::new(SHUFFLE_SEED);
    let integers: Vec<u64> = numbers("bounds").iter().map(|bound| random.below(*bound)).collect();
    assert_eq!(integers, numbers("integers"));
    let permutation: Vec<u64> = random.permutation(50).into_iter().map(u64::from).collect();
    assert_eq!(permutation, numbers("permutation"));
}

#[test]
fn shuffles_are_those_of_datasets() {
    for case in cases(&vectors()["shuffles"]) {
        let permutation = |n| NumpyRng::new(SHUFFLE_SEED).permutation(n);
        let mut rows = permutation(number(&case["n"]) as u32);
        if let Some(select) = case["select"].as_u64() {
            // Some of the shuffled rows, shuffled once more.
            rows = permutation(select as u32).iter().map(|place| rows[*place as usize]).collect();
        }
        check_rows(&rows, case);
    }
}

#[test]
fn streams_are_shuffled_as_by_datasets() {
    let vectors = vectors();
    let streams = &vectors["streams"];
    let n = number(&streams["n"]);
    let texts = documents(&vectors, n);
    for case in cases(&streams["cases"]) {
        let take = number(&case["take"]);
        let first = (0..n as u32).take(take);
        let rows: Vec<u32> = shuffle_stream(first, SHUFFLE_SEED, STREAM_BUFFER).collect();
        check_rows(&rows, &case["rows"]);
        // No more sequences than documents were asked for.
        check_sequences(&texts, &rows, number(&case["block_size"]), ChunkScheme::default(), take, case);
    }
}
