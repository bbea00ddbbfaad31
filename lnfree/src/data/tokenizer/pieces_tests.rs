//! Pieces against the whole, on texts that are hard to cut.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::{CONFIG, MERGES, TokenizerFile, VOCAB};
use super::*;
use crate::data::data_dir;

/// nano's vocabulary with these settings.
fn with(config: serde_json::Value) -> Tokenizer {
    let read = |name: &str| std::fs::read(data_dir().unwrap().join("nano").join(name)).unwrap();
    let config = TokenizerFile { name: CONFIG.into(), bytes: config.to_string().into_bytes() };
    let file = |name: &str| TokenizerFile { name: name.into(), bytes: read(name) };
    let origin = std::path::Path::new("nano");
    Tokenizer::from_files(origin, vec![file(VOCAB), file(MERGES), config]).unwrap()
}

/// The ids of a text cut every `size` bytes or so; it comes in parts of `part` bytes. Also the count of
/// pieces.
fn cut(tokenizer: &Tokenizer, text: &str, size: usize, part: usize) -> (Vec<u32>, usize) {
    let mut pieces = Pieces { size, ..Pieces::new(tokenizer) };
    let (mut ids, mut rest, mut n) = (Vec::new(), text, 0);
    loop {
        let mut end = part.min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        pieces.push(rest[..end].to_string());
        rest = &rest[end..];
        while let Some(piece) = pieces.next(rest.is_empty()).unwrap() {
            ids.extend(tokenizer.encode_piece(&piece).unwrap());
            n += 1;
        }
        if rest.is_empty() {
            return (ids, n);
        }
    }
}

/// Pseudo-random texts out of these, `count` of them.
fn texts(words: &[&str], count: usize) -> Vec<String> {
    let mut state = 11u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    (0..count)
        .map(|_| {
            let n = 20 + draw(200);
            (0..n).map(|_| words[draw(words.len())].repeat(1 + draw(3) * draw(3))).collect()
        })
        .collect()
}

const HARD: [&str; 40] = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\u{a0}",
    "\u{85}",
    "\u{2003}",
    "\u{3000}",
    "\u{200b}",
    "\u{feff}",
    "'",
    "'s",
    "'ll",
    "'re",
    "''",
    "\u{2019}s",
    "don't",
    "a",
    "The",
    "é",
    "e\u{301}",
    "日本",
    "。",
    "1",
    "12",
    "²",
    "Ⅷ",
    "ⅷ",
    "ⓐ",
    "\u{1f642}",
    "\u{1f468}\u{200d}\u{1f469}",
    "!",
    "--",
    "...",
    "_",
    "\u{0}",
    "\u{fffd}",
    "\u{300}",
    "ﬁ",
];
const TOKENS: [&str; 10] = [
    "<|endoftext|>",
    "<|user|>",
    "<|us",
    "<pad>",
    "< a b >",
    "er|>",
    "<|endof",
    "text|>",
    "<|user|><|user|>",
    "<",
];

/// With no cut inside runs of one class, these need short runs to be cut at all.
fn check(tokenizer: &Tokenizer, words: &[&str]) {
    let mut pieces = 0;
    for text in texts(words, 30) {
        let whole = tokenizer.encode_piece(&text).unwrap();
        for (size, part) in [(1, 1), (3, 7), (16, 5), (40, 1000), (100, 33)] {
            let (ids, n) = cut(tokenizer, &text, size, part);
            assert_eq!(ids, whole, "{size} {part} {text:?}");
            pieces += n;
        }
    }
    assert!(pieces > 300, "{pieces}");
}

#[test]
fn pieces_have_the_ids_of_the_whole() {
    check(&with(json!({})), &HARD);
    check(&with(json!({})), &["a", "b'", "1", "-", "日", "。", "'s", "é", "²"]);
}

#[test]
fn pieces_never_cut_added_tokens() {
    let words: Vec<&str> = HARD.iter().chain(&TOKENS).chain(&TOKENS).copied().collect();
    let token = |content: &str, flags: &[&str]| {
        let mut token = BTreeMap::from([("content", json!(content))]);
        token.extend(flags.iter().map(|flag| (*flag, json!(true))));
        json!(token)
    };
    for flags in [
        &[][..],
        &["lstrip"],
        &["rstrip"],
        &["single_word"],
        &["special"],
        &["lstrip", "rstrip", "normalized"],
    ] {
        let decoder = json!({"4096": token("<|user|>", flags), "4097": token("<pad>", flags),
            "4098": token("< a b >", flags),
            "4099": token("<|us", flags), "4100": token("<|user|><|user|>", flags)});
        check(&with(json!({"added_tokens_decoder": decoder})), &words);
        check(&with(json!({"added_tokens_decoder": decoder, "add_prefix_space": true})), &words);
    }
}

#[test]
fn long_texts_are_cut_and_come_back_whole() {
    let tokenizer = with(json!({"add_bos_token": true}));
    let texts: Vec<String> =
        texts(&HARD, 3).iter().map(|text| text.repeat(1 + (3 * WHOLE) / text.len())).collect();
    let wholes: Vec<Vec<u32>> =
        texts.iter().map(|text| [vec![4095], tokenizer.encode_piece(text).unwrap()].concat()).collect();
    assert!(texts.iter().all(|text| text.len() > WHOLE));
    assert_eq!(tokenizer.encode_batch(&texts).unwrap(), wholes);
    assert_eq!(tokenizer.encode(&texts[0]).unwrap(), wholes[0]);
}

#[test]
fn a_text_without_a_place_to_cut_is_refused_beyond_a_limit() {
    let tokenizer = with(json!({}));
    let long = "x".repeat(LIMIT + (1 << 17));
    let found = tokenizer.encode(&long).unwrap_err().to_string();
    assert!(found.contains("8 MiB in which GPT-2's pre-tokenizer may not cut"), "{found}");
    // The same length with one place in each mebibyte is fine.
    let mut pieces = Pieces::new(&tokenizer);
    pieces.push(format!("{} ", "x".repeat(1 << 20)).repeat(9));
    let mut n = 0;
    while pieces.next(true).unwrap().is_some() {
        n += 1;
    }
    assert!(n > 4, "{n}");
    let unknown = Tokenizer { cutter: None, ..tokenizer };
    assert!(unknown.encode(&long).unwrap_err().to_string().contains("split it into documents"));
    assert_eq!(unknown.encode("The x").unwrap(), with(json!({})).encode("The x").unwrap());
}
