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

pub mod atomic;
pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod console;
pub mod data;
pub mod device;
pub mod doctor;
mod error;
pub mod eval;
pub mod export;
pub mod generate;
pub mod hook;
pub mod hub;
pub mod interrupt;
mod json;
pub mod loss;
pub mod model;
mod native;
pub mod norm;
pub mod optim;
pub mod output;
pub mod plan;
pub mod plot;
pub mod prelude;
pub mod report;
pub mod schedule;
pub mod selftest;
pub mod stds;
pub mod suite;
pub mod train;
pub mod walk;

pub use error::{Error, Result, is_lack_of_memory};
/// The libtorch bindings that this crate is built on, so that a notebook needs no second dependency.
pub use tch;
