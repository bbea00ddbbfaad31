//! GPT-2 style byte-level BPE tokenizers: loading, training, saving.
//!
//! Files are those of Hugging Face GPT-2 tokenizers, so that `AutoTokenizer.from_pretrained` loads a saved
//! folder. What lies beside a vocabulary and changes ids (added tokens and their flags, special tokens, the
//! space or the token in front of a text) is honoured as transformers' fast tokenizer does, or refused by
//! name.

mod assemble;
mod copy;
mod cut;
mod pieces;
mod settings;
mod train;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use self::cut::Cutter;
use self::settings::Settings;
use super::{first_line, guarded};
use crate::config::tokenizer_files::{ADDED, CONFIG, MERGES, SPECIAL_MAP, TOKENIZER, VOCAB};
use crate::{Error, Result};

pub use self::copy::copy_tokenizer;
pub(super) use self::pieces::{Pieces, batch_bytes};
pub use self::train::train_bpe;
pub use crate::config::tokenizer_files::TOKENIZER_FILES;

/// The token that ends every document, and that GPT-2 also uses as its begin-of-text token.
pub const END_OF_TEXT: &str = "<|endoftext|>";
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
    /// Ids that go before and after every text.
    around: (Vec<u32>, Vec<u32>),
    /// Bytes of texts that the vocabulary lacks.
    missing: Vec<u8>,
    /// Where texts may be cut; none where the pre-tokenizer is not known.
    cutter: Option<Cutter>,
    files: Vec<TokenizerFile>,
    /// What other files than the vocabulary's change.
    changes: Option<String>,
}

impl Tokenizer {
    /// Loads a folder with `tokenizer.json`, or with `vocab.json` and `merges.txt`, and the files beside them
    /// that change ids ([`TOKENIZER_FILES`]).
    ///
    /// # Errors
    /// If neither is there, a file is malformed or asks for what is not supported, or there is no
    /// `<|endoftext|>` token.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut files = Vec::new();
        for name in TOKENIZER_FILES {
            let path = dir.join(name);
            if path.is_file() {
                files.push(TokenizerFile { name: name.into(), bytes: read(&path)? });
            }
        }
        Self::from_files(dir, files)
    }

    /// Loads a `tokenizer.json` as it is, or the folder if `path` is one.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::from_dir(path);
        }
        let files = vec![TokenizerFile { name: TOKENIZER.into(), bytes: read(path)? }];
        guarded(path, || Self::assembled(path, files, None))
    }

    /// `origin` is the file or folder that messages name.
    fn from_files(origin: &Path, files: Vec<TokenizerFile>) -> Result<Self> {
        guarded(origin, || {
            let whole = files.iter().any(|file| file.name == TOKENIZER);
            let settings = Settings::read(origin, &files, whole)?;
            Self::assembled(origin, files, Some(settings))
        })
    }

    /// A `tokenizer.json` without settings beside it is taken as it is.
    fn assembled(origin: &Path, files: Vec<TokenizerFile>, settings: Option<Settings>) -> Result<Self> {
        let bytes_of = |name: &str| files.iter().find(|f| f.name == name).map(|f| f.bytes.as_slice());
        let whole = bytes_of(TOKENIZER).is_some();
        let mut inner = match (bytes_of(TOKENIZER), bytes_of(VOCAB), bytes_of(MERGES)) {
            (Some(json), ..) => HfTokenizer::from_bytes(crate::base::json::without_bom(json))
                .map_err(|e| Error::file(origin, format!("not a tokenizer.json: {}", first_line(e))))?,
            (None, Some(vocab), Some(merges)) => assemble::from_vocab_and_merges(origin, vocab, merges)?,
            _ => {
                return Err(Error::file(
                    origin,
                    format!("no {TOKENIZER}, and not both {VOCAB} and {MERGES}"),
                ));
            }
        };
        // Some published tokenizers carry these settings; both would change what `encode` returns.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::file(origin, e))?;
        let before = behaviour(&inner, whole);
        if let Some(settings) = &settings {
            assemble::apply(origin, &mut inner, settings, whole)?;
        }
        let settings = settings.unwrap_or_default();
        let around = assemble::surroundings(origin, &inner, &settings, whole)?;
        let after = behaviour(&inner, whole);
        let neutral = before == after && around.0.is_empty() && around.1.is_empty();
        let eot_id = assemble::end_token(&inner, &settings)
            .ok_or_else(|| Error::file(origin, format!("the tokenizer has no {END_OF_TEXT} token")))?;
        let (missing, cutter) = (assemble::missing_bytes(&inner), Cutter::of(&inner));
        let changes = (!neutral).then(|| format!("{after} {around:?}"));
        Ok(Self { inner, eot_id, around, missing, cutter, files, changes })
    }

    /// The ids of a text. `<|endoftext|>` in the text becomes that token, as in the peer's data. No token is
    /// added, unless the tokenizer says so (`add_bos_token`, or a post-processor). A long text is encoded in
    /// pieces, on all cores.
    ///
    /// # Errors
    /// If the tokenizer refuses the text, or the vocabulary lacks a byte of it; if it is long and cannot be
    /// cut.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if text.len() > pieces::WHOLE {
            return Ok(pieces::encode_all(self, [text])?.swap_remove(0));
        }
        Ok(self.surrounded(self.encode_piece(text)?))
    }

    /// [`Tokenizer::encode`] of each text, on all cores.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch(&self, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        pieces::encode_all(self, texts.iter().map(String::as_str))
    }

    /// The ids of a piece, with nothing around.
    fn encode_piece(&self, text: &str) -> Result<Vec<u32>> {
        self.refuse_missing(text)?;
        Ok(self.inner.encode_fast(text, false).map_err(refused)?.get_ids().to_vec())
    }

    /// [`Tokenizer::encode_piece`] of each, on all cores.
    pub(super) fn encode_pieces(&self, pieces: &[String]) -> Result<Vec<Vec<u32>>> {
        pieces.iter().try_for_each(|piece| self.refuse_missing(piece))?;
        let pieces = pieces.iter().map(String::as_str).collect();
        let encodings = self.inner.encode_batch_fast(pieces, false).map_err(refused)?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    fn refuse_missing(&self, text: &str) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        match text.bytes().find(|byte| self.missing.contains(byte)) {
            Some(byte) => Err(Error::invalid(format!(
                "the tokenizer's vocabulary has no token for byte 0x{byte:02x}, which the text has, and no \
                unknown token"
            ))),
            None => Ok(()),
        }
    }

    /// Ids of a text between those that go before and after every text.
    fn surrounded(&self, ids: Vec<u32>) -> Vec<u32> {
        let (before, after) = self.around();
        if before.is_empty() && after.is_empty() { ids } else { [before, &ids, after].concat() }
    }

    /// Ids that go before every text, and after it.
    pub(super) fn around(&self) -> (&[u32], &[u32]) {
        (&self.around.0, &self.around.1)
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

    /// The id of `<|endoftext|>`; of the tokenizer's `eos_token` where it has no such token.
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
        // Settings that change nothing leave the hash what it was before they were looked at.
        if let Some(changes) = &self.changes {
            hash.update(changes);
        }
        crate::base::hex(&hash.finalize())
    }

    /// Writes [`Tokenizer::files`] into a folder, which is made if it is missing.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        for file in &self.files {
            crate::base::atomic::write_bytes(&dir.join(&file.name), &file.bytes)?;
        }
        Ok(())
    }
}

/// What settings can change of a tokenizer. A vocabulary without `tokenizer.json` has end-of-text added in
/// any case.
fn behaviour(inner: &HfTokenizer, whole: bool) -> String {
    let mut added: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
    if !whole {
        let plain =
            |token: &AddedToken| *token == AddedToken::from(END_OF_TEXT, true).normalized(token.normalized);
        added.retain(|_, token| !plain(token));
    }
    let pre = inner.get_pre_tokenizer().and_then(|pre| serde_json::to_string(pre).ok());
    format!("{added:?} {pre:?} {}", inner.get_encode_special_tokens())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io(path))
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("tokenizer: {}", first_line(error)))
}
