//! Fake LNs as part of the matrices around them.
//!
//! With C = I − 11ᵀ/n (centring) a fake LN is x ↦ (Cx)/σ̄ ⊙ γ + β. Everything that writes to the residual
//! stream is multiplied by C, so that x is centred wherever it is read (which a LN that stays, real or not,
//! does not notice); whatever reads y = FakeLN(x) as yW + b reads x as x·diag(γ/σ̄)W + (βW + b) instead. The
//! unembedding has no bias to take β: there, x is shifted by δ = βσ̄/γ, which is added to the bias of the
//! last MLP, read by nothing but the unembedding.

use tch::{Device, Kind, Tensor};

use super::{Attention, Block, Conv1d, Gpt2, LayerNorm, Mlp};
use crate::config::norm::{LnMode, ln1_row, ln2_row, lnf_row};
use crate::model::ln_state::LnState;
use crate::ops::LinearNorm;
use crate::{Error, Result};

/// Which LNs of a model go into its matrices, and how that is computed.
#[derive(Debug)]
pub(crate) struct Folding {
    /// σ̄ in the order of [`crate::config::norm::ln_names`]; LNs with `None` stay.
    stds: Vec<Option<f64>>,
    /// What is computed in.
    kind: Kind,
}

impl Folding {
    /// Every LN divides by a constant, in float64.
    pub(crate) fn all(stds: &[f64]) -> Folding {
        Folding { stds: stds.iter().copied().map(Some).collect(), kind: Kind::Double }
    }

    /// In float32, those LNs of `model` that are linear; `None` if there are none (any more).
    pub(crate) fn linear(model: &Gpt2, ln: &LnState) -> Result<Option<Folding>> {
        let is_there = |row: usize| match model.h.get(row / 2) {
            Some(block) if row.is_multiple_of(2) => block.ln_1.is_some(),
            Some(block) => block.ln_2.is_some(),
            None => model.ln_f.is_some(),
        };
        let mut stds = constants(ln)?;
        for (row, std) in stds.iter_mut().enumerate() {
            *std = std.filter(|_| is_there(row));
        }
        let folded = Folding { stds, kind: Kind::Float };
        Ok(folded.stds.iter().any(Option::is_some).then_some(folded))
    }

    /// A token or position embedding, or the weight or bias of a map that writes to the residual stream.
    pub(crate) fn writes(&self, x: &Tensor) -> Tensor {
        let x = x.detach().to_kind(self.kind);
        &x - x.mean_dim(-1i64, true, self.kind)
    }

    /// Block `layer`.
    pub(crate) fn block(&self, layer: usize, block: &Block) -> Block {
        let writer = |map: &Conv1d| Conv1d::new(self.writes(&map.weight), self.writes(&map.bias));
        let (ln_1, c_attn) = self.reads(block.ln_1.as_ref(), self.stds[ln1_row(layer)], &block.attn.c_attn);
        let (ln_2, c_fc) = self.reads(block.ln_2.as_ref(), self.stds[ln2_row(layer)], &block.mlp.c_fc);
        Block {
            ln_1,
            attn: Attention { c_attn, c_proj: writer(&block.attn.c_proj), ..block.attn },
            ln_2,
            mlp: Mlp { c_fc, c_proj: writer(&block.mlp.c_proj) },
            resid_pdrop: block.resid_pdrop,
        }
    }

    /// A LN and the map that reads it: the LN again if it stays.
    fn reads(&self, norm: Option<&LayerNorm>, std: Option<f64>, map: &Conv1d) -> (Option<LayerNorm>, Conv1d) {
        let cast = |x: &Tensor| x.detach().to_kind(self.kind);
        let (weight, bias) = (cast(&map.weight), cast(&map.bias));
        let (Some(norm), Some(std)) = (norm, std) else {
            return (norm.map(LayerNorm::share), Conv1d::new(weight, bias));
        };
        let norm = norm.as_linear(&Tensor::from(std), self.kind);
        let bias = bias + norm.beta.unsqueeze(0).matmul(&weight).squeeze_dim(0);
        (None, Conv1d::new(norm.gain.unsqueeze(1) * weight, bias))
    }

    /// The unembedding `[vocab_size, n_embd]` with ln_f in it, and δ `[n_embd]`; `None` if ln_f stays.
    ///
    /// # Errors
    /// When ln_f has a weight of zero where its bias is not.
    pub(crate) fn head(&self, model: &Gpt2) -> Result<Option<(Tensor, Tensor)>> {
        let (Some(ln_f), Some(std)) = (&model.ln_f, self.stds[lnf_row(model.h.len())]) else {
            return Ok(None);
        };
        let LinearNorm { gain, beta } = ln_f.as_linear(&Tensor::from(std), self.kind);
        let shift = (&beta / &gain).where_self(&beta.not_equal(0.0), &beta.zeros_like());
        if !bool::try_from(shift.isfinite().all())? {
            return Err(Error::invalid(
                "ln_f has a weight of zero where its bias is not: its bias cannot be folded; export --format scaled instead",
            ));
        }
        Ok(Some((model.unembedding().detach().to_kind(self.kind) * gain, shift)))
    }
}

/// σ̄ of the LNs that are fake and divide every position and token by the same; the others are `None`.
fn constants(ln: &LnState) -> Result<Vec<Option<f64>>> {
    let n_layer = ln.n_layer();
    let fake = |row: usize| match ln.blocks.get(row / 2) {
        Some(block) if row.is_multiple_of(2) => block.ln1_qk.is_fake() && block.ln1_v.is_fake(),
        Some(block) => block.ln2 == LnMode::Fake,
        None => ln.lnf.is_fake(),
    };
    let frozen = ln.statistics.frozen.to_device(Device::Cpu).to_kind(Kind::Double);
    (0..2 * n_layer + 1)
        .map(|row| {
            let columns = Vec::<f64>::try_from(frozen.get(row as i64))?;
            let uniform = !ln.is_special(row) || columns.iter().all(|&c| c == columns[0]);
            Ok((fake(row) && uniform).then_some(columns[0]))
        })
        .collect()
}
