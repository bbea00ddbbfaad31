//! Training a byte-level BPE, and writing it in all forms that Hugging Face reads.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokenizers::AddedToken;
use tokenizers::Tokenizer as HfTokenizer;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::assemble::{bare, byte_level};
use super::{CONFIG, END_OF_TEXT, MERGES, SPECIAL_MAP, TOKENIZER, Tokenizer, TokenizerFile, VOCAB, refused};
use crate::{Error, Result};

/// The smallest vocabulary: 256 bytes and end-of-text.
const MIN_VOCAB_SIZE: usize = 257;

/// Trains a byte-level BPE with GPT-2's pre-tokenizer on the texts.
///
/// Ids are laid out as in GPT-2: 256 bytes, then merges in the order they were found, then `<|endoftext|>`.
/// Fewer than `vocab_size` ids result if the texts run out of pairs. The same texts give the same files, byte
/// for byte.
///
/// # Errors
/// If `vocab_size` is below 257, or the texts yield an error.
pub fn train_bpe(texts: impl Iterator<Item = Result<String>> + Send, vocab_size: usize) -> Result<Tokenizer> {
    if vocab_size < MIN_VOCAB_SIZE {
        return Err(Error::invalid(format!(
            "vocab_size: {vocab_size} is too small: 256 bytes and {END_OF_TEXT} take {MIN_VOCAB_SIZE}"
        )));
    }
    let bytes = ByteLevel::alphabet().into_iter().collect();
    let trainer =
        BpeTrainer::builder().vocab_size(vocab_size - 1).initial_alphabet(bytes).show_progress(false).build();
    let mut tokenizer = HfTokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level()));

    let mut failed = None;
    let texts = texts.map_while(|text| text.map_err(|error| failed = Some(error)).ok());
    let trained = tokenizer.train(&mut TrainerWrapper::from(trainer), texts).map(drop).map_err(refused);
    if let Some(error) = failed {
        return Err(error);
    }
    trained?;
    let ModelWrapper::BPE(model) = tokenizer.get_model() else {
        return Err(Error::invalid("the tokenizer trainer did not make a BPE model"));
    };
    Tokenizer::from_files(Path::new("the trained tokenizer"), files_of(model)?)
}

/// What `tokenizer.json` holds of a BPE model.
#[derive(Serialize, Deserialize)]
struct BpeParts {
    vocab: BTreeMap<String, u32>,
    merges: Vec<(String, String)>,
}

/// Appends end-of-text to a trained model and writes it out in all forms that Hugging Face reads.
fn files_of(model: &BPE) -> Result<Vec<TokenizerFile>> {
    let value = serde_json::to_value(model).map_err(refused)?;
    let mut parts: BpeParts = serde_json::from_value(value).map_err(refused)?;
    let eot_id = parts.vocab.len() as u32;
    parts.vocab.insert(END_OF_TEXT.into(), eot_id);
    let mut inner = bare(parts.vocab.clone(), parts.merges.clone()).map_err(refused)?;
    let end_of_text = AddedToken::from(END_OF_TEXT, true).normalized(false);
    inner.add_special_tokens([end_of_text]).map_err(refused)?;

    // Written by hand because maps in memory have no order of ids.
    let mut tokens: Vec<(&String, &u32)> = parts.vocab.iter().collect();
    tokens.sort_unstable_by_key(|(_, id)| **id);
    let mut vocab = String::from("{");
    for (token, id) in tokens {
        let comma = if *id == 0 { "" } else { "," };
        vocab += &format!("{comma}{}:{id}", serde_json::Value::from(token.as_str()));
    }
    vocab += "}";
    let mut merges = String::from("#version: 0.2\n");
    for (left, right) in &parts.merges {
        merges += &format!("{left} {right}\n");
    }
    let special = serde_json::json!({
        "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT,
    });
    let config = serde_json::json!({
        "add_bos_token": false, "add_prefix_space": false, "bos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": false, "eos_token": END_OF_TEXT,
        "tokenizer_class": "GPT2Tokenizer", "unk_token": END_OF_TEXT,
    });
    let file = |name: &str, content: String| TokenizerFile { name: name.into(), bytes: content.into_bytes() };
    Ok(vec![
        file(TOKENIZER, inner.to_string(true).map_err(refused)? + "\n"),
        file(VOCAB, vocab + "\n"),
        file(MERGES, merges),
        file(CONFIG, format!("{config:#}\n")),
        file(SPECIAL_MAP, format!("{special:#}\n")),
    ])
}
