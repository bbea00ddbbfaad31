//! From the name of a model to its folder.

use std::path::PathBuf;

use crate::Result;
use crate::config::run_dir::latest;

/// A model's folder by path or name (see [`crate::hub::locate_model`]); a run directory, or its
/// `checkpoints`, stands for its latest checkpoint.
///
/// # Errors
/// When there is no such model, or the run has no checkpoint.
pub fn locate_model(name_or_path: &str) -> Result<PathBuf> {
    let dir = crate::hub::locate_model(name_or_path)?;
    if dir.join("config.json").is_file() {
        return Ok(dir);
    }
    match dir.parent() {
        _ if dir.join("checkpoints").is_dir() => latest(&dir),
        Some(run) if dir.is_dir() && dir.file_name().is_some_and(|name| name == "checkpoints") => latest(run),
        _ => Ok(dir),
    }
}
