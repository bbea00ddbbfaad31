//! Training checkpoints: a loadable model plus everything that a bit-identical continuation needs.
//!
//! A checkpoint is a folder: `config.json` and `model.safetensors` (Hugging Face names, and the LN state
//! under the names of the paper's checkpoints), `optimizer.safetensors`, `trainer.json`, tokenizer files,
//! `SHA256SUMS`. It is written beside, synced and renamed, so that it is there whole or not at all.

mod retention;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::Tensor;

use crate::base::atomic::{
    remove_dir_atomic, remove_leftovers, verify_checksums, write_checksums, write_dir_atomic,
};
use crate::data::tokenizer::copy_tokenizer;
use crate::model::ln_state::LnState;
use crate::model::names::{hf_names, metadata};
use crate::model::weights::{check_finite, read_weights, write_safetensors};
use crate::model::{Gpt2, state_tensors};
use crate::{Error, Result};

pub use crate::config::run_dir::{has_any, latest, locate};
pub use crate::config::run_state::{FORMAT, TrainerState, state};
pub use crate::eval::locate_model;

use crate::config::run_dir::{is_whole, numbered, whole};
use crate::config::run_state::{TRAINER_FILE, read_state};
use retention::remove_old;

const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// Writes `RUN/checkpoints/step-N` and points `latest` at it; older ones beyond `keep_checkpoints` go
/// afterwards (0 keeps all), but for those of `keep_steps`. One of a later step, which a run resumed from an
/// earlier checkpoint leaves behind, is not counted and not touched. One that cannot be deleted is told of
/// and stays. `optimizer`: its moments by name, and the adapters where there are any.
///
/// # Errors
/// When something cannot be written; what was there before is untouched.
pub fn save(
    run: &Path,
    state: &TrainerState,
    model: &Gpt2,
    ln: Option<&LnState>,
    optimizer: &BTreeMap<String, Tensor>,
) -> Result<PathBuf> {
    let (folder, path) = (run.join("checkpoints"), of_step(run, state.step));
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    write_dir_atomic(&path, |dir| {
        let mut weights = model.to_weights();
        if let Some(ln) = ln {
            weights.extend(state_tensors(ln, model.config.block_size, model.config.n_embd));
        }
        write_safetensors(&dir.join("model.safetensors"), &hf_names(weights), &metadata())?;
        write_safetensors(&dir.join(OPTIMIZER_FILE), optimizer, &metadata())?;
        model.config.stored_as(model.wte.kind()).write(dir)?;
        // A base model that has been moved away leaves its tokenizer in the checkpoint before.
        let before = folder.join("latest");
        copy_tokenizer(if state.base_model.is_dir() { &state.base_model } else { &before }, dir)?;
        let text = serde_json::to_string_pretty(state).map_err(|e| Error::file(&path, e))?;
        let file = dir.join(TRAINER_FILE);
        std::fs::write(&file, text).map_err(Error::io(&file))?;
        write_checksums(dir)
    })?;
    point_latest(&folder, &format!("step-{}", state.step))?;
    remove_old(&folder, state);
    Ok(path)
}

/// Where a run has the checkpoint of `step`.
pub(super) fn of_step(run: &Path, step: usize) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step}"))
}

/// Goes back to the checkpoint of `step`: those of later steps go.
///
/// # Errors
/// When it is not there whole, or a later one cannot be deleted.
pub(super) fn go_back(run: &Path, step: usize) -> Result<()> {
    let (folder, path) = (run.join("checkpoints"), of_step(run, step));
    if !is_whole(&path) {
        return Err(Error::file(&path, "is not there whole, and the run has to go back to it"));
    }
    point_latest(&folder, &format!("step-{step}"))?;
    for (_, later) in numbered(&folder).into_iter().filter(|(n, _)| *n > step) {
        remove_dir_atomic(&later)?;
    }
    Ok(())
}

/// The newest checkpoint of a run other than `damaged` whose files are all what was written.
pub fn newest_whole(run: &Path, damaged: &Path) -> Option<PathBuf> {
    let is_damaged = |path: &Path| path.file_name() == damaged.file_name();
    let mut found = whole(&run.join("checkpoints")).into_iter().rev().map(|(_, path)| path);
    found.find(|path| !is_damaged(path) && verify_checksums(path).is_ok())
}

/// Deletes what a killed process left unfinished in a run directory.
///
/// # Errors
/// When it cannot be deleted.
pub fn clean(run: &Path) -> Result<()> {
    for folder in [run.to_path_buf(), run.join("checkpoints")] {
        if folder.is_dir() {
            remove_leftovers(&folder)?;
        }
    }
    Ok(())
}

/// Reads and verifies a checkpoint's state, and its optimizer's tensors.
///
/// # Errors
/// When a file is missing or differs from its checksum; names it.
pub fn load(path: &Path) -> Result<(TrainerState, crate::model::weights::Weights)> {
    verify_checksums(path)?;
    let state = read_state(path)?;
    let file = path.join(OPTIMIZER_FILE);
    let moments = read_weights(&file)?;
    check_finite(&moments, &file)?;
    Ok((state, moments))
}

/// Replaces the link by renaming, so that it always points at a whole checkpoint.
fn point_latest(folder: &Path, name: &str) -> Result<()> {
    let (link, fresh) = (folder.join("latest"), folder.join(".latest.tmp"));
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(name, &fresh).map_err(Error::io(&fresh))?;
    std::fs::rename(&fresh, &link).map_err(Error::io(&link))
}
