//! A LayerNorm that can be real or fake, and the two faces of ln_1.

use tch::{Kind, Tensor};

use super::ForwardPass;
use super::hook::{Activation, Hook};
use crate::config::norm::LnSite;
use crate::ops::{self, LinearNorm, ResidualStream, sigma_of};

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

/// Faces of an LN that hand on the residual stream as it is, because the matrix that reads them has the LN
/// in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FoldedFaces {
    /// The only face, or that of queries and keys.
    pub main: bool,
    /// That of values.
    pub v: bool,
}

/// What the two faces of ln_1 give to attention.
pub(super) enum Ln1Output {
    /// Queries, keys and values read the same, so one matrix product serves.
    Same(Tensor),
    /// Queries and keys read one thing and values another.
    Apart { qk: Tensor, v: Tensor },
}

/// The input of an LN with what its faces share, each computed at most once.
struct Input<'a> {
    stream: &'a ResidualStream,
    real: Option<Tensor>,
    sigma: Option<Tensor>,
}

impl<'a> Input<'a> {
    fn of(stream: &'a ResidualStream) -> Input<'a> {
        Input { stream, real: None, sigma: None }
    }
}

impl LayerNorm {
    /// It, fake with σ̄ `std` (0-dim), as the matrix that reads it sees it; in `kind`, without a graph.
    pub(super) fn as_linear(&self, std: &Tensor, kind: Kind) -> LinearNorm {
        let [gamma, beta] = [&self.weight, &self.bias].map(|x| x.detach().to_kind(kind).contiguous());
        LinearNorm { gain: gamma / std, beta }
    }

    /// LN or FakeLN of `x`, float32 `[batch, pos, n_embd]`, as the state says for `site` (ln_2 or ln_f).
    pub(super) fn forward(
        &self,
        x: &ResidualStream,
        site: LnSite,
        pass: &mut ForwardPass,
        hook: &mut dyn Hook,
    ) -> Tensor {
        let mut input = Input::of(x);
        let observed = self.observe(&mut input, site, pass);
        self.face(&mut input, site, pass, observed.as_ref(), hook)
    }

    /// Both faces of ln_1 of block `layer`.
    pub(super) fn forward_ln_1(
        &self,
        x: &ResidualStream,
        layer: usize,
        pass: &mut ForwardPass,
        hook: &mut dyn Hook,
    ) -> Ln1Output {
        let (qk, v) = (LnSite::Ln1Qk(layer), LnSite::Ln1V(layer));
        let mut input = Input::of(x);
        let observed = self.observe(&mut input, qk, pass);
        let qk_out = self.face(&mut input, qk, pass, observed.as_ref(), hook);
        if pass.ln.faces_agree(layer, pass.compute.observe) {
            return Ln1Output::Same(qk_out);
        }
        let v_out = self.face(&mut input, v, pass, observed.as_ref(), hook);
        Ln1Output::Apart { qk: qk_out, v: v_out }
    }

    fn face(
        &self,
        input: &mut Input,
        site: LnSite,
        pass: &ForwardPass,
        observed: Option<&Tensor>,
        hook: &mut dyn Hook,
    ) -> Tensor {
        let folded = if matches!(site, LnSite::Ln1V(_)) { self.folded.v } else { self.folded.main };
        if folded {
            return input.stream.as_it_is();
        }
        let is_fake = pass.ln.mode(site).is_fake();
        if hook.wants(Activation::Scale(site)) {
            let sigma = || sigma_of(&input.stream.x, self.eps).unsqueeze(-1);
            let scale = match (is_fake, pass.ln.gate(site)) {
                (true, _) => divisor(input, site, pass, observed),
                (false, 0.0) => sigma(),
                (false, gate) => {
                    let fake = divisor(input, site, pass, None).reciprocal() * gate;
                    (sigma().reciprocal() * (1.0 - gate) + fake).reciprocal()
                }
            };
            return self.face_seen(&input.stream.x, scale, site, pass, hook);
        }
        let out = if !is_fake {
            match pass.ln.gate(site) {
                0.0 => self.real(input).0,
                gate => self.tapered(input, gate, site, pass),
            }
        } else if let Some(normed) = input.stream.read.as_ref().filter(|_| input.stream.normed) {
            normed.shallow_clone()
        } else {
            // What a matrix reads, it reads in the type of the computation.
            let kind = if site == LnSite::LnF { Kind::Float } else { pass.compute.dtype };
            let std = divisor(input, site, pass, observed);
            ops::fake_norm(&input.stream.x, &self.weight, &self.bias, &std, kind)
        };
        pass.seen(Activation::Normalized(site), out, hook)
    }

    /// A real LN of which `gate` is fake already, with what it will divide by once it is gone.
    fn tapered(&self, input: &mut Input, gate: f64, site: LnSite, pass: &ForwardPass) -> Tensor {
        let std = divisor(input, site, pass, None);
        let fake = ops::fake_norm(&input.stream.x, &self.weight, &self.bias, &std, Kind::Float);
        self.real(input).0 * (1.0 - gate) + fake * gate
    }

    /// A face whose scale `hook` sees, with a graph through that.
    fn face_seen(
        &self,
        x: &Tensor,
        scale: Tensor,
        site: LnSite,
        pass: &ForwardPass,
        hook: &mut dyn Hook,
    ) -> Tensor {
        let [batch, pos, n_embd] = x.size()[..] else { return x.shallow_clone() };
        let per_feature = scale.dim() == 3 && scale.size()[2] > 1;
        // A copy: a hook may write into what it is given.
        let scale = scale.expand([batch, pos, if per_feature { n_embd } else { 1 }], false).copy();
        let scale = pass.seen(Activation::Scale(site), scale, hook);
        let [weight, bias] = [&self.weight, &self.bias].map(|p| p.to_kind(Kind::Float));
        let out = (x - x.mean_dim(-1i64, true, Kind::Float)) / scale * weight + bias;
        pass.seen(Activation::Normalized(site), out, hook)
    }

    /// The real LN and its σ `[batch, pos]`: libtorch returns 1/σ beside the output, so following it costs
    /// no pass.
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
    fn observe(&self, input: &mut Input, site: LnSite, pass: &mut ForwardPass) -> Option<Tensor> {
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

/// What a fake `site` divides by, see [`ops::fake_norm`].
fn divisor(input: &Input, site: LnSite, pass: &ForwardPass, observed: Option<&Tensor>) -> Tensor {
    let [_, pos, n_embd] = input.stream.x.size()[..] else { return Tensor::new() };
    let at = |eot| pass.ln.divisor(site, eot, observed).broadcast(pass.start, pos, n_embd);
    match site {
        LnSite::Ln1V(layer) if pass.ln.eot_apart(layer, pass.compute.observe) => {
            at(true).where_self(&pass.is_eot, &at(false))
        }
        _ => at(false),
    }
}

/// Whether a real LN is computed at `site`, or at another face of the same LN; its σ is then at hand.
pub(super) fn any_real(site: LnSite, pass: &ForwardPass) -> bool {
    let is_real = |site| !pass.ln.mode(site).is_fake();
    match site {
        LnSite::Ln1Qk(l) | LnSite::Ln1V(l) => is_real(LnSite::Ln1Qk(l)) || is_real(LnSite::Ln1V(l)),
        _ => is_real(site),
    }
}
