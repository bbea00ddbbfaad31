//! Training checkpoints: a loadable model plus everything that a bit-identical continuation needs.
//!
//! A checkpoint is a folder: `config.json` and `model.safetensors` (Hugging Face names, and the LN state under the names
//! of the paper's checkpoints), `optimizer.safetensors`, `trainer.json`, tokenizer files, `SHA256SUMS`. It is written beside,
//! synced and renamed, so that it is there whole or not at all.

mod retention;
mod state;

use std::path::{Path, PathBuf};

use crate::atomic::{remove_leftovers, verify_checksums, write_checksums, write_dir_atomic};
use crate::model::names::{hf_names, metadata};
use crate::model::weights::{check_finite, read_weights, write_safetensors};
use crate::model::{Gpt2, state_tensors};
use crate::norm::{LnState, NormSettings};
use crate::optim::AdamW;
use crate::{Error, Result};

pub use state::{FORMAT, TrainerState, state};

use retention::{newest, remove_old, whole};
use state::{TRAINER_FILE, read_state};

const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// Files of a model directory that are carried along unread, beside its tokenizer's.
const CARRIED: [&str; 1] = ["generation_config.json"];

/// Writes `RUN/checkpoints/step-N` and points `latest` at it; older ones beyond `keep_checkpoints` go
/// afterwards (0 keeps all), but for those of `keep_steps`. One of a later step, which a run resumed from an
/// earlier checkpoint leaves behind, is not counted and not touched. One that cannot be deleted is told of
/// and stays.
///
/// # Errors
/// When something cannot be written; what was there before is untouched.
pub fn save(
    run: &Path,
    state: &TrainerState,
    model: &Gpt2,
    ln: Option<&LnState>,
    optimizer: &AdamW,
) -> Result<PathBuf> {
    let folder = run.join("checkpoints");
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let name = format!("step-{}", state.step);
    let path = folder.join(&name);
    write_dir_atomic(&path, |dir| {
        let mut weights = model.to_weights();
        if let Some(ln) = ln {
            weights.extend(state_tensors(ln, model.config.block_size, model.config.n_embd));
        }
        write_safetensors(&dir.join("model.safetensors"), &hf_names(weights), &metadata())?;
        write_safetensors(&dir.join(OPTIMIZER_FILE), &optimizer.state(), &metadata())?;
        model.config.stored_as(model.wte.kind()).write(dir)?;
        // A base model that has been moved away leaves its tokenizer in the checkpoint before.
        let before = folder.join("latest");
        copy_tokenizer(if state.base_model.is_dir() { &state.base_model } else { &before }, dir)?;
        let text = serde_json::to_string_pretty(state).map_err(|e| Error::file(&path, e))?;
        let file = dir.join(TRAINER_FILE);
        std::fs::write(&file, text).map_err(Error::io(&file))?;
        write_checksums(dir)
    })?;
    point_latest(&folder, &name)?;
    remove_old(&folder, state.step, &state.config.train);
    Ok(path)
}

/// Copies the tokenizer files that `from` has into `to`.
///
/// # Errors
/// When one of them cannot be copied.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in crate::data::tokenizer::TOKENIZER_FILES.into_iter().chain(CARRIED) {
        let source = from.join(name);
        if source.is_file() {
            std::fs::copy(&source, to.join(name)).map_err(Error::io(&source))?;
        }
    }
    Ok(())
}

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
        Error::file(run, "has no checkpoint to resume from; start the run again without --resume")
    })
}

/// Whether a run directory has a checkpoint.
pub fn has_any(run: &Path) -> bool {
    latest(run).is_ok()
}

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

/// Run directory and checkpoint that `path` means: a run directory for its latest checkpoint, or one of its checkpoints.
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

/// How a checkpoint of ours follows its standard deviations; `None` for anybody else's folder.
pub(crate) fn norm_settings(dir: &Path) -> Result<Option<NormSettings>> {
    Ok(state(dir)?.map(|state| state.config.norm))
}

/// Replaces the link by renaming, so that it always points at a whole checkpoint.
fn point_latest(folder: &Path, name: &str) -> Result<()> {
    let (link, fresh) = (folder.join("latest"), folder.join(".latest.tmp"));
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(name, &fresh).map_err(Error::io(&fresh))?;
    std::fs::rename(&fresh, &link).map_err(Error::io(&link))
}
