//! Take LayerNorm (LN) out of GPT-2 models by fine-tuning, measure what that costs, and hand over LN-free
//! models.
//!
//! # Layers
//!
//! Each needs only those before it, and no modules anywhere need each other in a circle; `tests/layers.rs`
//! holds the crate to it.
//!
//! | layer | what it has |
//! |---|---|
//! | `base` | errors, files that are whole or not there, devices, ranks, the terminal, the C++ library |
//! | [`config`] | what is said before anything is computed: configs, schedules, LN sites, a model's `config.json`, a run's folder |
//! | `ops` | operations on tensors, in our kernels or in libtorch's operations, and the losses made of them |
//! | [`hub`] | names on the Hugging Face hub, downloads, uploads |
//! | [`data`] | texts, tokenizers, token files, the order in which training sees them |
//! | [`model`] | the forward with its LN sites, their state, folding, hooks, loading |
//! | [`eval`] | losses on token data, standard deviations, generated text |
//! | [`interp`] | what heads and neurons do, and the size of the residual stream |
//! | [`train`] | optimizer steps, checkpoints, runs |
//! | [`export`] | models without LN for other programs |
//! | `study` | figures, reports, whole studies, benchmarks, what a user is told of a machine |
//!
//! # Features
//!
//! | feature | what it brings | on by default |
//! |---|---|---|
//! | `kernels` | the C++ kernels of `native/`, for CPUs and CUDA; without it every operation is its reference in libtorch's own | yes |
//! | `hub` | names on the Hugging Face hub: downloads, data sets, pushing; brings `parquet` | with `study` |
//! | `parquet` | texts and tokens in Parquet, and with them the embedded texts | yes |
//! | `study` | the layer of that name, with plotly | with `cli` |
//! | `cli` | the program | yes |
//!
//! The modules of `base`, `ops` and `study` that are public are found at the root: [`device`], [`loss`],
//! [`plot`] and so on.
//!
//! The method is that of "Transformers Don't Need LayerNorm at Inference Time" (arXiv 2507.02559).

#![warn(missing_docs)]
// What serves `study` alone has no use without it.
#![cfg_attr(not(feature = "study"), allow(dead_code, unused_imports))]
// Input must not end the program: only tests may unwrap.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]

mod base;
pub mod config;
pub mod data;
pub mod eval;
pub mod export;
pub mod hub;
pub mod interp;
pub mod model;
mod ops;
pub mod prelude;
#[cfg(feature = "study")]
mod study;
pub mod train;

#[doc(hidden)]
pub use base::caught::text_of as panic_text;
pub use base::error::{Error, Result, is_lack_of_memory};
#[doc(hidden)]
pub use base::ffi::tch_functions;
pub use base::{atomic, console, device, interrupt, output, ranks};
pub use config::schedule;
pub use eval::{generate, stds};
pub use model::hook;
pub use ops::loss;
#[cfg(feature = "study")]
pub use study::{analyses, bench, doctor, inspect, plan, plot, report, selftest, suite, walk};
pub use train::{checkpoint, optim};

/// LN sites, what becomes of them, and the standard deviations that replace them.
pub mod norm {
    pub use crate::config::norm::*;
    pub use crate::model::ln_state::*;
    pub use crate::model::ln_statistics::*;
}

/// The libtorch bindings that this crate is built on, so that a notebook needs no second dependency.
pub use tch;

/// The examples of the book.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../docs/src/interpretability.md")]
    struct Hooks;
}
