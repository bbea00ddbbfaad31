//! Tokenizers: loaded, and used on a text that has what texts have.

use std::fs;

use lnfree::Result;
use lnfree::data::Tokenizer;

use super::USUAL;
use crate::parts::parts;
use crate::{Scratch, Target};

pub(super) const TARGETS: &[Target] = &[
    Target { name: "tokenizer_json", read: json, words: WORDS, limits: USUAL },
    Target { name: "tokenizer_files", read: files, words: WORDS, limits: USUAL },
];

const WORDS: &[&str] = &[
    "\"model\":{\"type\":\"BPE\"",
    "\"vocab\":{",
    "\"merges\":[",
    "\"<|endoftext|>\"",
    "\"added_tokens\":[",
    "\"special\":true",
    "\"normalized\":false",
    "\"single_word\":true",
    "\"lstrip\":true",
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\"",
    "\"add_prefix_space\":",
    "\"use_regex\":",
    "\"trim_offsets\":",
    "\"type\":\"Split\"",
    "\"pattern\":{\"Regex\":\"(a+)+b\"}",
    "\"behavior\":\"Isolated\"",
    "\"type\":\"Sequence\"",
    "\"normalizer\":{\"type\":\"NFC\"}",
    "\"type\":\"Replace\"",
    "\"type\":\"Prepend\"",
    "\"content\":\"aa\"",
    "\"post_processor\":",
    "\"TemplateProcessing\"",
    "\"decoder\":",
    "\"unk_token\":",
    "\"dropout\":0.5",
    "\"byte_fallback\":true",
    "\"ignore_merges\":true",
    "\"continuing_subword_prefix\":\"##\"",
    "\"type\":\"Unigram\"",
    "\"type\":\"WordPiece\"",
    "\"type\":\"WordLevel\"",
    "\"truncation\":{",
    "\"padding\":{",
    "\u{120}a",
    "#version: 0.2\n",
    "\"tokenizer_class\":\"GPT2Tokenizer\"",
    "\"add_bos_token\":true",
    "\"errors\":\"replace\"",
    "\"bos_token\":",
];

const TEXT: &str =
    "It's 1 an\u{e9}  \u{65e5}\u{672c}\n\n aaaaaaaaaaaaaaaaaaaaaaaab<|endoftext|> \u{1f600}\u{0}\ttest ";

fn used(scratch: &Scratch) -> Result<()> {
    let tokenizer = Tokenizer::from_dir(scratch.file("tokenizer"))?;
    let ids = tokenizer.encode(TEXT)?;
    assert_eq!(tokenizer.encode_batch(&[TEXT.to_string()])?, std::slice::from_ref(&ids));
    tokenizer.decode(&ids)?;
    let _ = (tokenizer.fingerprint(), tokenizer.vocab_size(), tokenizer.eot_id());
    Ok(())
}

/// tokenizer.json, and tokenizer_config.json.
fn json(scratch: &Scratch, input: &[u8]) -> Result<()> {
    let [json, config] = parts(input);
    write(scratch, &[("tokenizer.json", json), ("tokenizer_config.json", config)])?;
    used(scratch)
}

/// vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.
fn files(scratch: &Scratch, input: &[u8]) -> Result<()> {
    let [vocab, merges, config, special] = parts(input);
    let names = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];
    let mut files: Vec<_> = names.into_iter().zip([vocab, merges, config, special]).collect();
    // The other target leaves one.
    files.push(("tokenizer.json", &[]));
    write(scratch, &files)?;
    used(scratch)
}

/// A folder with these files, of which the empty ones are not there.
fn write(scratch: &Scratch, files: &[(&str, &[u8])]) -> Result<()> {
    for (name, content) in files {
        let name = format!("tokenizer/{name}");
        if content.is_empty() {
            let _ = fs::remove_file(scratch.file(&name));
        } else {
            scratch.write(&name, content);
        }
    }
    Ok(())
}
