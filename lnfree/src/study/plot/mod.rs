//! Figures, drawn from plain data: schedules, the loss with its removal events, stds over time and depth,
//! attention, texts, results and what is certain of them, and what analyses found.
//!
//! All figures share one style: colours that stay apart under the common colour-vision deficiencies and
//! against light and dark pages, transparent backgrounds, units on every axis. They are as wide as the page
//! lets them be.
//!
//! ```
//! use lnfree::plot::{self, RunMetrics, Step};
//!
//! let (kl_loss, lr, grad_norm, tokens_per_s) = (f64::NAN, 6e-4, 0.5, 1e4);
//! let step = |step| Step { step, loss: 3.2, ce_loss: 3.1, aux_loss: 0.1, kl_loss, lr, grad_norm, tokens_per_s };
//! let run = RunMetrics { name: "vanilla".into(), steps: (0..100).map(step).collect(), ..RunMetrics::default() };
//! let figure = plot::loss_curve(&[run]);
//! assert!(figure.to_json().contains("cross-entropy, nats per token"));
//! ```

mod attention;
mod bars;
mod curves;
mod data;
mod data_needed;
mod depth;
mod figure;
mod forest;
mod generations;
mod heat_maps;
mod image;
mod intervals;
mod labels;
mod loss;
mod names;
mod numbers;
mod optimisation;
mod panels;
mod positions;
mod schedule;
mod series;
mod stds;
#[cfg(test)]
mod tests;
mod theme;
mod waterfall;

pub use crate::config::norm::RemovalKind;
pub use crate::config::schedule::Removal;
pub use attention::attention_patterns;
pub use bars::results_bars;
pub use curves::curves;
pub use data::{EvalDetails, EvalRow, LnName, PositionLoss, RunInfo, RunMetrics, Step, WorstSequence};
pub use data_needed::{SizePoint, data_needed};
pub use depth::std_over_depth;
pub use figure::Figure;
pub use generations::{Generation, generations};
pub use heat_maps::heat_maps;
pub use intervals::{Difference, Reference, paired_differences, results_with_intervals};
pub use loss::loss_curve;
pub use names::{ModelName, Role, distinct_names};
pub use numbers::numbers_with_intervals;
pub use optimisation::optimisation;
pub use plotly::Plot;
pub use positions::loss_by_position;
pub use schedule::removal_schedule;
pub use stds::std_over_time;
pub use waterfall::waterfall;
