//! The residual stream from one reader to the next.

use tch::{Device, Kind, Tensor};

use super::layer_norm::any_real;
use super::{Block, LayerNorm, Pass};
use crate::hook::{Activation, Hook};
use crate::native::{self, Stream};
use crate::norm::LnSite;

/// What reads a sum next.
pub(super) struct Reader<'a> {
    norm: Option<&'a LayerNorm>,
    site: LnSite,
}

impl<'a> Reader<'a> {
    /// The MLP of block `layer`.
    pub(super) fn mlp(block: &'a Block, layer: usize) -> Reader<'a> {
        Reader { norm: block.ln_2.as_ref(), site: LnSite::Ln2(layer) }
    }

    /// The attention of block `layer`.
    pub(super) fn attention(block: &'a Block, layer: usize) -> Reader<'a> {
        Reader { norm: block.ln_1.as_ref(), site: LnSite::Ln1Qk(layer) }
    }

    /// Whether a matrix reads the sum as it is, in bfloat16.
    fn wants_copy(&self, pass: &Pass) -> bool {
        let as_it_is = self.norm.is_none_or(|norm| norm.folded.main || norm.folded.v);
        as_it_is && pass.compute.dtype == Kind::BFloat16
    }

    /// ε, if σ is followed and no real LN finds it.
    fn wants_sigma(&self, pass: &Pass) -> Option<f64> {
        let norm = self.norm.filter(|_| pass.compute.observe && !any_real(self.site, pass));
        norm.map(|norm| norm.eps)
    }
}

impl Stream {
    /// Nothing but the numbers, float32 `[batch, pos, n_embd]`.
    pub(crate) fn of(x: Tensor) -> Stream {
        Stream { x, low: None, sigma: None }
    }

    /// The stream with what a branch adds to it, `[batch, pos, n_embd]`; `None` reads nothing but the sum.
    pub(super) fn plus(&self, branch: &Tensor, reader: Option<Reader>, pass: &Pass) -> Stream {
        let copy = reader.as_ref().is_some_and(|reader| reader.wants_copy(pass));
        let eps = reader.as_ref().and_then(|reader| reader.wants_sigma(pass));
        let known = matches!(branch.kind(), Kind::Float | Kind::BFloat16) && self.x.device() == Device::Cpu;
        let more_than_a_sum = copy || eps.is_some() || branch.kind() == Kind::BFloat16;
        if known && more_than_a_sum && self.x.numel() > 0 {
            return native::residual(&self.x, branch, copy, eps);
        }
        Stream::of(&self.x + branch.to_kind(Kind::Float))
    }

    /// What a matrix reads that no LN comes before, or has one in it.
    pub(super) fn as_it_is(&self) -> Tensor {
        self.low.as_ref().unwrap_or(&self.x).shallow_clone()
    }

    /// What `hook` makes of it.
    pub(super) fn seen(self, activation: Activation, hook: &mut dyn Hook) -> Stream {
        if hook.looks() { Stream::of(hook.on(activation, self.x)) } else { self }
    }
}
