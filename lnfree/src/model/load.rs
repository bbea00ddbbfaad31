//! Models from disk in each of the four formats.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tch::{Device, Kind};

use super::weights::{Weights, read_weights};
use super::{Gpt2, Gpt2Config};
use crate::data::DatasetOptions;
use crate::norm::{LnMode, LnState, NormSettings, SpecialAxis, ln_names};
use crate::{Error, Result};

/// Tokens of GPT-2's vocabulary, whose tokenizer is known without asking the model.
pub const GPT2_VOCAB: i64 = 50257;

/// How data sets are prepared for a model in this folder: with GPT-2's tokenizer if it has GPT-2's vocabulary, else with its own.
pub fn dataset_options(dir: &Path, block_size: usize) -> DatasetOptions {
    let is_gpt2 = Gpt2Config::read(dir).is_ok_and(|config| config.vocab_size == GPT2_VOCAB);
    let tokenizer = (!is_gpt2).then(|| dir.to_string_lossy().into_owned());
    DatasetOptions { tokenizer, ..DatasetOptions::new(block_size) }
}

/// How a model directory stores what became of its LNs. The names are the paper's code's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFormat {
    /// An ordinary GPT-2 with LN.
    Transformers,
    /// A training checkpoint with the state of every LN beside the weights.
    FakelnCheckpoint,
    /// LN kept but hidden: ε = 1e12 and weights × 1e6/σ̄.
    NoLnHfModel,
    /// No LN at all: everything folded into the matrices.
    Folded,
}

impl ModelFormat {
    /// The names that `-f` takes.
    pub const NAMES: [&str; 4] = ["transformers", "fakeln_checkpoint", "noLN_HF_model", "folded"];
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
        [Transformers, FakelnCheckpoint, NoLnHfModel, Folded]
            .into_iter()
            .find(|f| Self::NAMES[*f as usize].eq_ignore_ascii_case(s))
            .ok_or_else(|| format!("unknown format {s}; one of {}", Self::NAMES.join(", ")))
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

impl LoadedModel {
    /// Loads a model directory, parameters in `kind` on `device`. Without `format` the directory says what it is.
    ///
    /// # Errors
    /// Missing, damaged or mismatching files, and a directory that is not of the format asked for; the error names the file.
    pub fn load(dir: &Path, format: Option<ModelFormat>, kind: Kind, device: Device) -> Result<LoadedModel> {
        let beside = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let config_dir = if dir.is_file() { beside } else { dir };
        if dir.is_file() && !beside.join("config.json").is_file() {
            return Err(Error::file(dir, "is no model: there is no config.json beside it"));
        }
        let config = Gpt2Config::read(config_dir)?;
        let mut weights = read_weights(dir)?;
        let found = detect(&config, &weights);
        let format = format.unwrap_or(found);
        // A scaled model is a GPT-2 with LN as far as transformers can tell, and computes the same as one.
        let as_stored = (format, found) == (ModelFormat::Transformers, ModelFormat::NoLnHfModel);
        if format != found && !as_stored {
            return Err(Error::file(
                dir,
                format!("holds a model of format {found}, not {format}; pass -f {found}"),
            ));
        }
        let n_layer = config.n_layer as usize;
        let ln = match format {
            ModelFormat::Transformers => LnState::plain(n_layer, device),
            ModelFormat::Folded => all_fake(n_layer, 1.0, device),
            ModelFormat::NoLnHfModel => all_fake(n_layer, config.layer_norm_epsilon.sqrt(), device),
            ModelFormat::FakelnCheckpoint => read_state(&mut weights, n_layer, settings(config_dir)?, device)
                .map_err(|message| Error::file(dir, message))?,
        };
        let model = Gpt2::from_weights(weights, config, kind, device).map_err(|e| Error::file(dir, e))?;
        Ok(LoadedModel { model, ln, format, path: dir.to_path_buf() })
    }
}

fn detect(config: &Gpt2Config, weights: &Weights) -> ModelFormat {
    if config.is_folded() {
        ModelFormat::Folded
    } else if weights.contains_key("ln_f.is_fake") {
        ModelFormat::FakelnCheckpoint
    } else if config.layer_norm_epsilon > 1.0 {
        ModelFormat::NoLnHfModel
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

/// Our own checkpoints say how their standard deviations are followed; the paper's code kept that in the environment.
fn settings(dir: &Path) -> Result<Option<NormSettings>> {
    crate::checkpoint::norm_settings(dir)
}

/// Reads the LN state under the names that the paper's checkpoints use, and takes it out of `weights`.
fn read_state(
    weights: &mut Weights,
    n_layer: usize,
    settings: Option<NormSettings>,
    device: Device,
) -> Result<LnState, String> {
    let names = ln_names(n_layer);
    let mut numbers = Vec::new();
    let mut flags = Vec::new();
    let mut momentum = 0.9;
    for name in &names {
        let take = |field: &str, index: i64| -> Result<f64, String> {
            let key = format!("{name}.{field}");
            let tensor = weights.get(&key).ok_or_else(|| format!("the LN state has no {key}"))?;
            // A view of a torch file may lie in memory in any order.
            let flat = tensor.to_kind(Kind::Double).reshape(-1);
            if flat.size()[0] == 0 {
                return Err(format!("{key} is empty"));
            }
            Ok(flat.double_value(&[index.min(flat.size()[0] - 1)]))
        };
        let is = |x: f64| if x != 0.0 { LnMode::Fake } else { LnMode::Real };
        flags.push((
            is(take("is_fake", 0)?),
            is(take("attn_v_is_fake", 0)?),
            take("bos_special_treatment", 0)? != 0.0,
        ));
        momentum = take("momentum", 0)?;
        let running = (take("real_average_std", 0)?, take("real_bos_std", 0)?);
        let frozen = [
            take("average_std_buffer", 1)?,
            take("average_std_buffer", 0)?,
            take("bos_std_buffer", 1)?,
            take("bos_std_buffer", 0)?,
        ];
        if !frozen.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(format!("{name} has a standard deviation that is not a positive number"));
        }
        numbers.push((running, frozen));
    }
    weights.retain(|key, _| !STATE_FIELDS.iter().any(|field| key.ends_with(field)));
    let special_std = flags.last().is_some_and(|f| f.2);
    let settings = settings.unwrap_or(NormSettings {
        momentum,
        special_std,
        special_axis: SpecialAxis::Position,
        ..NormSettings::default()
    });
    let initial: Vec<(f64, f64)> = numbers.iter().map(|n| n.0).collect();
    let mut ln = LnState::real(&initial, settings, device);
    for (block, row) in ln.blocks.iter_mut().zip(flags.chunks(2)) {
        (block.ln1_qk, block.ln1_v, block.ln1_special) = row[0];
        block.ln2 = row[1].0;
    }
    ln.lnf = flags[2 * n_layer].0;
    let frozen: Vec<f32> = numbers.iter().flat_map(|n| n.1.map(|x| x as f32)).collect();
    ln.statistics.frozen = tch::Tensor::from_slice(&frozen).view([-1, 4]).to_device(device);
    Ok(ln)
}

/// What a checkpoint stores per LN beside weight and bias.
const STATE_FIELDS: [&str; 9] = [
    ".is_fake",
    ".attn_v_is_fake",
    ".bos_special_treatment",
    ".grad_acc_steps",
    ".momentum",
    ".real_average_std",
    ".real_bos_std",
    ".average_std_buffer",
    ".bos_std_buffer",
];

/// The LN state as tensors under the names that the paper's checkpoints use, so that one reader serves both.
pub fn state_tensors(ln: &LnState, block_size: i64, n_embd: i64) -> Weights {
    let _guard = tch::no_grad_guard();
    let running = ln.statistics.running.to_device(Device::Cpu);
    let frozen = ln.statistics.frozen.to_device(Device::Cpu);
    let len = match ln.settings.special_axis {
        SpecialAxis::Position => block_size,
        SpecialAxis::Feature => n_embd,
    };
    let flag = |on: bool| tch::Tensor::from(on);
    let buffer = |row: &tch::Tensor, base: i64| {
        let rest = row.get(base).expand([len - 1], false);
        tch::Tensor::cat(&[row.get(base + 1).view(1), rest], 0)
    };
    let mut out = Weights::new();
    for (row, name) in ln_names(ln.n_layer()).into_iter().enumerate() {
        let block = ln.blocks.get(row / 2);
        let (is_fake, v_fake, special) = match (block, row % 2) {
            (Some(b), 0) => (b.ln1_qk.is_fake(), b.ln1_v.is_fake(), b.ln1_special),
            (Some(b), _) => (b.ln2.is_fake(), false, ln.settings.special_std),
            (None, _) => (ln.lnf.is_fake(), false, ln.settings.special_std),
        };
        let (run, froze) = (running.get(row as i64), frozen.get(row as i64));
        let mut put = |field: &str, tensor: tch::Tensor| out.insert(format!("{name}{field}"), tensor);
        put(".is_fake", flag(is_fake));
        put(".attn_v_is_fake", flag(v_fake));
        put(".bos_special_treatment", flag(special));
        put(".grad_acc_steps", tch::Tensor::from(1i64));
        put(".momentum", tch::Tensor::from(ln.settings.momentum as f32));
        put(".real_average_std", run.get(0).copy());
        put(".real_bos_std", run.get(1).copy());
        put(".average_std_buffer", buffer(&froze, 0));
        put(".bos_std_buffer", buffer(&froze, 2));
    }
    out
}
