//! Take LayerNorm (LN) out of GPT-2 models by fine-tuning, measure what that costs, and hand over LN-free models.
//!
//! Data flows one way:
//! [`config`] → [`data`] · [`hub`] → ([`norm`], [`hook`]) → [`model`] → ([`schedule`], [`loss`], [`optim`]) → [`checkpoint`] →
//! [`train`] → [`eval`] · [`export`] · [`generate`] → [`plot`] · [`report`] → [`suite`] → [`walk`] · [`selftest`] · the command line.
//!
//! The method is that of "Transformers Don't Need LayerNorm at Inference Time" (arXiv 2507.02559).

#![warn(missing_docs)]
// Input must not end the program: only tests may unwrap.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]

mod base;
pub mod config;
pub mod data;
pub mod eval;
pub mod export;
pub mod hub;
pub mod model;
mod ops;
pub mod prelude;
mod study;
pub mod train;

pub use base::error::{Error, Result, is_lack_of_memory};
pub use base::{atomic, console, device, interrupt, output};
pub use config::schedule;
pub use eval::{generate, stds};
pub use model::hook;
pub use ops::loss;
pub use study::{bench, doctor, plan, plot, report, selftest, suite, walk};
pub use train::{checkpoint, optim};

/// LN sites, what becomes of them, and the standard deviations that replace them.
pub mod norm {
    pub use crate::config::norm::*;
    pub use crate::model::ln_state::*;
    pub use crate::model::ln_statistics::*;
}

/// The libtorch bindings that this crate is built on, so that a notebook needs no second dependency.
pub use tch;
