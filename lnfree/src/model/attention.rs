//! Causal self-attention whose values may read another normalisation than its queries and keys.

use tch::{Kind, Tensor};

use super::layer_norm::Faces;
use super::{Conv1d, Pass};
use crate::model::hook::{Activation, Hook};
use crate::ops;

/// Causal attention, softmax(q kᵀ / √d_head) v, of q, k and v `[batch, head, pos, d_head]`; likewise; differentiable. No `[pos, pos]` matrix is made.
pub fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    ops::must(ops::causal_attention(q, k, v))
}

/// Multi-head attention of one block.
#[derive(Debug)]
pub struct Attention {
    /// Queries, keys and values side by side, weight `[n_embd, 3 · n_embd]`.
    pub c_attn: Conv1d,
    /// Output projection, weight `[n_embd, n_embd]`.
    pub c_proj: Conv1d,
    /// Number of heads.
    pub n_head: i64,
    /// Dropout probability of attention weights.
    pub attn_pdrop: f64,
}

impl Attention {
    /// What attention adds to the residual stream, `[batch, pos, n_embd]`, before residual dropout.
    pub(super) fn forward(&self, layer: usize, input: Faces, pass: &Pass, hook: &mut dyn Hook) -> Tensor {
        let (q, k, v) = self.qkv(input, pass);
        let q = pass.seen(Activation::Q(layer), self.split_heads(&q), hook);
        let k = pass.seen(Activation::K(layer), self.split_heads(&k), hook);
        let v = pass.seen(Activation::V(layer), self.split_heads(&v), hook);
        let p = if pass.compute.dropout_seed.is_some() { self.attn_pdrop } else { 0.0 };
        let z = if hook.looks() && hook.wants_pattern() {
            explicit(layer, [&q, &k, &v], p, pass, hook)
        } else if p > 0.0 {
            Tensor::scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, p, true, None, false)
        } else {
            causal_attention(&q, &k, &v)
        };
        let z = pass.seen(Activation::Z(layer), z, hook);
        let [batch, _, pos, _] = z.size()[..] else { return z };
        let z = z.transpose(1, 2).reshape([batch, pos, -1]);
        self.c_proj.forward(&z, pass)
    }

    pub(super) fn qkv(&self, input: Faces, pass: &Pass) -> (Tensor, Tensor, Tensor) {
        let mut parts = match input {
            Faces::Same(x) => self.c_attn.forward(&x, pass).chunk(3, -1),
            Faces::Apart { qk, v } => {
                let n = self.c_proj.weight.size()[1];
                let mut parts = self.c_attn.columns(0, 2 * n).forward(&qk, pass).chunk(2, -1);
                parts.push(self.c_attn.columns(2 * n, n).forward(&v, pass));
                parts
            }
        };
        let v = parts.swap_remove(2);
        let k = parts.swap_remove(1);
        (parts.swap_remove(0), k, v)
    }

    /// `[batch, pos, n_embd]` → `[batch, head, pos, d_head]`.
    pub(super) fn split_heads(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        x.view([size[0], size[1], self.n_head, -1]).transpose(1, 2)
    }
}

/// Attention with scores and pattern made, for hooks that want to see them. `p`: dropout probability.
fn explicit(layer: usize, [q, k, v]: [&Tensor; 3], p: f64, pass: &Pass, hook: &mut dyn Hook) -> Tensor {
    let (pos, d_head) = (q.size()[2], q.size()[3]);
    let scores = q.matmul(&k.transpose(-2, -1)) / (d_head as f64).sqrt();
    let future = Tensor::ones([pos, pos], (Kind::Bool, q.device())).triu(1);
    let scores = scores.masked_fill(&future, f64::NEG_INFINITY);
    let scores = pass.seen(Activation::AttnScores(layer), scores, hook);
    let pattern = pass.seen(Activation::Pattern(layer), scores.softmax(-1, scores.kind()), hook);
    let pattern = if p > 0.0 { pattern.dropout(p, true) } else { pattern };
    pattern.matmul(v)
}
