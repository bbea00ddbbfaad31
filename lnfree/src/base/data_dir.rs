//! Where the embedded model and texts lie.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The folder of the embedded tokenizer, whose presence tells the data folder.
const TOKENIZER: &str = "nano";

/// The repository's `data/`: the one above the current folder, else the one that this crate was built beside.
///
/// # Errors
/// If there is none.
pub fn data_dir() -> Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(""));
    here.ancestors()
        .chain([built])
        .map(|folder| folder.join("data"))
        .find(|data| data.join(TOKENIZER).join("tokenizer.json").is_file())
        .ok_or_else(|| {
            Error::invalid(
                "the folder data/ of lnfree's repository is not here; run this inside the repository",
            )
        })
}
