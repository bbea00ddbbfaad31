//! From the name of a model to its folder.

use std::path::PathBuf;

use crate::Result;
use crate::config::run_dir::latest;

/// A model's folder by path or name (see [`crate::hub::locate_model`]); a run directory stands for its latest checkpoint.
///
/// # Errors
/// When there is no such model, or the run has no checkpoint.
pub fn locate_model(name_or_path: &str) -> Result<PathBuf> {
    let dir = crate::hub::locate_model(name_or_path)?;
    match dir.join("checkpoints").is_dir() && !dir.join("config.json").is_file() {
        true => latest(&dir),
        false => Ok(dir),
    }
}
