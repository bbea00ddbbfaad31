//! All that a notebook imports.
//!
//! ```
//! use lnfree::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let loaded = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
//! let tokens = open_dataset("nano-addresses", 128)?;
//! let options = EvalOptions { max_sequences: 16, ..EvalOptions::default() };
//! let losses = evaluate(&loaded.model, &loaded.ln, &tokens, options, |_| {})?;
//! println!("{:.4} nats per token", Summary::new(&losses.losses).mean);
//!
//! // A hook sees activations by their names and may replace them.
//! let ids = tokens.batch(&[0])?;
//! let mut ablate = only("blocks.3.hook_mlp_out", |x| x.zeros_like())?;
//! let logits = loaded.model.forward(&ids, &loaded.ln, Compute::default(), &mut ablate)?;
//! assert_eq!(logits.size(), [1, 128, 4096]);
//! # Ok(())
//! # }
//! ```

pub use std::path::{Path, PathBuf};

pub use tch::{self, Device, IndexOp, Kind, Tensor};

pub use crate::base::device::{parse_device, peak_memory};
pub use crate::config::norm::{LnMode, LnSite, NormSettings, RemovalKind};
pub use crate::config::schedule::{Schedule, ScheduleConfig};
pub use crate::config::{Config, FloatType};
pub use crate::data::{
    DatasetOptions, Split, TokenFile, Tokenizer, open_dataset, open_dataset_with, prepare,
};
pub use crate::eval::generate::{Generator, SampleOptions, generate};
pub use crate::eval::locate_model;
pub use crate::eval::stds::{StdDict, measure};
pub use crate::eval::{
    EvalOptions, EvalRecord, Evaluation, Evaluator, PairedDifference, Summary, evaluate, mean_interval,
};
pub use crate::export::{CardFacts, ExportFormat, Proof, compare, export};
pub use crate::hub::locate_tokenizer;
#[cfg(feature = "hub")]
pub use crate::hub::{PushOptions, push};
pub use crate::interp::{
    Ablation, ActivationCache, AttentionSinks, Circuits, EntropyNeurons, HeadScores, MeanAblation, Metric,
    Patching, RepeatedTokens, ResidualNorms, attribution_needs, run_with_cache,
};
pub use crate::model::hook::{Activation, Capture, Hook, NoHook, only, without_patterns};
pub use crate::model::ln_state::LnState;
pub use crate::model::{Compute, Gpt2, LoadOptions, LoadedModel, ModelFormat, Shape};
#[cfg(feature = "study")]
pub use crate::study::analyses::{Pairs, Prompt, Request, Sample, Subject, analyse};
#[cfg(feature = "study")]
pub use crate::study::plot::{
    Difference, EvalRow, Figure, Generation, Reference, RunMetrics, SizePoint, attention_patterns, curves,
    data_needed, generations, heat_maps, loss_by_position, loss_curve, optimisation, paired_differences,
    removal_schedule, results_bars, results_with_intervals, std_over_depth, std_over_time, waterfall,
};
#[cfg(feature = "study")]
pub use crate::study::report::{differences, read_eval, read_run, results_table};
#[cfg(feature = "study")]
pub use crate::study::suite::Suite;
#[cfg(feature = "study")]
pub use crate::study::walk::{Walk, published_points, run_points};
pub use crate::train::{Mode, StartOptions, Trainer, run, start_or_resume};
pub use crate::{Error, Result};
