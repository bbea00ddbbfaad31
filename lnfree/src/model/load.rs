//! Models from disk in each of the formats.

mod hidden;
mod state;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tch::{Device, Kind};

pub(crate) use self::hidden::check_not_written_over;
pub use self::state::state_tensors;
use super::check_shapes::check_shapes;
use super::generation_config::GenerationConfig;
use super::weights::{Weights, not_finite, read_weights};
use super::{Gpt2, Gpt2Config};
use crate::base::console::warn_once;
use crate::config::norm::{LnMode, NormSettings};
use crate::config::run_state;
use crate::model::ln_state::LnState;
use crate::{Error, Result};

/// How a model directory stores what became of its LNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFormat {
    /// `transformers`: an ordinary GPT-2 with LN.
    Transformers,
    /// `checkpoint`: the state of every LN beside the weights (the paper's code: `fakeln_checkpoint`).
    Checkpoint,
    /// `scaled`: LN kept but hidden, ε = 1e12 and weights × 1e6/σ̄ (the paper's code: `noLN_HF_model`).
    Scaled,
    /// `folded`: no LN at all, everything folded into the matrices and the last MLP's bias.
    Folded,
    /// `identity`: everything folded into the matrices, and LNs that are the identity: γ = 2ᵏ, ε = 4ᵏ, β = 0
    /// but for ln_f's own shift.
    Identity,
}

impl ModelFormat {
    /// The names that `-f` takes and everything prints.
    pub const NAMES: [&str; 5] = ["transformers", "checkpoint", "scaled", "folded", "identity"];

    /// The names of the paper's code for two of them, which are understood too.
    pub const PAPER_NAMES: [(&str, ModelFormat); 2] =
        [("fakeln_checkpoint", ModelFormat::Checkpoint), ("noLN_HF_model", ModelFormat::Scaled)];
}

impl fmt::Display for ModelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for ModelFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        use ModelFormat::*;
        let ours = [Transformers, Checkpoint, Scaled, Folded, Identity].map(|f| (Self::NAMES[f as usize], f));
        let found = ours.into_iter().chain(Self::PAPER_NAMES).find(|(name, _)| name.eq_ignore_ascii_case(s));
        found.map(|(_, format)| format).ok_or_else(|| {
            format!(
                "unknown format {s}; one of {} (fakeln_checkpoint and noLN_HF_model, the paper's names, are checkpoint \
                 and scaled)",
                Self::NAMES.join(", ")
            )
        })
    }
}

/// A model with the state of its LNs.
#[derive(Debug)]
pub struct LoadedModel {
    /// The parameters.
    pub model: Gpt2,
    /// Which LNs are fake.
    pub ln: LnState,
    /// What it was stored as.
    pub format: ModelFormat,
    /// Where it came from.
    pub path: PathBuf,
}

/// How a model is loaded; the default is float32 on the CPU, in the format that the directory says.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// What it is stored as; `None`: the directory says.
    pub format: Option<ModelFormat>,
    /// The type of the parameters.
    pub kind: Kind,
    /// Where they are put.
    pub device: Device,
    /// Load weights with NaN or infinities, to look at them; a warning says which.
    pub allow_non_finite: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { format: None, kind: Kind::Float, device: Device::Cpu, allow_non_finite: false }
    }
}

impl LoadedModel {
    /// Loads a model directory, parameters in `kind` on `device`. Without `format` the directory says what it
    /// is.
    ///
    /// # Errors
    /// As [`LoadedModel::load_with`].
    pub fn load(dir: &Path, format: Option<ModelFormat>, kind: Kind, device: Device) -> Result<LoadedModel> {
        LoadedModel::load_with(dir, LoadOptions { format, kind, device, ..LoadOptions::default() })
    }

    /// Loads a model directory.
    ///
    /// # Errors
    /// Missing, damaged or mismatching files, a directory that is not of the format asked for, and weights
    /// that are not finite, unless they are allowed; the error names the file.
    pub fn load_with(dir: &Path, options: LoadOptions) -> Result<LoadedModel> {
        let config_dir = config_dir(dir)?;
        let mut config = Gpt2Config::read(&config_dir)?;
        let mut weights = read_weights(dir)?;
        let found = detect(&config, &weights);
        let format = options.format.unwrap_or(found);
        // Where LN is there in name, the model is a GPT-2 with LN as far as transformers can tell, and
        // computes the same as one.
        let in_name = matches!(found, ModelFormat::Scaled | ModelFormat::Identity);
        let as_stored = format == ModelFormat::Transformers && in_name;
        if format != found && !as_stored {
            return Err(Error::file(
                dir,
                format!("holds a model of format {found}, not {format}; pass -f {found}"),
            ));
        }
        // Who asks for it by name gets what the file says.
        if options.format != Some(ModelFormat::Transformers) {
            check_not_written_over(&config, &weights, found).map_err(|message| Error::file(dir, message))?;
        }
        check_weights(dir, &weights, &config, options)?;
        if format == ModelFormat::Identity {
            hidden::make_plain(&mut config, &mut weights);
        }
        let (n_layer, device) = (config.n_layer as usize, options.device);
        let ln = match format {
            ModelFormat::Transformers => LnState::plain(n_layer, device),
            ModelFormat::Folded | ModelFormat::Identity => all_fake(n_layer, 1.0, device),
            ModelFormat::Scaled => all_fake(n_layer, config.layer_norm_epsilon.sqrt(), device),
            ModelFormat::Checkpoint => {
                state::read_state(&mut weights, n_layer, settings(&config_dir)?, device)
                    .map_err(|message| Error::file(dir, message))?
            }
        };
        let model =
            Gpt2::from_weights(weights, config, options.kind, device).map_err(|e| Error::file(dir, e))?;
        Ok(LoadedModel { model, ln, format, path: dir.to_path_buf() })
    }

    /// How the model's folder says that texts are to be written.
    ///
    /// # Errors
    /// As [`GenerationConfig::read`].
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        GenerationConfig::read(&config_dir(&self.path)?, &self.model.config)
    }
}

/// The folder with the `config.json` of a model, which may be given by its file of weights.
pub(crate) fn config_dir(dir: &Path) -> Result<PathBuf> {
    if !dir.is_file() {
        return Ok(dir.to_path_buf());
    }
    let beside = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match beside.join("config.json").is_file() {
        true => Ok(beside.to_path_buf()),
        false => Err(Error::file(dir, "is no model: there is no config.json beside it")),
    }
}

/// Refuses shapes that are not those of the config and values that are not finite, and tells of tensors that
/// nothing reads.
fn check_weights(dir: &Path, weights: &Weights, config: &Gpt2Config, options: LoadOptions) -> Result<()> {
    let mut unread = check_shapes(weights, config).map_err(|e| Error::file(dir, e))?;
    unread.retain(|name| !state::is_state(name));
    if let Some(first) = unread.first() {
        let (n, first) = (unread.len(), first.escape_debug());
        warn_once(&Error::file(dir, format!("{n} tensors are not read, the first is `{first}`")).to_string());
    }
    if let (true, Some(head)) = (config.tie_word_embeddings, weights.get("lm_head.weight"))
        && weights.get("wte.weight").is_some_and(|wte| wte.kind() != head.kind() || !wte.equal(head))
    {
        let what = "`lm_head.weight` differs from `wte.weight` and is not read, as config.json ties them";
        warn_once(&Error::file(dir, what).to_string());
    }
    let tied_head = |name: &str| name == "lm_head.weight" && config.tie_word_embeddings;
    let read = weights.iter().filter(|(name, _)| !tied_head(name) && !unread.contains(name));
    match not_finite(read, Some(options.kind))? {
        Some(what) if options.allow_non_finite => {
            warn_once(&Error::file(dir, format!("{what}; read all the same")).to_string());
            Ok(())
        }
        Some(what) => Err(Error::file(
            dir,
            format!(
                "{what}: the file is damaged or the run that wrote it had diverged (--allow-non-finite reads it)"
            ),
        )),
        None => Ok(()),
    }
}

/// What `weights` beside `config` are stored as.
pub(crate) fn detect(config: &Gpt2Config, weights: &Weights) -> ModelFormat {
    if config.is_folded() {
        ModelFormat::Folded
    } else if weights.contains_key("ln_f.is_fake") {
        ModelFormat::Checkpoint
    } else if hidden::is_identity(config, weights) {
        ModelFormat::Identity
    } else if config.layer_norm_epsilon > 1.0 {
        ModelFormat::Scaled
    } else {
        ModelFormat::Transformers
    }
}

/// Every LN fake with the same divisor.
fn all_fake(n_layer: usize, std: f64, device: Device) -> LnState {
    let mut ln = LnState::real(&vec![(std, std); 2 * n_layer + 1], NormSettings::default(), device);
    for block in &mut ln.blocks {
        (block.ln1_qk, block.ln1_v, block.ln2) = (LnMode::Fake, LnMode::Fake, LnMode::Fake);
    }
    ln.lnf = LnMode::Fake;
    ln
}

/// Our own checkpoints say how their standard deviations are followed; the paper's code kept that in the
/// environment.
fn settings(dir: &Path) -> Result<Option<NormSettings>> {
    Ok(run_state::state(dir)?.map(|state| state.config.norm))
}
