//! The two ends of edges: what changes in what senders write, and the gradient at what receivers read.

use tch::{Kind, Tensor};

use super::run::Run;
use crate::Result;
use crate::config::norm::LnSite;
use crate::model::hook::Activation;
use crate::model::ln_state::LnState;
use crate::model::{Gpt2, LayerNorm};

impl Run {
    /// Clean less corrupted of what each sender writes: `[sender, batch, pos, n_embd]`.
    pub fn written(&self, model: &Gpt2) -> Result<Tensor> {
        let embed = self.change(Activation::ResidPre(0))?;
        let senders: i64 = model.h.iter().map(|block| block.attn.n_head + 1).sum();
        let size = [&[1 + senders], embed.size().as_slice()].concat();
        // Filled part by part: parts beside the whole would take as much again.
        let all = Tensor::f_empty(size.as_slice(), (Kind::Float, embed.device()))?;
        let mut start = 0;
        let mut put = |part: &Tensor, n: i64| -> Result<()> {
            all.f_narrow(0, start, n)?.f_copy_(part)?;
            start += n;
            Ok(())
        };
        put(&embed.f_unsqueeze(0)?, 1)?;
        for (layer, block) in model.h.iter().enumerate() {
            let weight = block.attn.c_proj.weight.f_to_kind(Kind::Float)?;
            let n_embd = weight.size()[1];
            let weight = weight.f_reshape([block.attn.n_head, -1, n_embd])?;
            put(&by_head(self.change(Activation::Z(layer))?, &weight)?, block.attn.n_head)?;
            put(&self.change(Activation::MlpOut(layer))?.f_unsqueeze(0)?, 1)?;
        }
        Ok(all)
    }

    /// The gradient at the stream that each head of block `layer` reads for its queries, for its keys and
    /// for its values: `[3 · head, batch, pos, n_embd]`.
    pub fn read_by_heads(&self, model: &Gpt2, ln: &LnState, layer: usize) -> Result<Tensor> {
        let block = &model.h[layer];
        let weight = block.attn.c_attn.weight.f_to_kind(Kind::Float)?;
        let n_embd = weight.size()[0];
        let qk = LnSite::Ln1Qk(layer);
        let v = match &block.ln_1 {
            Some(_) if !ln.faces_agree(layer, false) => LnSite::Ln1V(layer),
            _ => qk,
        };
        let made = [(Activation::Q(layer), qk), (Activation::K(layer), qk), (Activation::V(layer), v)];
        let read = (0i64..).zip(made).map(|(part, (at, site))| {
            let columns = weight.f_narrow(1, part * n_embd, n_embd)?;
            // [head, d_head, n_embd]
            let columns = columns.f_reshape([n_embd, block.attn.n_head, -1])?.f_permute([1, 2, 0])?;
            let gradients = by_head(self.gradient(at)?, &columns)?;
            self.before_norm(block.ln_1.as_ref(), site, ln, gradients, Activation::ResidPre(layer))
        });
        Ok(Tensor::f_cat(&read.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// The gradient at the stream that the MLP of block `layer` reads: `[1, batch, pos, n_embd]`.
    pub fn read_by_mlp(&self, model: &Gpt2, ln: &LnState, layer: usize) -> Result<Tensor> {
        let block = &model.h[layer];
        let weight = block.mlp.c_fc.weight.f_to_kind(Kind::Float)?.f_transpose(0, 1)?;
        let gradient = self.gradient(Activation::MlpPre(layer))?.f_matmul(&weight)?.f_unsqueeze(0)?;
        let site = LnSite::Ln2(layer);
        self.before_norm(block.ln_2.as_ref(), site, ln, gradient, Activation::ResidMid(layer))
    }

    /// Gradients at the stream that an LN reads from those at what it hands on, `[reader, batch, pos,
    /// n_embd]`, each as if its reader had the LN for itself.
    ///
    /// The LN is (x − mean(x)) ⊙ γ/s + β, where 1/s is (1 − t)/σ + t/σ̄: t is 0 where it is real, 1 where it
    /// is fake, and its gate on the way from the one to the other. σ alone follows x; the derivative of 1/σ
    /// is −x̂/(nσ²).
    fn before_norm(
        &self,
        norm: Option<&LayerNorm>,
        site: LnSite,
        ln: &LnState,
        gradients: Tensor,
        stream: Activation,
    ) -> Result<Tensor> {
        let (Some(norm), Some(scale)) = (norm, self.scale(site)) else { return Ok(gradients) };
        let mean = |x: &Tensor| x.f_mean_dim(-1i64, true, Kind::Float);
        let gradients = gradients.f_mul(&norm.weight.f_to_kind(Kind::Float)?)?;
        let divided = gradients.f_div(scale)?;
        let at_constant_scale = divided.f_sub(&mean(&divided)?)?;
        let real = if ln.mode(site).is_fake() { 0.0 } else { 1.0 - ln.gate(site) };
        if real == 0.0 {
            return Ok(at_constant_scale);
        }
        let x = self.stream(stream)?;
        let centred = x.f_sub(&mean(x)?)?;
        let sigma = mean(&centred.f_square()?)?.f_add_scalar(norm.eps)?.f_sqrt()?;
        let normed = centred.f_div(&sigma)?;
        let along = mean(&gradients.f_mul(&normed)?)?.f_mul(&normed)?;
        Ok(at_constant_scale.f_sub(&along.f_div(&sigma)?.f_mul_scalar(real)?)?)
    }
}

/// `x` `[batch, pos, head, d_head]` by a matrix of each head, `[head, d_head, n_embd]`:
/// `[head, batch, pos, n_embd]`.
fn by_head(x: &Tensor, matrices: &Tensor) -> Result<Tensor> {
    let (batch, pos, head, d_head) = x.size4()?;
    let x = x.f_permute([2, 0, 1, 3])?.f_reshape([head, batch * pos, d_head])?;
    Ok(x.f_bmm(matrices)?.f_reshape([head, batch, pos, -1])?)
}
