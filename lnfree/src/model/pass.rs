//! What a forward needs besides its input and the parameters, and what it reports besides its output.

use std::cell::OnceCell;

use tch::{Kind, Tensor};

use super::KvCache;
use super::hook::{Activation, Hook, replaced};
use crate::model::ln_state::LnState;
use crate::{Error, Result};

/// How a forward computes; the default is an evaluation in float32.
#[derive(Debug, Clone, Copy)]
pub struct Compute {
    /// Matrix products and attention run in this type; the residual stream and LNs stay in float32.
    pub dtype: Kind,
    /// Report what every LN sees, and let fake LNs follow it where the settings say so.
    pub observe: bool,
    /// Dropout with the probabilities of the config, from this seed.
    pub dropout_seed: Option<u64>,
}

impl Default for Compute {
    fn default() -> Self {
        Compute { dtype: Kind::Float, observe: false, dropout_seed: None }
    }
}

/// One forward under way.
pub struct ForwardPass<'a> {
    /// Which LNs are fake and what they divide by.
    pub ln: &'a LnState,
    /// How to compute.
    pub compute: Compute,
    /// Position of the first token; 0 unless a [`KvCache`] holds what came before.
    pub start: i64,
    /// Positions of end-of-text tokens, bool `[batch, pos, 1]`.
    pub is_eot: Tensor,
    /// What the LNs saw, `[2]` each, in the order of [`crate::config::norm::ln_names`].
    pub observed: Vec<Option<Tensor>>,
    /// Keys and values of earlier positions; those of this forward are added.
    pub(super) cache: Option<&'a KvCache>,
    /// Keys and values, `[batch, head, start.., d_head]` each, that the block which is computed next has at
    /// the positions before `start`; they are read and not added to. A batch of several times theirs is that
    /// many runs that share them, one after the other.
    pub(crate) past: Option<[&'a Tensor; 2]>,
    /// What was wrong with the first thing a hook returned that cannot be used.
    refused: OnceCell<Error>,
}

impl<'a> ForwardPass<'a> {
    /// `is_eot`: bool `[batch, pos, 1]`; `n_ln`: the LNs of the model.
    pub(super) fn new(is_eot: Tensor, n_ln: usize, ln: &'a LnState, compute: Compute) -> ForwardPass<'a> {
        ForwardPass {
            ln,
            compute,
            start: 0,
            is_eot,
            observed: (0..n_ln).map(|_| None).collect(),
            cache: None,
            past: None,
            refused: OnceCell::new(),
        }
    }

    /// What the LNs saw in this forward, float32 `[n_ln, 2]`; `None` if nothing was observed.
    pub fn observations(&self) -> Option<Tensor> {
        let rows: Option<Vec<&Tensor>> = self.observed.iter().map(Option::as_ref).collect();
        rows.map(|rows| Tensor::stack(&rows, 0))
    }

    /// Whether everything that the hook returned could take its activation's place;
    /// [`Gpt2::forward`](super::Gpt2::forward) asks, after the other parts of a forward their caller has
    /// to. Where it could not, the rest of the forward is NaN and the hook is not called again.
    ///
    /// # Errors
    /// [`Error::Hook`] about the first that could not.
    pub fn check(&mut self) -> Result<()> {
        self.refused.take().map_or(Ok(()), Err)
    }

    /// `value`, or what `hook` puts in its place.
    pub(super) fn seen(&self, activation: Activation, value: Tensor, hook: &mut dyn Hook) -> Tensor {
        if self.refused.get().is_some() {
            return value;
        }
        let (size, options) = (value.size(), (value.kind(), value.device()));
        replaced(hook, activation, value).unwrap_or_else(|error| {
            let _ = self.refused.set(error);
            Tensor::full(size, f64::NAN, options)
        })
    }

    /// Whether this forward drops activations.
    pub(super) fn has_dropout(&self) -> bool {
        self.compute.dropout_seed.is_some()
    }

    /// `x` with dropout of probability `p`, if this forward has dropout.
    pub(super) fn dropout(&self, x: Tensor, p: f64) -> Tensor {
        if self.has_dropout() && p > 0.0 { x.dropout(p, true) } else { x }
    }

    /// Seeds libtorch's generator for one part of the forward (0 is the embedding, 1 + layer a block): a
    /// block that is computed again for its gradients, or a run that is resumed, then drops the same
    /// activations.
    pub(super) fn seed_dropout(&self, part: usize) {
        if let Some(seed) = self.compute.dropout_seed {
            let seed = seed.wrapping_add(part as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            tch::manual_seed((seed >> 1) as i64);
        }
    }

    /// `x` in the type that matrix products run in.
    pub(crate) fn cast(&self, x: &Tensor) -> Tensor {
        x.to_kind(self.compute.dtype)
    }
}
