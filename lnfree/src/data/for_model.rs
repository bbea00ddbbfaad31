//! How data sets are prepared for a model.

use std::path::Path;

use super::DatasetOptions;
use crate::config::Gpt2Config;

/// Tokens of GPT-2's vocabulary, whose tokenizer is known without asking the model.
pub const GPT2_VOCAB: i64 = 50257;

/// More ids than any padding of a vocabulary adds: those are multiples of 64 to 512.
const MAX_PADDING: i64 = 512;

/// How data sets are prepared for a model in this folder: with GPT-2's tokenizer if it has GPT-2's
/// vocabulary, or brings no tokenizer and has GPT-2's vocabulary with a padding; else with its own.
pub fn dataset_options(dir: &Path, block_size: usize) -> DatasetOptions {
    let own = ["tokenizer.json", "vocab.json"].iter().any(|name| dir.join(name).is_file());
    let is_gpt2 = Gpt2Config::read(dir).is_ok_and(|config| match config.vocab_size - GPT2_VOCAB {
        0 => true,
        padding => !own && (1..MAX_PADDING).contains(&padding),
    });
    let tokenizer = (!is_gpt2).then(|| dir.to_string_lossy().into_owned());
    DatasetOptions { tokenizer, ..DatasetOptions::new(block_size) }
}
