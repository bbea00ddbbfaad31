//! Which checkpoints of a run go.

use std::path::Path;

use crate::base::atomic::remove_dir_atomic;
use crate::base::console::say;
use crate::config::TrainConfig;
use crate::config::run_dir::{is_whole, numbered};

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
