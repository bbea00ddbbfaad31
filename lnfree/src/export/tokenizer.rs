//! The tokenizer of an export: without one nobody can give the model a text.

use std::path::Path;

use super::CardFacts;
use crate::config::tokenizer_files::{MERGES, TOKENIZER, VOCAB};
use crate::data::tokenizer::{TOKENIZER_FILES, copy_tokenizer};
use crate::data::{GPT2_VOCAB, Tokenizer};
use crate::hub::locate_tokenizer;
use crate::model::LoadedModel;
use crate::{Error, Result};

/// Whether a folder has a tokenizer.
pub fn has_tokenizer(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    has(TOKENIZER) || (has(VOCAB) && has(MERGES))
}

/// Puts the source's tokenizer into `dir`, or where it has none that of the model it was made of, or else
/// GPT-2's or nano's, whose vocabulary has to be of the same size. The folder stays without one where none is
/// found.
pub(super) fn add_tokenizer(source: &LoadedModel, facts: &CardFacts, dir: &Path) -> Result<()> {
    copy_tokenizer(&source.path, dir)?;
    if has_tokenizer(dir) {
        return Ok(());
    }
    let vocab_size = source.model.config.vocab_size;
    let usual = if vocab_size == GPT2_VOCAB { "gpt2" } else { "nano" };
    let fitting = |name: &str| {
        let folder = locate_tokenizer(name).ok()?;
        let tokenizer = Tokenizer::from_dir(&folder).ok()?;
        (tokenizer.vocab_size() as i64 == vocab_size).then_some(folder)
    };
    let mut names = [facts.base_model.as_str(), usual].into_iter().filter(|name| !name.is_empty());
    let Some(folder) = names.find_map(fitting) else { return Ok(()) };
    for name in TOKENIZER_FILES {
        let from = folder.join(name);
        if from.is_file() {
            std::fs::copy(&from, dir.join(name)).map_err(Error::io(&from))?;
        }
    }
    Ok(())
}
