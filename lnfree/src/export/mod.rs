//! LN-free models for others: `scaled` (the paper's format, LN hidden) and `folded` (no LN left), each proved
//! by loading it back and comparing logits before it takes its place.

mod card;
mod folded;
mod generation;
mod scaled;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use tch::{Device, Kind, Tensor};

use crate::base::atomic::write_dir_atomic;
use crate::config::norm::{LnSite, ln_names};
use crate::data::tokenizer::copy_tokenizer;
use crate::model::hook::NoHook;
use crate::model::ln_state::LnState;
use crate::model::names::{hf_names, metadata};
use crate::model::weights::write_safetensors;
use crate::model::{Compute, Gpt2, LoadedModel, ModelFormat};
use crate::{Error, Result};

pub use card::CardFacts;
pub use folded::fold;
pub use scaled::scale;

/// Root mean square of the logit differences, relative to that of the logits, above which an export is
/// refused. Folding in float64 leaves float32 rounding, some 1e-6.
const TOLERANCE: f64 = 1e-4;

/// A format to export to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// LN kept with ε = 1e12 and weights × 1e6/σ̄: what the paper's released models are.
    Scaled,
    /// No LN at all.
    Folded,
}

impl FromStr for ExportFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "scaled" => Ok(ExportFormat::Scaled),
            "folded" => Ok(ExportFormat::Folded),
            _ => Err(format!("unknown export format {s}; one of scaled, folded")),
        }
    }
}

/// How far the reloaded export is from the model it was made of, on random tokens in float32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proof {
    /// Largest absolute difference of a logit.
    pub max_abs: f64,
    /// Root mean square of the differences over that of the logits.
    pub relative_rms: f64,
    /// Logits compared.
    pub n_logits: usize,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proof { max_abs, relative_rms, n_logits } = self;
        write!(
            f,
            "{n_logits} logits equal the checkpoint's: relative RMS difference {relative_rms:.1e}, largest {max_abs:.1e}"
        )
    }
}

/// What fake LNs divide by, one number per LN in the order of [`ln_names`].
///
/// # Errors
/// When an LN is still real, or, unless `ignore_special`, when position 0 or end-of-text tokens still have a
/// divisor of their own, which no constant matrix can express. Names the LN.
pub fn constant_stds(ln: &LnState, ignore_special: bool) -> Result<Vec<f64>> {
    let n_layer = ln.n_layer();
    let sites = (0..n_layer).flat_map(|l| [LnSite::Ln1Qk(l), LnSite::Ln1V(l), LnSite::Ln2(l)]);
    if let Some(site) = sites.chain([LnSite::LnF]).find(|&site| !ln.mode(site).is_fake()) {
        return Err(Error::invalid(format!(
            "{site} is still a real LayerNorm; export a checkpoint from after the last removal"
        )));
    }
    let frozen = ln.statistics.frozen.to_device(Device::Cpu).to_kind(Kind::Double);
    ln_names(n_layer)
        .iter()
        .enumerate()
        .map(|(row, name)| {
            let columns = Vec::<f64>::try_from(frozen.get(row as i64))?;
            let special = ln.is_special(row) && columns.iter().any(|&c| c != columns[0]);
            if special && !ignore_special {
                return Err(Error::invalid(format!(
                    "{name} still divides position 0 by {:.4} and others by {:.4}; pass --ignore-special to use the latter \
                     everywhere",
                    columns[1], columns[0]
                )));
            }
            Ok(columns[0])
        })
        .collect()
}

/// Exports a model without LN into the folder `out`, which must not hold anything else.
///
/// # Errors
/// As [`constant_stds`]; when the reloaded export disagrees with the model; when `out` cannot be written.
pub fn export(
    source: &LoadedModel,
    format: ExportFormat,
    out: impl AsRef<Path>,
    ignore_special: bool,
    facts: &CardFacts,
) -> Result<Proof> {
    let out = out.as_ref();
    if out.exists() && !out.join("config.json").is_file() && !is_empty(out)? {
        return Err(Error::file(out, "exists and holds no exported model; choose another --out"));
    }
    let stds = constant_stds(&source.ln, ignore_special)?;
    let exported = match format {
        ExportFormat::Scaled => scale(&source.model, &stds)?,
        ExportFormat::Folded => fold(&source.model, &stds)?,
    };
    let mut proof = Proof { max_abs: f64::NAN, relative_rms: f64::NAN, n_logits: 0 };
    write_dir_atomic(out, |dir| {
        let header = header(facts);
        write_safetensors(&dir.join("model.safetensors"), &hf_names(exported.to_weights()), &header)?;
        exported.config.stored_as(exported.wte.kind()).write(dir)?;
        copy_tokenizer(&source.path, dir)?;
        generation::write(&exported.config, dir)?;
        let stored = match format {
            ExportFormat::Scaled => ModelFormat::NoLnHfModel,
            ExportFormat::Folded => ModelFormat::Folded,
        };
        let reloaded = LoadedModel::load(dir, Some(stored), Kind::Float, source.model.device())?;
        proof = compare((&source.model, &uniform(&source.ln, &stds)), (&reloaded.model, &reloaded.ln))?;
        if proof.relative_rms.is_nan() || proof.relative_rms > TOLERANCE {
            return Err(Error::invalid(format!(
                "the exported model's logits differ from the checkpoint's by {:.2e} (relative RMS), more than {TOLERANCE:.0e}",
                proof.relative_rms
            )));
        }
        card::write_card(&exported, format, &stds, &proof, facts, dir)
    })?;
    Ok(proof)
}

/// The key under which the header of an export's weights says after how many steps of fine-tuning they are.
pub(crate) const STEPS: &str = "fine_tuning_steps";

fn header(facts: &CardFacts) -> BTreeMap<String, String> {
    let steps = (facts.steps > 0).then(|| (STEPS.to_string(), facts.steps.to_string()));
    metadata().into_iter().chain(steps).collect()
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(std::fs::read_dir(dir).map_err(Error::io(dir))?.next().is_none())
}

/// The state that an export stands for: one constant per LN, whatever was special put aside.
fn uniform(ln: &LnState, stds: &[f64]) -> LnState {
    let out = ln.copy();
    let column: Vec<f32> = stds.iter().map(|&s| s as f32).collect();
    let column = Tensor::from_slice(&column).view([-1, 1]).to_device(ln.statistics.frozen.device());
    let mut frozen = out.statistics.frozen.shallow_clone();
    frozen.copy_(&column.expand_as(&frozen));
    out
}

/// Compares the logits of two models, each with its LN state, on the same random tokens in float32.
///
/// # Errors
/// When the models do not take the same input.
pub fn compare(a: (&Gpt2, &LnState), b: (&Gpt2, &LnState)) -> Result<Proof> {
    let _guard = tch::no_grad_guard();
    let config = &a.0.config;
    let pos = config.block_size.min(256);
    // Multiples of a prime spread over the vocabulary: the same tokens every time, without touching the
    // global generator.
    let ids: Vec<i64> = (0..2 * pos).map(|i| (i * 7919 + 13) % config.vocab_size).collect();
    let ids = Tensor::from_slice(&ids).view([2, pos]).to_device(a.0.device());
    let logits = |(model, ln): (&Gpt2, &LnState)| model.forward(&ids, ln, Compute::default(), &mut NoHook);
    let (x, y) = (logits(a)?.to_kind(Kind::Double), logits(b)?.to_kind(Kind::Double));
    let difference = &x - &y;
    let rms = |t: &Tensor| t.square().mean(Kind::Double).sqrt().double_value(&[]);
    Ok(Proof {
        max_abs: difference.abs().max().double_value(&[]),
        relative_rms: rms(&difference) / rms(&x),
        n_logits: x.numel(),
    })
}
