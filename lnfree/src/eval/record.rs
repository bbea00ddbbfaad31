//! What `lnfree eval --json` writes.

use serde::{Deserialize, Serialize};

use super::finite::{number, pair};
use super::{Evaluation, Faithfulness, NotFinite, PositionLoss, Summary, mean_interval, trimmed_mean};
use crate::Result;
use crate::data::{TokenFile, Tokenizer};

/// Sequences shown as the worst.
const WORST: usize = 5;
/// Tokens shown before and after the place where the loss is highest.
const SHOWN: usize = 24;

/// One model on one data set. All losses are in nats per token. Fields that older versions did not write are
/// empty or zero when such a file is read. With a token whose loss is not finite, `not_finite` is there, and
/// figures of all tokens are NaN: null in JSON, which is read back as NaN.
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
    /// Tokens without a finite loss, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_finite: Option<NotFinite>,
    /// Mean, median and ranges of the per-token losses.
    #[serde(flatten)]
    pub summary: Summary,
    /// 95% bootstrap interval of the mean, over sequences.
    #[serde(default, deserialize_with = "pair")]
    pub mean_interval: [f64; 2],
    /// Mean without the 1% of sequences at either end.
    #[serde(default, deserialize_with = "number")]
    pub trimmed_mean: f64,
    /// Mean entropy of the predictions.
    #[serde(default, deserialize_with = "number")]
    pub entropy: f64,
    /// Expected calibration error, 15 bins.
    #[serde(default, deserialize_with = "number")]
    pub calibration_error: f64,
    /// Share of tokens that were the most likely ones.
    #[serde(default, deserialize_with = "number")]
    pub accuracy: f64,
    /// Mean loss by position.
    #[serde(default)]
    pub by_position: Vec<PositionLoss>,
    /// How far its predictions lie from another model's, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faithfulness: Option<Faithfulness>,
    /// The sequences with the highest mean loss.
    #[serde(default)]
    pub worst: Vec<WorstSequence>,
    /// How and where it was computed.
    #[serde(flatten)]
    pub run: RunFacts,
}

/// How and where an evaluation was computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// What matrix products were computed in: `float32`, `tf32` or `bfloat16`.
    pub dtype: String,
    /// The device, in words.
    pub device: String,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Sequences that were asked for.
    pub max_sequences: usize,
    /// Whether a last batch that was not full was left out.
    pub drop_last: bool,
    /// Fingerprint of the token file.
    pub data_sha256: String,
    /// Time of the evaluation itself.
    pub seconds: f64,
    /// Tokens read per second.
    #[serde(deserialize_with = "number")]
    pub tokens_per_s: f64,
    /// The most memory held at once, in bytes: of the process, or of the GPU's tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// A sequence on which the model did badly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstSequence {
    /// Its number in the token file, from 0.
    pub sequence: usize,
    /// Its mean loss.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
    /// The highest loss of one of its tokens, or the first that is not finite.
    #[serde(default, deserialize_with = "number")]
    pub peak: f64,
    /// The position from which that token was predicted.
    #[serde(default)]
    pub peak_position: usize,
    /// Its text around that place, where the tokenizer is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl EvalRecord {
    /// The record of an evaluation of `tokens`; texts are decoded where there is a tokenizer.
    ///
    /// # Errors
    /// When a sequence cannot be read again.
    pub fn new(
        label: String,
        (model, format, dataset): (String, String, String),
        evaluation: &Evaluation,
        tokens: &TokenFile,
        tokenizer: Option<&Tokenizer>,
        run: RunFacts,
    ) -> Result<EvalRecord> {
        Ok(EvalRecord {
            label,
            model,
            format,
            dataset,
            n_sequences: evaluation.sequences.len(),
            n_tokens: evaluation.losses.len(),
            not_finite: evaluation.not_finite(),
            summary: Summary::new(&evaluation.losses),
            mean_interval: mean_interval(&evaluation.sequences),
            trimmed_mean: trimmed_mean(&evaluation.sequences),
            entropy: evaluation.entropy,
            calibration_error: evaluation.calibration_error(),
            accuracy: evaluation.accuracy,
            by_position: evaluation.by_position(),
            faithfulness: None,
            worst: worst(evaluation, tokens, tokenizer)?,
            run,
        })
    }
}

fn worst(
    evaluation: &Evaluation,
    tokens: &TokenFile,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<WorstSequence>> {
    let mut out = Vec::new();
    for found in evaluation.worst(WORST) {
        let (peak_position, peak) = evaluation.peak(found.sequence).unwrap_or_default();
        let text = match tokenizer {
            None => None,
            Some(tokenizer) => {
                let ids = tokens.row(found.sequence)?;
                let from = peak_position.saturating_sub(SHOWN);
                let shown = ids.iter().skip(from).take(2 * SHOWN + 2).map(|id| *id as u32);
                tokenizer.decode(&shown.collect::<Vec<u32>>()).ok()
            }
        };
        out.push(WorstSequence {
            sequence: found.sequence,
            mean: found.loss,
            peak: f64::from(peak),
            peak_position,
            text,
        });
    }
    Ok(out)
}
