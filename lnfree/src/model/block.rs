//! One transformer block: x += attn(ln_1(x)); x += mlp(ln_2(x)).

use tch::Tensor;

use super::conv1d::{Conv1d, gelu};
use super::layer_norm::Faces;
use super::stream::Reader;
use super::{Attention, LayerNorm, Pass, seed_dropout};
use crate::config::norm::LnSite;
use crate::model::hook::{Activation, Hook};
use crate::ops::Stream;

/// The two-layer perceptron of a block, with tanh-GELU between.
#[derive(Debug)]
pub struct Mlp {
    /// Weight `[n_embd, n_inner]`.
    pub c_fc: Conv1d,
    /// Weight `[n_inner, n_embd]`.
    pub c_proj: Conv1d,
}

/// A transformer block.
#[derive(Debug)]
pub struct Block {
    /// LN before attention.
    pub ln_1: Option<LayerNorm>,
    /// Attention.
    pub attn: Attention,
    /// LN before the MLP.
    pub ln_2: Option<LayerNorm>,
    /// The MLP.
    pub mlp: Mlp,
    /// Dropout probability of what is added to the residual stream.
    pub resid_pdrop: f64,
}

impl Block {
    /// The residual stream after block `layer`, which `next` reads, from the one before it.
    pub(crate) fn forward(
        &self,
        layer: usize,
        x: Stream,
        next: Option<&Block>,
        pass: &mut Pass,
        hook: &mut dyn Hook,
    ) -> Stream {
        if let Some(seed) = pass.compute.dropout_seed {
            seed_dropout(seed, 1 + layer);
        }
        let x = x.seen(Activation::ResidPre(layer), pass, hook);
        let faces = self.attention_reads(layer, &x, pass);
        let attn_out = self.attn.forward(layer, faces, pass, hook);
        let attn_out = pass.seen(Activation::AttnOut(layer), pass.dropout(attn_out, self.resid_pdrop), hook);
        let x = x.plus(&attn_out, Some(Reader::mlp(self.ln_2.as_ref(), layer)), pass);
        let x = x.seen(Activation::ResidMid(layer), pass, hook);
        let normed = self.mlp_reads(layer, &x, pass);
        let pre = pass.seen(Activation::MlpPre(layer), self.mlp.c_fc.forward(&normed, pass), hook);
        let post = pass.seen(Activation::MlpPost(layer), gelu(&pre), hook);
        let mlp_out = pass.dropout(self.mlp.c_proj.forward(&post, pass), self.resid_pdrop);
        let mlp_out = pass.seen(Activation::MlpOut(layer), mlp_out, hook);
        let reader = next.map(|block| Reader::attention(block.ln_1.as_ref(), layer + 1));
        x.plus(&mlp_out, reader, pass).seen(Activation::ResidPost(layer), pass, hook)
    }

    /// Both faces of ln_1, or the stream as it is.
    pub(super) fn attention_reads(&self, layer: usize, x: &Stream, pass: &mut Pass) -> Faces {
        match &self.ln_1 {
            Some(ln_1) => ln_1.faces(x, layer, pass),
            None => Faces::Same(x.as_it_is()),
        }
    }

    /// ln_2, or the stream as it is.
    pub(super) fn mlp_reads(&self, layer: usize, x: &Stream, pass: &mut Pass) -> Tensor {
        match &self.ln_2 {
            Some(ln_2) => ln_2.forward(x, LnSite::Ln2(layer), pass),
            None => x.as_it_is(),
        }
    }
}
