//! GPT-2 style byte-level BPE tokenizers: loading, training, saving.
//!
//! Files are those of Hugging Face GPT-2 tokenizers, so that `AutoTokenizer.from_pretrained` loads a saved folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, BpeTrainer, Vocab};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use super::{first_line, guarded};
use crate::{Error, Result};

/// The token that ends every document, and that GPT-2 also uses as its begin-of-text token.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The smallest vocabulary: 256 bytes and end-of-text.
const MIN_VOCAB_SIZE: usize = 257;
const TOKENIZER: &str = "tokenizer.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// Files that travel with a tokenizer and say nothing about how text becomes ids.
const SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// One file of a tokenizer, kept in memory so that it can be written beside an exported model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerFile {
    /// File name without a folder.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// Text to ids and back; decoding an encoded text gives that text again.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: HfTokenizer,
    eot_id: u32,
    files: Vec<TokenizerFile>,
}

impl Tokenizer {
    /// Loads a folder with `tokenizer.json`, or with `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// If neither is there, a file is malformed, or there is no `<|endoftext|>` token.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut files = Vec::new();
        for name in [TOKENIZER, VOCAB, MERGES].into_iter().chain(SETTINGS) {
            let path = dir.join(name);
            if path.is_file() {
                files.push(TokenizerFile { name: name.into(), bytes: read(&path)? });
            }
        }
        Self::from_files(dir, files)
    }

    /// Loads a `tokenizer.json`, or the folder if `path` is one.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::from_dir(path);
        }
        Self::from_files(path, vec![TokenizerFile { name: TOKENIZER.into(), bytes: read(path)? }])
    }

    /// `origin` is the file or folder that messages name.
    fn from_files(origin: &Path, files: Vec<TokenizerFile>) -> Result<Self> {
        let bytes_of = |name: &str| files.iter().find(|f| f.name == name).map(|f| f.bytes.as_slice());
        let mut inner = guarded(origin, || match (bytes_of(TOKENIZER), bytes_of(VOCAB), bytes_of(MERGES)) {
            (Some(json), ..) => HfTokenizer::from_bytes(crate::json::without_bom(json))
                .map_err(|e| Error::file(origin, format!("not a tokenizer.json: {}", first_line(e)))),
            (None, Some(vocab), Some(merges)) => from_vocab_and_merges(origin, vocab, merges),
            _ => Err(Error::file(origin, format!("no {TOKENIZER}, and not both {VOCAB} and {MERGES}"))),
        })?;
        // Some published tokenizers carry these settings; both would change what `encode` returns.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::file(origin, e))?;
        let eot_id = inner
            .token_to_id(END_OF_TEXT)
            .ok_or_else(|| Error::file(origin, format!("the tokenizer has no {END_OF_TEXT} token")))?;
        Ok(Self { inner, eot_id, files })
    }

    /// The ids of a text. No token is added; `<|endoftext|>` in the text becomes that token, as in the peer's data.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(refused)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// [`Tokenizer::encode`] of each text, on all cores.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch(&self, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        let texts = texts.iter().map(String::as_str).collect();
        let encodings = self.inner.encode_batch_fast(texts, false).map_err(refused)?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The text of some ids, special tokens included; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// If an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            let size = self.vocab_size();
            return Err(Error::invalid(format!("token id {id} is not in the vocabulary of {size} tokens")));
        }
        self.inner.decode(ids, false).map_err(refused)
    }

    /// The id of `<|endoftext|>`.
    pub fn eot_id(&self) -> u32 {
        self.eot_id
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether there is a token of this id.
    pub fn has_id(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }

    /// The files that this tokenizer was loaded from, or those that training made: for exports.
    pub fn files(&self) -> &[TokenizerFile] {
        &self.files
    }

    /// SHA-256 in hex over the files that decide how text becomes ids.
    pub fn fingerprint(&self) -> String {
        let whole = self.files.iter().any(|f| f.name == TOKENIZER);
        let mut hash = Sha256::new();
        for file in &self.files {
            let decides = if whole { file.name == TOKENIZER } else { [VOCAB, MERGES].contains(&&*file.name) };
            if decides {
                hash.update((file.bytes.len() as u64).to_le_bytes());
                hash.update(&file.bytes);
            }
        }
        super::hex(&hash.finalize())
    }

    /// Writes [`Tokenizer::files`] into a folder, which is made if it is missing.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        for file in &self.files {
            crate::atomic::write_bytes(&dir.join(&file.name), &file.bytes)?;
        }
        Ok(())
    }
}

/// Trains a byte-level BPE with GPT-2's pre-tokenizer on the texts.
///
/// Ids are laid out as in GPT-2: 256 bytes, then merges in the order they were found, then `<|endoftext|>`. Fewer than
/// `vocab_size` ids result if the texts run out of pairs. The same texts give the same files, byte for byte.
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
    let inner = assemble(parts.vocab.clone(), parts.merges.clone()).map_err(refused)?;

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
        file(SETTINGS[0], format!("{config:#}\n")),
        file(SETTINGS[1], format!("{special:#}\n")),
    ])
}

fn from_vocab_and_merges(origin: &Path, vocab: &[u8], merges: &[u8]) -> Result<HfTokenizer> {
    let vocab: BTreeMap<String, u32> = crate::json::from_slice(vocab)
        .map_err(|e| Error::file(origin.join(VOCAB), format!("not a map from token to id: {e}")))?;
    let path = origin.join(MERGES);
    let merges = std::str::from_utf8(merges).map_err(|_| Error::file(&path, "the text is not UTF-8"))?;
    let mut pairs = Vec::new();
    for (number, line) in merges.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let pair = line.split_once(' ').filter(|(_, right)| !right.contains(' '));
        let (left, right) = pair.ok_or_else(|| {
            Error::file(&path, format!("line {}: expected two tokens and a space between", number + 1))
        })?;
        pairs.push((left.to_owned(), right.to_owned()));
    }
    assemble(vocab, pairs).map_err(|e| Error::file(&path, format!("does not fit {VOCAB}: {e}")))
}

/// A GPT-2 tokenizer around a vocabulary and its merges, in order of rank.
fn assemble(vocab: BTreeMap<String, u32>, merges: Vec<(String, String)>) -> tokenizers::Result<HfTokenizer> {
    let model = BPE::builder().vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges).build()?;
    let mut tokenizer = HfTokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(byte_level()));
    tokenizer.with_post_processor(Some(byte_level().trim_offsets(false)));
    tokenizer.with_decoder(Some(byte_level()));
    tokenizer.add_special_tokens([AddedToken::from(END_OF_TEXT, true).normalized(false)])?;
    Ok(tokenizer)
}

fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io(path))
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("tokenizer: {}", first_line(error)))
}
