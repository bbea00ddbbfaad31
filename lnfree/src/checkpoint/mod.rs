//! Training checkpoints: a loadable model plus everything that a bit-identical continuation needs.
//!
//! A checkpoint is a folder: `config.json` and `model.safetensors` (Hugging Face names, and the LN state under the names
//! of the paper's checkpoints), `optimizer.safetensors`, `trainer.json`, tokenizer files, `SHA256SUMS`. It is written beside,
//! synced and renamed, so that it is there whole or not at all.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic::{verify_checksums, write_checksums, write_dir_atomic};
use crate::config::Config;
use crate::model::names::{hf_names, metadata};
use crate::model::weights::{read_weights, write_safetensors};
use crate::model::{Gpt2, state_tensors};
use crate::norm::{LnState, NormSettings};
use crate::optim::AdamW;
use crate::train::Mode;
use crate::{Error, Result};

const TRAINER_FILE: &str = "trainer.json";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// Files of a model directory that are carried along unread.
pub const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
];

/// Where a run stands, beside its tensors. Dropout needs nothing here: its seeds follow from seed, step and micro-batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Version of the crate that wrote it.
    pub lnfree: String,
    /// With LN, without, or from scratch.
    pub mode: Mode,
    /// Optimizer steps done.
    pub step: usize,
    /// Optimizer steps that AdamW has counted.
    pub optimizer_steps: u64,
    /// Sequences consumed.
    pub data_position: u64,
    /// Identity of the token data.
    pub data_fingerprint: String,
    /// Tokens seen.
    pub tokens: u64,
    /// The model that the run started from.
    pub base_model: PathBuf,
    /// The whole config.
    pub config: Config,
}

/// Writes `RUN/checkpoints/step-N` and points `latest` at it; older ones beyond `keep` go afterwards (0 keeps all).
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
        model.config.write(dir)?;
        copy_tokenizer(&state.base_model, dir)?;
        let text = serde_json::to_string_pretty(state).map_err(|e| Error::file(&path, e))?;
        let file = dir.join(TRAINER_FILE);
        std::fs::write(&file, text).map_err(Error::io(&file))?;
        write_checksums(dir)
    })?;
    point_latest(&folder, &name)?;
    remove_old(&folder, state.config.train.keep_checkpoints)?;
    Ok(path)
}

/// Copies the tokenizer files that `from` has into `to`.
///
/// # Errors
/// When one of them cannot be copied.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER_FILES {
        let source = from.join(name);
        if source.is_file() {
            std::fs::copy(&source, to.join(name)).map_err(Error::io(&source))?;
        }
    }
    Ok(())
}

/// The folder of a run's checkpoint: `latest`, or the one with the most steps when that link is not there.
///
/// # Errors
/// When the run has no checkpoint.
pub fn latest(run: &Path) -> Result<PathBuf> {
    let folder = run.join("checkpoints");
    let link = folder.join("latest");
    if link.join(TRAINER_FILE).is_file() {
        return std::fs::canonicalize(&link).map_err(Error::io(&link));
    }
    let (_, path) = numbered(&folder)?.pop().ok_or_else(|| {
        Error::file(run, "has no checkpoint to resume from; start the run again without --resume")
    })?;
    Ok(path)
}

/// Reads and verifies a checkpoint's state, and its optimizer's tensors.
///
/// # Errors
/// When a file is missing or differs from its checksum; names it.
pub fn load(path: &Path) -> Result<(TrainerState, crate::model::weights::Weights)> {
    verify_checksums(path)?;
    let state = read_state(path)?;
    Ok((state, read_weights(&path.join(OPTIMIZER_FILE))?))
}

/// The state of a checkpoint; `None` for a folder that is none of ours.
///
/// # Errors
/// When there is one and it cannot be read.
pub fn state(dir: &Path) -> Result<Option<TrainerState>> {
    dir.join(TRAINER_FILE).is_file().then(|| read_state(dir)).transpose()
}

fn read_state(path: &Path) -> Result<TrainerState> {
    let file = path.join(TRAINER_FILE);
    let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
    serde_json::from_str(&text).map_err(|e| Error::file(&file, format!("not a trainer state: {e}")))
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

fn remove_old(folder: &Path, keep: usize) -> Result<()> {
    let all = numbered(folder)?;
    if keep > 0 {
        for (_, path) in all.iter().rev().skip(keep) {
            std::fs::remove_dir_all(path).map_err(Error::io(path))?;
        }
    }
    Ok(())
}

/// Checkpoints of a folder with their steps, ascending.
fn numbered(folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|e| e.ok())
        .filter_map(|e| {
            let step = e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((step, e.path()))
        })
        .collect();
    found.sort();
    Ok(found)
}
