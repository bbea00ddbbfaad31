//! The folder of a run: which checkpoints it has, and which of them a path means.

use std::path::{Path, PathBuf};

use super::run_state::TRAINER_FILE;
use crate::base::atomic::has_listed_files;
use crate::{Error, Result};

/// The folder of a run's checkpoint: `latest`, or where that link leads nowhere the one with the most steps
/// whose files are all there.
///
/// # Errors
/// When the run has no checkpoint.
pub fn latest(run: &Path) -> Result<PathBuf> {
    let folder = run.join("checkpoints");
    let link = folder.join("latest");
    // What is read has to stay the same when a new checkpoint takes the link's place.
    if let Ok(target) = std::fs::read_link(&link)
        && link.is_dir()
    {
        return Ok(folder.join(target));
    }
    if link.is_dir() {
        return Ok(link);
    }
    newest(&folder).ok_or_else(|| {
        Error::file(
            run,
            "has no checkpoint yet; a run that ended before its first one is begun again without --resume",
        )
    })
}

/// Whether a run directory has a checkpoint.
pub fn has_any(run: &Path) -> bool {
    latest(run).is_ok()
}

/// Run directory and checkpoint that `path` means: a run directory for its latest checkpoint, or one of its
/// checkpoints.
///
/// # Errors
/// When `path` is neither, or the run has no checkpoint.
pub fn locate(path: &Path) -> Result<(PathBuf, PathBuf)> {
    if !path.is_dir() {
        return Err(Error::file(path, "there is no such run directory"));
    }
    if !path.join(TRAINER_FILE).is_file() && !in_run(path) {
        return Ok((path.to_path_buf(), latest(path)?));
    }
    let mut checkpoint = std::fs::read_link(path).map_or(path.to_path_buf(), |to| path.with_file_name(to));
    let named = checkpoint.parent().and_then(Path::parent).is_some_and(|run| run != Path::new(""));
    if !named || !in_run(&checkpoint) {
        checkpoint = std::fs::canonicalize(path).map_err(Error::io(path))?;
    }
    match checkpoint.parent().and_then(Path::parent) {
        Some(run) if in_run(&checkpoint) => Ok((run.to_path_buf(), checkpoint)),
        _ => Err(Error::file(path, "is a checkpoint outside a run directory (RUN/checkpoints/step-N)")),
    }
}

fn in_run(checkpoint: &Path) -> bool {
    checkpoint.parent().and_then(Path::file_name).is_some_and(|name| name == "checkpoints")
}

/// The checkpoint with the most steps whose files are all there.
pub(crate) fn newest(folder: &Path) -> Option<PathBuf> {
    whole(folder).pop().map(|(_, path)| path)
}

/// Checkpoints of a folder whose files are all there, with their steps, ascending.
pub(crate) fn whole(folder: &Path) -> Vec<(usize, PathBuf)> {
    numbered(folder).into_iter().filter(|(_, path)| is_whole(path)).collect()
}

/// Whether all files of a checkpoint are there. What is in them is not looked at.
pub(crate) fn is_whole(path: &Path) -> bool {
    path.join(TRAINER_FILE).is_file() && has_listed_files(path)
}

/// Folders called `step-N` with their steps, ascending.
pub(crate) fn numbered(folder: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|e| e.ok())
        .filter_map(|e| {
            let step = e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((step, e.path()))
        })
        .collect();
    found.sort();
    found
}
