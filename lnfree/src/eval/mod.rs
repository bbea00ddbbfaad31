//! Cross-entropy of a model on token data, per token and summarised. An evaluation changes nothing.
//!
//! The logits of a batch are never there all at once, so memory does not grow with the vocabulary. Means are
//! summed in float64.

mod batches;
mod bootstrap;
mod calibration;
mod engine;
mod evaluation;
mod evaluator;
mod faithfulness;
mod files;
mod finite;
pub mod generate;
mod locate;
mod memory;
mod record;
mod sequences;
mod stats;
pub mod stds;
mod token_stats;

pub(crate) use bootstrap::interval;
pub use bootstrap::{PairedDifference, mean_interval, paired_difference};
pub use calibration::Calibration;
pub use engine::{evaluate, evaluate_on};
pub use evaluation::{EvalOptions, Evaluation};
pub use evaluator::{Evaluator, write_result};
pub use faithfulness::{Faithfulness, PositionDistance, faithfulness};
pub use files::{read_sequences, result_name, write_losses, write_sequences};
pub use finite::NotFinite;
pub(crate) use finite::{number, some_pair};
pub use locate::locate_model;
pub use record::{EvalRecord, RunFacts, WorstSequence};
pub use sequences::{PositionLoss, SequenceLoss};
pub use stats::{Summary, quantile, trimmed_mean};
