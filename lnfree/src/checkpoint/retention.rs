//! Which checkpoints a run has, and which of them go.

use std::path::{Path, PathBuf};

use super::state::TRAINER_FILE;
use crate::atomic::{has_listed_files, remove_dir_atomic};
use crate::config::TrainConfig;
use crate::console::say;

/// Deletes all up to `step`, the one just written, but the newest `keep_checkpoints` and those of
/// `keep_steps`. The new checkpoint is there: that an old one cannot be deleted is no reason to end the run.
pub(super) fn remove_old(folder: &Path, step: usize, train: &TrainConfig) {
    if train.keep_checkpoints == 0 {
        return;
    }
    let mut kept = 0;
    for (n, path) in numbered(folder).into_iter().rev().filter(|(n, _)| *n <= step) {
        if kept >= train.keep_checkpoints && !train.keep_steps.contains(&n) {
            if let Err(error) = remove_dir_atomic(&path) {
                say(&format!("{error}; the run goes on, and this checkpoint stays"));
            }
        } else if is_whole(&path) {
            kept += 1;
        }
    }
}

/// The checkpoint with the most steps whose files are all there.
pub(super) fn newest(folder: &Path) -> Option<PathBuf> {
    whole(folder).pop().map(|(_, path)| path)
}

/// Checkpoints of a folder whose files are all there, with their steps, ascending.
pub(super) fn whole(folder: &Path) -> Vec<(usize, PathBuf)> {
    numbered(folder).into_iter().filter(|(_, path)| is_whole(path)).collect()
}

/// Whether all files of a checkpoint are there. What is in them is not looked at.
fn is_whole(path: &Path) -> bool {
    path.join(TRAINER_FILE).is_file() && has_listed_files(path)
}

/// Folders called `step-N` with their steps, ascending.
fn numbered(folder: &Path) -> Vec<(usize, PathBuf)> {
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
