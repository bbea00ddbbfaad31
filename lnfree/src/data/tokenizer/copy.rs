//! What goes along with a model.

use std::path::Path;

use super::TOKENIZER_FILES;
use crate::{Error, Result};

/// Files of a model directory that are carried along unread, beside its tokenizer's.
const CARRIED: [&str; 1] = ["generation_config.json"];

/// Copies the tokenizer files that `from` has into `to`.
///
/// # Errors
/// When one of them cannot be copied.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER_FILES.into_iter().chain(CARRIED) {
        let source = from.join(name);
        if source.is_file() {
            std::fs::copy(&source, to.join(name)).map_err(Error::io(&source))?;
        }
    }
    Ok(())
}
