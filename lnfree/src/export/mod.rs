//! LN-free models for others: `identity` (LNs that change nothing, for every library's plain code), `folded`
//! (no LN left) and `scaled` (the paper's format, LN hidden), each proved by loading it back and comparing it
//! with the model it was made of before it takes its place.

mod card;
mod facts;
mod folded;
mod generation;
mod header;
mod identity;
mod proof;
mod scaled;
mod tokenizer;
mod usage;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use tch::{Device, Kind, Tensor};

use crate::base::atomic::write_dir_atomic;
use crate::config::norm::{LnSite, ln_names};
use crate::model::ln_state::LnState;
use crate::model::names::hf_names;
use crate::model::weights::write_safetensors;
use crate::model::{LoadedModel, ModelFormat};
use crate::{Error, Result};

pub use facts::CardFacts;
pub use folded::fold;
#[cfg(all(test, feature = "study"))]
pub(crate) use header::STEPS;
pub(crate) use header::steps_in_header;
pub use identity::{EPSILON, GAMMA, epsilon_error, identity};
pub use proof::{Proof, compare};
pub use scaled::scale;
pub use tokenizer::has_tokenizer;

/// Relative differences above which an export is refused: of logits, of the logit lens and of direct logit
/// attribution. Folding in float64 leaves float32 rounding, some 1e-6.
const TOLERANCE: f64 = 1e-4;

/// What ε may take of the largest residual stream in the format `identity`. It is less than what bfloat16
/// rounds away, 4e-3, by far, and as much as an export may differ; a variance of 2·10⁵ comes to it.
const EPSILON_TOLERANCE: f64 = 1e-4;

/// A format to export to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// `identity`: LNs that are the identity but for ln_f's shift, which every library's plain code computes.
    #[default]
    Identity,
    /// `folded`: no LN at all; ln_f's shift is in the last MLP's bias.
    Folded,
    /// `scaled`: LN kept with ε = 1e12 and weights × 1e6/σ̄, what the paper's released models are.
    Scaled,
}

impl ExportFormat {
    /// What the export is to those who load it; the names of both are the same.
    pub fn stored(self) -> ModelFormat {
        match self {
            ExportFormat::Identity => ModelFormat::Identity,
            ExportFormat::Folded => ModelFormat::Folded,
            ExportFormat::Scaled => ModelFormat::Scaled,
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.stored(), f)
    }
}

impl FromStr for ExportFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let formats = [ExportFormat::Identity, ExportFormat::Folded, ExportFormat::Scaled];
        let wanted = s.parse::<ModelFormat>().ok();
        formats
            .into_iter()
            .find(|format| Some(format.stored()) == wanted)
            .ok_or_else(|| format!("unknown export format {s}; one of identity, folded, scaled"))
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

/// Exports a model without LN into the folder `out`, which must not hold anything else: weights, config,
/// tokenizer, generation settings and a card.
///
/// # Errors
/// As [`constant_stds`]; when the reloaded export disagrees with the model, or its residual stream is too
/// large for identity LNs; when `out` cannot be written.
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
        ExportFormat::Identity => identity(&source.model, &stds)?,
        ExportFormat::Folded => fold(&source.model, &stds)?,
        ExportFormat::Scaled => scale(&source.model, &stds)?,
    };
    let mut proof = None;
    write_dir_atomic(out, |dir| {
        let weights = hf_names(exported.to_weights());
        write_safetensors(&dir.join("model.safetensors"), &weights, &header::header(facts.steps))?;
        exported.config.stored_as(exported.wte.kind()).write(dir)?;
        tokenizer::add_tokenizer(source, facts, dir)?;
        generation::write(&exported.config, dir)?;
        let reloaded = reload(dir, format, source.model.device())?;
        let found = compare((&source.model, &uniform(&source.ln, &stds)), (&reloaded.model, &reloaded.ln))?;
        check(&found, format, source)?;
        proof = Some(found);
        let name = name_of(facts, out);
        let about = card::About { name: &name, format, source, stds: &stds, proof: &found };
        card::write_card(&exported, &about, facts, dir)
    })?;
    proof.ok_or_else(|| Error::file(out, "was not compared"))
}

/// The export as programs load it that know nothing of its LNs; lnfree has to know it for what it is, too.
fn reload(dir: &Path, format: ExportFormat, device: Device) -> Result<LoadedModel> {
    let stored = format.stored();
    let reloaded = LoadedModel::load(dir, Some(stored), Kind::Float, device)?;
    match format {
        ExportFormat::Folded => Ok(reloaded),
        _ => LoadedModel::load(dir, Some(ModelFormat::Transformers), Kind::Float, device),
    }
}

/// Refuses an export that is not what its source is.
fn check(proof: &Proof, format: ExportFormat, source: &LoadedModel) -> Result<()> {
    if proof.epsilon_error > EPSILON_TOLERANCE {
        return Err(Error::invalid(format!(
            "the residual stream has a variance of {:.2e}, of which the ε of {format} LNs would take {:.1e}, more than \
             {EPSILON_TOLERANCE:.0e}; export --format folded",
            proof.variance, proof.epsilon_error
        )));
    }
    // ln_f's shift makes a folded model's insides others than those of the model it is made of.
    let has_shift_inside = format == ExportFormat::Folded || source.format == ModelFormat::Folded;
    let inside = [("logit lens", proof.lens), ("direct logit attribution", proof.attribution)];
    let inside = inside.into_iter().filter(|_| !has_shift_inside);
    for (what, difference) in [("logits", proof.relative_rms)].into_iter().chain(inside) {
        if difference.is_nan() || difference > TOLERANCE {
            return Err(Error::invalid(format!(
                "the exported model's {what} lies {difference:.2e} (relative RMS) from the source's, more than \
                 {TOLERANCE:.0e}"
            )));
        }
    }
    Ok(())
}

/// The title of the card.
fn name_of(facts: &CardFacts, out: &Path) -> String {
    match facts.name.is_empty() {
        true => out.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned()),
        false => facts.name.clone(),
    }
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
