//! A LayerNorm that can be real or fake, and the two faces of ln_1.

use tch::{Kind, Tensor};

use super::Pass;
use crate::config::norm::LnSite;
use crate::ops::{self, Stream, sigma_of};

/// Weight and bias of a LayerNorm over n_embd.
#[derive(Debug)]
pub struct LayerNorm {
    /// γ, `[n_embd]`.
    pub weight: Tensor,
    /// β, `[n_embd]`.
    pub bias: Tensor,
    /// ε in sqrt(var + ε).
    pub eps: f64,
    /// What of it the matrices behind it carry already.
    pub(crate) folded: FoldedFaces,
}

/// Faces of an LN that hand on the residual stream as it is, because the matrix that reads them has the LN in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FoldedFaces {
    /// The only face, or that of queries and keys.
    pub main: bool,
    /// That of values.
    pub v: bool,
}

/// What the two faces of ln_1 give to attention.
pub(super) enum Faces {
    /// Queries, keys and values read the same, so one matrix product serves.
    Same(Tensor),
    /// Queries and keys read one thing and values another.
    Apart { qk: Tensor, v: Tensor },
}

/// The input of an LN with what its faces share, each computed at most once.
struct Input<'a> {
    stream: &'a Stream,
    real: Option<Tensor>,
    sigma: Option<Tensor>,
}

impl<'a> Input<'a> {
    fn of(stream: &'a Stream) -> Input<'a> {
        Input { stream, real: None, sigma: None }
    }
}

impl LayerNorm {
    /// LN or FakeLN of `x`, float32 `[batch, pos, n_embd]`, as the state says for `site` (ln_2 or ln_f).
    pub(super) fn forward(&self, x: &Stream, site: LnSite, pass: &mut Pass) -> Tensor {
        let mut input = Input::of(x);
        let observed = self.observe(&mut input, site, pass);
        self.face(&mut input, site, pass, observed.as_ref())
    }

    /// Both faces of ln_1 of block `layer`.
    pub(super) fn faces(&self, x: &Stream, layer: usize, pass: &mut Pass) -> Faces {
        let (qk, v) = (LnSite::Ln1Qk(layer), LnSite::Ln1V(layer));
        let mut input = Input::of(x);
        let observed = self.observe(&mut input, qk, pass);
        let qk_out = self.face(&mut input, qk, pass, observed.as_ref());
        if pass.ln.faces_agree(layer, pass.compute.observe) {
            return Faces::Same(qk_out);
        }
        let v_out = self.face(&mut input, v, pass, observed.as_ref());
        Faces::Apart { qk: qk_out, v: v_out }
    }

    fn face(&self, input: &mut Input, site: LnSite, pass: &Pass, observed: Option<&Tensor>) -> Tensor {
        let folded = if matches!(site, LnSite::Ln1V(_)) { self.folded.v } else { self.folded.main };
        if folded {
            return input.stream.as_it_is();
        }
        if !pass.ln.mode(site).is_fake() {
            return self.real(input).0;
        }
        if let Some(normed) = input.stream.read.as_ref().filter(|_| input.stream.normed) {
            return normed.shallow_clone();
        }
        let x = &input.stream.x;
        let size = x.size();
        let mut std = pass.ln.divisor(site, false, observed).broadcast(pass.start, size[1], size[2]);
        if matches!(site, LnSite::Ln1V(layer) if pass.ln.eot_apart(layer, pass.compute.observe)) {
            let at_eot = pass.ln.divisor(site, true, observed).broadcast(pass.start, size[1], size[2]);
            std = at_eot.where_self(&pass.is_eot, &std);
        }
        // What a matrix reads, it reads in the type of the computation.
        let kind = if site == LnSite::LnF { Kind::Float } else { pass.compute.dtype };
        ops::fake_norm(x, &self.weight, &self.bias, &std, kind)
    }

    /// The real LN and its σ `[batch, pos]`: libtorch returns 1/σ beside the output, so following it costs no pass.
    fn real(&self, input: &mut Input) -> (Tensor, Tensor) {
        if let (Some(out), Some(sigma)) = (&input.real, &input.sigma) {
            return (out.shallow_clone(), sigma.shallow_clone());
        }
        let x = &input.stream.x;
        let n_embd = x.size()[2];
        let weight = self.weight.to_kind(Kind::Float);
        let bias = self.bias.to_kind(Kind::Float);
        let (out, _mean, rstd) = x.native_layer_norm([n_embd], Some(&weight), Some(&bias), self.eps);
        let sigma = rstd.detach().squeeze_dim(-1).reciprocal();
        input.real = Some(out.shallow_clone());
        input.sigma = Some(sigma.shallow_clone());
        (out, sigma)
    }

    /// Reports σ over this forward's tokens for the LN that `site` belongs to, once per LN.
    fn observe(&self, input: &mut Input, site: LnSite, pass: &mut Pass) -> Option<Tensor> {
        if !pass.compute.observe {
            return None;
        }
        let sigma = if any_real(site, pass) {
            self.real(input).1
        } else {
            let known = input.stream.sigma.as_ref().map(Tensor::shallow_clone);
            known.unwrap_or_else(|| sigma_of(&input.stream.x.detach(), self.eps))
        };
        let observed = pass.ln.observation(site, &sigma);
        pass.observed[pass.ln.row(site)] = Some(observed.shallow_clone());
        Some(observed)
    }
}

/// Whether a real LN is computed at `site`, or at another face of the same LN; its σ is then at hand.
pub(super) fn any_real(site: LnSite, pass: &Pass) -> bool {
    let is_real = |site| !pass.ln.mode(site).is_fake();
    match site {
        LnSite::Ln1Qk(l) | LnSite::Ln1V(l) => is_real(LnSite::Ln1Qk(l)) || is_real(LnSite::Ln1V(l)),
        _ => is_real(site),
    }
}
