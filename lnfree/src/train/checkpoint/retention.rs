//! Which checkpoints of a run go.

use std::path::Path;

use crate::base::atomic::remove_dir_atomic;
use crate::base::console::say;
use crate::config::AdaptiveState;
use crate::config::run_dir::{is_whole, numbered};
use crate::config::run_state::TrainerState;

/// Deletes all up to that of `state`, the one just written, but the newest `keep_checkpoints`, those of
/// `keep_steps`, and the one that an adaptive schedule may go back to. The new checkpoint is there: that an
/// old one cannot be deleted is no reason to end the run.
pub(super) fn remove_old(folder: &Path, state: &TrainerState) {
    let (train, step) = (&state.config.train, state.step);
    let before_removal = state.adaptive.as_ref().and_then(AdaptiveState::began_last);
    let stays = |n: &usize| train.keep_steps.contains(n) || before_removal == Some(*n);
    if train.keep_checkpoints == 0 {
        return;
    }
    let mut kept = 0;
    for (n, path) in numbered(folder).into_iter().rev().filter(|(n, _)| *n <= step) {
        if kept >= train.keep_checkpoints && !stays(&n) {
            if let Err(error) = remove_dir_atomic(&path) {
                say(&format!("{error}; the run goes on, and this checkpoint stays"));
            }
        } else if is_whole(&path) {
            kept += 1;
        }
    }
}
