//! The card of an exported model.

use std::fmt::Write as _;
use std::path::Path;

use super::identity::EPSILON;
use super::tokenizer::has_tokenizer;
use super::usage::usage;
use super::{CardFacts, ExportFormat, Proof};
use crate::config::norm::ln_names;
use crate::eval::EvalRecord;
use crate::hub::full_name;
use crate::model::{Gpt2, LoadedModel, ModelFormat};
use crate::{Error, Result};

/// An export that is to be described.
pub(super) struct About<'a> {
    /// Title of the card.
    pub name: &'a str,
    /// What it is stored as.
    pub format: ExportFormat,
    /// What it was made of.
    pub source: &'a LoadedModel,
    /// σ̄ in the order of [`ln_names`].
    pub stds: &'a [f64],
    /// How far it is from its source.
    pub proof: &'a Proof,
}

/// Writes `README.md`, the model card.
pub(super) fn write_card(model: &Gpt2, about: &About, facts: &CardFacts, dir: &Path) -> Result<()> {
    let config = &model.config;
    let mut text =
        format!("{}# {}: GPT-2 without LayerNorm ({})\n\n", front_matter(facts), about.name, about.format);
    let tokenizer = if has_tokenizer(dir) { "" } else { " No tokenizer is known that fits it." };
    let _ = writeln!(
        text,
        "{}\n\n{} blocks, {} heads, n_embd {}, {} positions, {} tokens, {} parameters.{tokenizer}\n\n{}",
        origin(about, facts),
        config.n_layer,
        config.n_head,
        config.n_embd,
        config.block_size,
        config.vocab_size,
        model.n_parameters(),
        usage(about.format, config, about.proof, facts)
    );
    text += &checked(about);
    text += &constants(about);
    text += &evaluations(&facts.evaluations);
    let path = dir.join("README.md");
    std::fs::write(&path, text).map_err(Error::io(&path))
}

/// Where the model comes from, as far as it is known.
fn origin(about: &About, facts: &CardFacts) -> String {
    let mut text =
        format!("Made by [lnfree](https://arxiv.org/abs/2507.02559) {}", env!("CARGO_PKG_VERSION"));
    if let Some(from) = &facts.converted_from {
        let _ = write!(text, " of `{from}`, which is the same model in the format `{}`", about.source.format);
    }
    text += ": its LayerNorms were taken out by fine-tuning";
    if !facts.base_model.is_empty() {
        let _ = write!(text, " `{}`", facts.base_model);
    }
    if facts.steps > 0 {
        let _ = write!(text, " for {} steps", facts.steps);
    }
    if !facts.data.is_empty() {
        let _ = write!(text, " on {}", facts.data);
    }
    text += ", one at a time.";
    if about.source.format == ModelFormat::Folded && about.format == ExportFormat::Identity {
        text += " ln_f's shift stood in the last MLP's bias there and could not be told from it: that MLP's direct logit \
                 attribution has it still.";
    }
    text
}

/// What the comparison with the source came to.
fn checked(about: &About) -> String {
    let Proof { max_abs, relative_rms, n_logits, lens, attribution, variance, epsilon_error } = about.proof;
    let mut text = format!(
        "## Check\n\nAgainst the model that it was made of, float32: {n_logits} logits, largest difference {max_abs:.1e}, relative \
         RMS {relative_rms:.1e}; logit lens behind every block, relative RMS up to {lens:.1e}; direct logit attribution of every \
         component, up to {attribution:.1e} of the largest.\n\n"
    );
    if about.format == ExportFormat::Identity {
        let _ = write!(
            text,
            "The largest variance of the residual stream there was {variance:.3e}: of such a stream the LNs' ε of {EPSILON:.0} takes \
             {epsilon_error:.1e}, 1 − 1/sqrt(1 + var/ε).\n\n"
        );
    }
    text
}

/// σ̄ of every LN; of a model that was converted they are in its weights and not known any more.
fn constants(about: &About) -> String {
    if about.source.format != ModelFormat::Checkpoint {
        return String::new();
    }
    let mut text =
        "## Constants that took the place of each standard deviation\n\n| LN | σ |\n|---|---|\n".to_string();
    for (name, std) in ln_names(about.source.model.h.len()).iter().zip(about.stds) {
        let _ = writeln!(text, "| {name} | {std:.6} |");
    }
    text
}

/// A table of losses, and one of distances where they were measured; empty without evaluations.
fn evaluations(records: &[EvalRecord]) -> String {
    let mut text = String::new();
    if !records.is_empty() {
        text += "\n## Evaluation\n\nCross-entropy in nats per token with its 95% interval over sequences, and expected calibration error.\n\n\
                 | data | sequences | loss | 95% interval | calibration error |\n|---|---:|---:|---:|---:|\n";
    }
    for record in records {
        let ([low, high], name) = (record.mean_interval, &record.dataset);
        let (n, mean, error) = (record.n_sequences, record.summary.mean, record.calibration_error);
        let _ = writeln!(text, "| {name} | {n} | {mean:.4} | {low:.4} to {high:.4} | {error:.4} |");
    }
    let mut distances =
        records.iter().filter_map(|r| Some((&r.dataset, r.faithfulness.as_ref()?))).peekable();
    if distances.peek().is_some() {
        text += "\nHow far its predictions lie from another model's: KL(that ‖ this) and Jensen–Shannon divergence in nats per token, \
                 with 95% intervals, and the share of tokens on which both find the same most likely.\n\n\
                 | data | from | KL | JSD | same top token |\n|---|---|---:|---:|---:|\n";
    }
    for (name, found) in distances {
        let ([kl_low, kl_high], [jsd_low, jsd_high]) = (found.kl_interval, found.jsd_interval);
        let _ = writeln!(
            text,
            "| {name} | {} | {:.4} ({kl_low:.4} to {kl_high:.4}) | {:.4} ({jsd_low:.4} to {jsd_high:.4}) | {:.1}% |",
            found.reference,
            found.kl,
            found.jsd,
            100.0 * found.agreement
        );
    }
    text
}

/// What the hub reads of a card.
fn front_matter(facts: &CardFacts) -> String {
    // It refuses a card whose base model it does not know.
    let base = full_name(&facts.base_model).map_or_else(String::new, |id| format!("base_model: {id}\n"));
    format!("---\nlibrary_name: transformers\ntags: [gpt2, lnfree, interpretability]\n{base}---\n\n")
}
