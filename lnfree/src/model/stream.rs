//! The residual stream from one reader to the next.

use tch::{Kind, Tensor};

use super::hook::{Activation, Hook};
use super::layer_norm::any_real;
use super::{ForwardPass, LayerNorm};
use crate::base::device::for_cpu_kernels;
use crate::config::norm::LnSite;
use crate::ops::{self, FusedOutputs, ResidualStream};

/// What reads a sum next.
pub(super) struct Reader<'a> {
    norm: Option<&'a LayerNorm>,
    site: LnSite,
}

impl<'a> Reader<'a> {
    /// The MLP of block `layer`.
    pub(super) fn mlp(ln_2: Option<&'a LayerNorm>, layer: usize) -> Reader<'a> {
        Reader { norm: ln_2, site: LnSite::Ln2(layer) }
    }

    /// The attention of block `layer`.
    pub(super) fn attention(ln_1: Option<&'a LayerNorm>, layer: usize) -> Reader<'a> {
        Reader { norm: ln_1, site: LnSite::Ln1Qk(layer) }
    }

    /// What it would have made along with the sum; its fake LN only with `norms`.
    fn fused(&self, pass: &ForwardPass, norms: bool) -> FusedOutputs<'a> {
        let bfloat16 = pass.compute.dtype == Kind::BFloat16;
        let Some(norm) = self.norm else { return FusedOutputs { bfloat16, ..FusedOutputs::default() } };
        // σ comes with a real LN.
        let follows = pass.compute.observe && !any_real(self.site, pass);
        let sigma = follows.then_some(norm.eps);
        if norm.folded.main || norm.folded.v {
            return FusedOutputs { bfloat16, sigma, norm: None };
        }
        let std = self.std(pass).filter(|_| norms).map(|std| (&norm.weight, &norm.bias, std));
        FusedOutputs { bfloat16: bfloat16 && std.is_some(), sigma, norm: std }
    }

    /// What everything that is read here is divided by, if it is one number.
    fn std(&self, pass: &ForwardPass) -> Option<Tensor> {
        let constant = |site| pass.ln.constant(site, pass.compute.observe);
        match self.site {
            // Both faces are the same LN, so they have one σ̄.
            LnSite::Ln1Qk(layer) => constant(LnSite::Ln1V(layer)).and_then(|_| constant(self.site)),
            site => constant(site),
        }
    }
}

impl ResidualStream {
    /// Nothing but the numbers, float32 `[batch, pos, n_embd]`.
    pub(crate) fn of(x: Tensor) -> ResidualStream {
        ResidualStream { x, read: None, normed: false, sigma: None }
    }

    /// The stream with what a branch adds to it, `[batch, pos, n_embd]`; `None` reads nothing but the sum.
    pub(super) fn plus(&self, branch: &Tensor, reader: Option<Reader>, pass: &ForwardPass) -> ResidualStream {
        let known = matches!(branch.kind(), Kind::Float | Kind::BFloat16);
        if known && ops::residual_is_ours(&self.x) {
            let on_cpu = for_cpu_kernels(&self.x);
            let fused = reader.map_or_else(FusedOutputs::default, |reader| reader.fused(pass, on_cpu));
            if fused.any() || branch.kind() == Kind::BFloat16 {
                return ops::residual(&self.x, branch, &fused);
            }
        }
        // libtorch adds bfloat16 to float32 number by number: a float32 copy of the branch would be written
        // and read for nothing.
        match branch.kind() {
            Kind::Float | Kind::BFloat16 | Kind::Half => ResidualStream::of(&self.x + branch),
            _ => ResidualStream::of(&self.x + branch.to_kind(Kind::Float)),
        }
    }

    /// What a matrix reads that no LN comes before, or that has one in it.
    pub(super) fn as_it_is(&self) -> Tensor {
        self.read.as_ref().filter(|_| !self.normed).unwrap_or(&self.x).shallow_clone()
    }

    /// What `hook` makes of it.
    pub(super) fn seen(
        self,
        activation: Activation,
        pass: &ForwardPass,
        hook: &mut dyn Hook,
    ) -> ResidualStream {
        if hook.wants(activation) { ResidualStream::of(pass.seen(activation, self.x, hook)) } else { self }
    }
}
