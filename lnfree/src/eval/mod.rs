//! Cross-entropy of a model on token data, per token and summarised. An evaluation changes nothing.

mod losses;
mod stats;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

pub use losses::write_losses;
pub use stats::{Summary, quantile};

use crate::Result;
use crate::data::TokenFile;
use crate::hook::NoHook;
use crate::loss::{predicting, targets, token_losses};
use crate::model::{Compute, Gpt2};
use crate::norm::LnState;

/// How an evaluation runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalOptions {
    /// Sequences in one forward.
    pub batch_size: usize,
    /// Sequences evaluated at most.
    pub max_sequences: usize,
    /// Leave out the last batch when it is not full, as the paper's code does.
    pub drop_last: bool,
    /// Type of matrix products and attention.
    pub dtype: Kind,
}

impl Default for EvalOptions {
    fn default() -> Self {
        EvalOptions { batch_size: 8, max_sequences: usize::MAX, drop_last: false, dtype: Kind::Float }
    }
}

/// Per-token cross-entropies in nats, in the order of sequences and positions; end-of-text targets count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLosses {
    /// One loss per predicted token.
    pub losses: Vec<f32>,
    /// Sequences they came from.
    pub n_sequences: usize,
}

/// What `lnfree eval --json` writes: one model on one data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// What tables and figures call the model.
    pub label: String,
    /// The model's path or name.
    pub model: String,
    /// How the model is stored.
    pub format: String,
    /// The data set's name or path.
    pub dataset: String,
    /// Sequences evaluated.
    pub n_sequences: usize,
    /// Tokens predicted.
    pub n_tokens: usize,
    /// Mean, median and ranges of the per-token losses.
    #[serde(flatten)]
    pub summary: Summary,
}

/// Evaluates `model` on `tokens`; `progress` is told how many sequences are done.
///
/// # Errors
/// When the data cannot be read or does not fit the model.
pub fn evaluate(
    model: &Gpt2,
    ln: &LnState,
    tokens: &TokenFile,
    options: EvalOptions,
    mut progress: impl FnMut(usize),
) -> Result<TokenLosses> {
    let _guard = tch::no_grad_guard();
    let batch_size = options.batch_size.max(1);
    let n = tokens.n_sequences().min(options.max_sequences);
    let mut out = TokenLosses::default();
    let mut start = 0;
    while start < n {
        // Only sequences of one length share a batch; data cut into chunks has no others.
        let len = tokens.sequence_len(start)?;
        let limit = (start + batch_size).min(n);
        let mut end = start + 1;
        while end < limit && tokens.sequence_len(end)? == len {
            end += 1;
        }
        let partial = end - start < batch_size;
        if len < 2 || (partial && options.drop_last) {
            start = end;
            continue;
        }
        let rows: Vec<usize> = (start..end).collect();
        let batch = tokens.batch(&rows)?.to_device(model.device());
        out.losses.extend(batch_losses(model, ln, &batch, options.dtype)?);
        out.n_sequences += rows.len();
        start = end;
        progress(out.n_sequences);
    }
    if out.losses.is_empty() {
        return Err(crate::Error::invalid(format!(
            "nothing to evaluate: {n} sequences make no {} of {batch_size} with at least two tokens each",
            if options.drop_last { "full batch" } else { "batch" }
        )));
    }
    Ok(out)
}

/// Losses of one batch, int64 `[batch, pos]`, row by row.
fn batch_losses(model: &Gpt2, ln: &LnState, batch: &Tensor, dtype: Kind) -> Result<Vec<f32>> {
    let compute = Compute { dtype, ..Compute::default() };
    let mut pass = model.pass(batch, ln, compute)?;
    let residual = model.residual(batch, &mut pass, &mut NoHook);
    let last = model.final_norm(&predicting(&residual), &mut pass, &mut NoHook);
    let losses = token_losses(&model.unembed(&last, &pass), &targets(batch, None)).view(-1);
    Ok(Vec::<f32>::try_from(losses.to_device(tch::Device::Cpu))?)
}
