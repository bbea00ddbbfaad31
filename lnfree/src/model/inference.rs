//! A model made ready for many forwards without gradients.

use tch::{Kind, Tensor};

use super::{Attention, Block, Compute, Conv1d, Folding, Gpt2, LayerNorm, Mlp};
use crate::Result;
use crate::model::hook::{Hook, NoHook};
use crate::model::ln_state::LnState;
use crate::ops::loss::predicting;

impl Gpt2 {
    /// A model that computes the same, with `ln` again, and with less work: matrices are converted to `dtype`
    /// once instead of in every forward, and fake LNs that divide everything by one constant go into them, as
    /// in the folded format. What hooks see of the residual stream is then centred; use this model itself to
    /// look inside. In float32, a model with nothing to fold shares all storage with this one.
    ///
    /// For bfloat16 the unembedding is made apart, without its mean over the vocabulary.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn for_inference(&self, ln: &LnState, dtype: Kind) -> Result<Gpt2> {
        let _guard = tch::no_grad_guard();
        let Some(folded) = Folding::linear(self, ln)? else {
            let head = self.lm_head.as_ref();
            return Ok(Gpt2 {
                config: self.config.clone(),
                wte: self.wte.detach(),
                wpe: self.wpe.detach(),
                h: self.h.iter().map(|block| block.convert(dtype)).collect(),
                ln_f: self.ln_f.as_ref().map(LayerNorm::share),
                lm_head: convert_head(head, &self.wte, dtype),
            });
        };
        // A bias that cannot be folded (it is where ln_f's weight is zero) leaves ln_f in place.
        let (ln_f, head, shift) = match folded.head(self) {
            Ok(Some((head, shift))) => (None, Some(head), Some(shift)),
            _ => (self.ln_f.as_ref().map(LayerNorm::share), Some(self.unembedding().detach()), None),
        };
        let last = self.h.len().wrapping_sub(1);
        let h = self.h.iter().enumerate().map(|(layer, block)| {
            let mut block = folded.block(layer, block);
            if let Some(shift) = shift.as_ref().filter(|_| layer == last) {
                block.mlp.c_proj.bias += shift;
            }
            block.convert(dtype)
        });
        Ok(Gpt2 {
            h: h.collect(),
            config: self.config.clone(),
            wte: folded.writes(&self.wte),
            wpe: folded.writes(&self.wpe),
            ln_f,
            lm_head: convert_head(head.as_ref(), &self.wte, dtype),
        })
    }

    /// What a model that is [`for_inference`](Gpt2::for_inference) in `dtype` unembeds at the positions of
    /// `input_ids`, int64 `[batch, pos]`, that have a next token: `[batch · (pos − 1), n_embd]` in `dtype`.
    /// `hook` sees the blocks.
    ///
    /// # Errors
    /// When the input does not fit the model.
    pub(crate) fn unembedded(
        &self,
        input_ids: &Tensor,
        ln: &LnState,
        dtype: Kind,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut pass = self.pass(input_ids, ln, Compute { dtype, ..Compute::default() })?;
        let residual = self.residual(input_ids, &mut pass, hook);
        let last = self.final_norm(&predicting(&residual), &mut pass, &mut NoHook);
        Ok(pass.cast(&last).reshape([-1, self.config.n_embd]))
    }
}

/// The unembedding for `dtype`, `None` if the token embedding serves.
fn convert_head(head: Option<&Tensor>, wte: &Tensor, dtype: Kind) -> Option<Tensor> {
    match dtype {
        Kind::Float => head.map(|head| head.detach().to_kind(dtype)),
        _ => Some(centred_head(head.unwrap_or(wte), dtype)),
    }
}

/// The unembedding `[vocab_size, n_embd]` in `dtype`, without a graph. For bfloat16 the mean over the
/// vocabulary is taken out of every column: that moves all logits of a position by the same number, which no
/// probability and no gradient sees, and keeps them small, so that rounding them to 8 bits costs little
/// (GPT-2's own lie around −100, where bfloat16 has steps of a half).
pub(super) fn centred_head(head: &Tensor, dtype: Kind) -> Tensor {
    let head = head.detach().to_kind(Kind::Float);
    match dtype {
        Kind::Float => head,
        _ => (&head - head.mean_dim(0i64, true, Kind::Float)).to_kind(dtype),
    }
}

/// `map` with its matrix in `dtype`. For bfloat16 the matrix lies in memory as `[out, in]`, whatever its
/// shape says: so oneDNN reads it 1.4 times as fast for one position at a time, and a little faster for many.
fn convert(map: &Conv1d, dtype: Kind) -> Conv1d {
    let (weight, bias) = (map.weight.detach(), map.bias.detach().to_kind(dtype));
    let weight = match dtype {
        Kind::Float => weight.to_kind(dtype),
        _ => weight.transpose(0, 1).to_kind(dtype).contiguous().transpose(0, 1),
    };
    Conv1d::new(weight, bias)
}

impl Block {
    fn convert(&self, dtype: Kind) -> Block {
        let convert = |map: &Conv1d| convert(map, dtype);
        Block {
            ln_1: self.ln_1.as_ref().map(LayerNorm::share),
            attn: Attention {
                c_attn: convert(&self.attn.c_attn),
                c_proj: convert(&self.attn.c_proj),
                ..self.attn
            },
            ln_2: self.ln_2.as_ref().map(LayerNorm::share),
            mlp: Mlp { c_fc: convert(&self.mlp.c_fc), c_proj: convert(&self.mlp.c_proj) },
            resid_pdrop: self.resid_pdrop,
        }
    }
}

impl LayerNorm {
    /// The same parameters.
    pub(super) fn share(&self) -> LayerNorm {
        let (weight, bias) = (self.weight.detach(), self.bias.detach());
        LayerNorm { weight, bias, eps: self.eps, folded: self.folded }
    }
}
