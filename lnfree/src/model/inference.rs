//! A model made ready for many forwards without gradients.

use tch::{Kind, Tensor};

use super::{Block, Conv1d, Gpt2, LayerNorm};

impl Gpt2 {
    /// A model that computes the same with matrix products in `dtype`, its matrices converted once instead of in every
    /// forward; in float32 it shares all storage with this one.
    ///
    /// For bfloat16 the unembedding is made apart, see [`Gpt2::unembedding_in`].
    pub fn for_inference(&self, dtype: Kind) -> Gpt2 {
        let _guard = tch::no_grad_guard();
        let lm_head = match dtype {
            Kind::Float => self.lm_head.as_ref().map(|head| head.shallow_clone()),
            _ => Some(self.unembedding_in(dtype)),
        };
        Gpt2 {
            config: self.config.clone(),
            wte: self.wte.shallow_clone(),
            wpe: self.wpe.shallow_clone(),
            h: self.h.iter().map(|block| block.for_inference(dtype)).collect(),
            ln_f: self.ln_f.as_ref().map(LayerNorm::share),
            lm_head,
        }
    }

    /// The unembedding in `dtype`, without a graph. For bfloat16 the mean over the vocabulary is taken out of every column: that moves all
    /// logits of a position by the same number, which no probability sees, and keeps them small, so that rounding them to 8 bits
    /// costs little (GPT-2's own lie around −100, where bfloat16 has steps of a half).
    pub(crate) fn unembedding_in(&self, dtype: Kind) -> Tensor {
        let head = self.unembedding().detach();
        match dtype {
            Kind::Float => head.to_kind(Kind::Float),
            _ => {
                let head = head.to_kind(Kind::Float);
                (&head - head.mean_dim(0i64, true, Kind::Float)).to_kind(dtype)
            }
        }
    }
}

impl Block {
    fn for_inference(&self, dtype: Kind) -> Block {
        let convert = |map: &Conv1d| Conv1d {
            weight: map.weight.detach().to_kind(dtype),
            bias: map.bias.detach().to_kind(dtype),
            gradients: None,
        };
        Block {
            ln_1: self.ln_1.as_ref().map(LayerNorm::share),
            attn: super::Attention {
                c_attn: convert(&self.attn.c_attn),
                c_proj: convert(&self.attn.c_proj),
                ..self.attn
            },
            ln_2: self.ln_2.as_ref().map(LayerNorm::share),
            mlp: super::Mlp { c_fc: convert(&self.mlp.c_fc), c_proj: convert(&self.mlp.c_proj) },
            resid_pdrop: self.resid_pdrop,
        }
    }
}

impl LayerNorm {
    /// The same parameters.
    fn share(&self) -> LayerNorm {
        LayerNorm {
            weight: self.weight.detach(),
            bias: self.bias.detach(),
            eps: self.eps,
            folded: self.folded,
        }
    }
}
