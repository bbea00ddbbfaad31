//! What the figures are drawn from: plain data, filled by [`crate::study::report`] from files or by hand in a
//! notebook.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::schedule::Removal;
use crate::eval::{Faithfulness, NotFinite, number as or_nan, some_pair};

/// Everything one run logged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunMetrics {
    /// Short name for legends and headings, by default the run directory's own.
    pub name: String,
    /// What was run.
    pub info: RunInfo,
    /// The resolved config, TOML text.
    pub config: String,
    /// Optimizer steps in ascending order of `step`; at least one.
    pub steps: Vec<Step>,
    /// Running average σ of every LN, in the order of [`LnName`].
    pub stds: BTreeMap<LnName, Vec<(usize, f64)>>,
    /// What was removed when, in ascending order of step.
    pub removals: Vec<Removal>,
    /// Evaluations during the run: step and mean cross-entropy in nats per token.
    pub evals: Vec<(usize, f64)>,
}

/// The content of `run.json`.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
pub struct RunInfo {
    /// `without_ln` (LN removal), `with_ln` (the vanilla control) or `pretrain`.
    pub mode: String,
    /// The model that the run started from: a name or a path.
    #[serde(default)]
    pub model: String,
    /// When it started, as the run wrote it.
    #[serde(default)]
    pub started: String,
    /// The version of lnfree that ran.
    #[serde(default)]
    pub lnfree: String,
    /// `cpu` or `cuda:N`.
    #[serde(default)]
    pub device: String,
}

/// One optimizer step; what a run did not log is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// 0-based.
    pub step: usize,
    /// Cross-entropy plus the weighted auxiliary loss.
    pub loss: f64,
    /// Cross-entropy, nats per token.
    pub ce_loss: f64,
    /// The auxiliary loss as it enters `loss`.
    pub aux_loss: f64,
    /// KL(teacher ‖ model) of a run that learns from a teacher, nats per token.
    pub kl_loss: f64,
    /// Learning rate used for this step.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Throughput in tokens per second.
    pub tokens_per_s: f64,
}

impl Step {
    /// The cross-entropy where it was logged apart from the auxiliary loss, else the whole loss.
    pub fn cross_entropy(&self) -> f64 {
        if self.ce_loss.is_nan() { self.loss } else { self.ce_loss }
    }
}

/// A LayerNorm by its Hugging Face name, ordered as in the model: `h.0.ln_1`, `h.0.ln_2`, `h.1.ln_1`, …,
/// `ln_f`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LnName(pub String);

impl LnName {
    /// The block it belongs to; `None` for `ln_f` and for names of another shape.
    pub fn layer(&self) -> Option<usize> {
        self.0.strip_prefix("h.")?.split_once('.')?.0.parse().ok()
    }

    /// Whether this is a block's `ln_1`, or one of its faces.
    pub fn is_ln_1(&self) -> bool {
        self.layer().is_some() && self.0.contains(".ln_1")
    }
}

impl Ord for LnName {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |n: &Self| n.layer().unwrap_or(usize::MAX);
        key(self).cmp(&key(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for LnName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for LnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One evaluation of one model on one data set, as `lnfree eval --json` writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EvalRow {
    /// What to call the model; where it is absent, the name is made from `model` and `format`.
    pub label: Option<String>,
    /// Path or hub name.
    pub model: String,
    /// `transformers`, `checkpoint`, `scaled`, `folded` or `identity`.
    pub format: String,
    /// Data set name or path.
    pub dataset: String,
    /// Sequences evaluated.
    pub n_sequences: Option<u64>,
    /// Tokens evaluated.
    pub n_tokens: Option<u64>,
    /// Mean cross-entropy, nats per token; NaN where the evaluation gave none.
    pub mean: f64,
    /// Median over tokens; NaN where absent.
    pub median: f64,
    /// Central ranges of the loss over tokens: percentage and `[low, high]`, ascending.
    pub ranges: Vec<(String, [f64; 2])>,
    /// What else the file says; older files say less.
    #[serde(flatten)]
    pub details: EvalDetails,
    /// The losses of its sequences (Arrow), for paired differences; `None` where there is no such file.
    pub sequences: Option<PathBuf>,
}

/// What an evaluation says beyond mean and ranges; `None` or empty where its file does not say it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalDetails {
    /// Tokens without a finite loss.
    pub not_finite: Option<NotFinite>,
    /// Bootstrap 95% interval of the mean over sequences.
    #[serde(deserialize_with = "some_pair")]
    pub mean_interval: Option<[f64; 2]>,
    /// Mean without the highest losses.
    pub trimmed_mean: Option<f64>,
    /// Mean entropy of the predictions, nats.
    pub entropy: Option<f64>,
    /// Expected calibration error of the most likely token.
    pub calibration_error: Option<f64>,
    /// How often the most likely token is the right one.
    pub accuracy: Option<f64>,
    /// Mean loss over ranges of positions.
    pub by_position: Vec<PositionLoss>,
    /// How far its predictions lie from another model's.
    pub faithfulness: Option<Faithfulness>,
    /// The sequences of highest mean loss, worst first.
    pub worst: Vec<WorstSequence>,
    /// What matrix products were computed in.
    pub dtype: Option<String>,
    /// `cpu` or `cuda:N`.
    pub device: Option<String>,
    /// Sequences in one forward.
    pub batch_size: Option<u64>,
    /// Sequences that were to be evaluated at most.
    pub max_sequences: Option<u64>,
    /// Fingerprint of the tokens.
    pub data_sha256: Option<String>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// Throughput.
    pub tokens_per_s: Option<f64>,
    /// Most memory in use at once, bytes.
    pub peak_memory: Option<u64>,
}

/// The mean loss over the predictions made at positions `from` (included) to `to` (left out).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PositionLoss {
    /// First position, 0-based.
    pub from: u64,
    /// One beyond the last position.
    pub to: u64,
    /// Nats per token; NaN where JSON has null.
    #[serde(deserialize_with = "or_nan")]
    pub mean: f64,
}

/// A sequence that a model predicts badly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstSequence {
    /// Its place in the data set, 0-based.
    pub sequence: u64,
    /// Nats per token; NaN where JSON has null.
    #[serde(deserialize_with = "or_nan")]
    pub mean: f64,
    /// The highest loss of one of its tokens, where that is known.
    #[serde(default)]
    pub peak: Option<f64>,
    /// The text around that token; empty where the model has no tokenizer.
    #[serde(default)]
    pub text: String,
}

impl EvalRow {
    /// The data set without the folders of its path.
    pub fn dataset_name(&self) -> &str {
        last_component(&self.dataset)
    }
}

/// What follows the last `/`; the whole where nothing does.
pub(crate) fn last_component(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}
