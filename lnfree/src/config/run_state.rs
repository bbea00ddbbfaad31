//! `trainer.json`: where a run stands, and the version of the format that says so.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AdaptiveState, Config, Mode};
use crate::{Error, Result};

pub(crate) const TRAINER_FILE: &str = "trainer.json";

/// The version of the format of the checkpoints that are written. It goes up with every change that an older
/// program would misread.
pub const FORMAT: u32 = 1;

/// Where a run stands, beside its tensors. Dropout needs nothing here: its seeds follow from seed, step and
/// micro-batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Version of the checkpoint's format; checkpoints without one are of the first.
    #[serde(default = "first_format")]
    pub format: u32,
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
    /// What an adaptive schedule has come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveState>,
    /// The whole config.
    pub config: Config,
}

fn first_format() -> u32 {
    1
}

/// The state of a checkpoint; `None` for a folder that is none of ours.
///
/// # Errors
/// When there is one and it cannot be read, or is of a newer format than [`FORMAT`].
pub fn state(dir: &Path) -> Result<Option<TrainerState>> {
    dir.join(TRAINER_FILE).is_file().then(|| read_state(dir)).transpose()
}

pub(crate) fn read_state(path: &Path) -> Result<TrainerState> {
    let file = path.join(TRAINER_FILE);
    let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
    check_format(&text, &file)?;
    serde_json::from_str(&text).map_err(|e| Error::file(&file, format!("not a trainer state: {e}")))
}

/// Refuses a newer format, before its keys are looked at: they may be others.
fn check_format(text: &str, file: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(default = "first")]
        format: u64,
        #[serde(default)]
        lnfree: String,
    }
    fn first() -> u64 {
        first_format().into()
    }
    let header: Header =
        serde_json::from_str(text).map_err(|e| Error::file(file, format!("not a trainer state: {e}")))?;
    if (1..=u64::from(FORMAT)).contains(&header.format) {
        return Ok(());
    }
    let Header { format, lnfree } = header;
    let this = env!("CARGO_PKG_VERSION");
    Err(Error::file(
        file,
        format!(
            "is of checkpoint format {format}, written by lnfree {lnfree}; this is lnfree {this}, which reads \
             format 1 to {FORMAT}: go on with the lnfree that wrote it, or a newer one"
        ),
    ))
}
