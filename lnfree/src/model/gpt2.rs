//! The whole forward of a GPT-2 whose LNs can be taken out one site at a time, from tokens to logits.
//!
//! Evaluation, training, generation and interpretability all run this code. What makes it fast are
//! transformations of the parameters ([`Gpt2::for_inference`], [`StepModel`](super::StepModel)) and of
//! single operations ([`crate::ops`]), not other forwards. An LN and its fake are in `layer_norm.rs`, which
//! of them is which in [`LnState`].

use tch::{Kind, Tensor};

use super::hook::{Activation, Hook, NoHook};
use super::layer_norm::Ln1Output;
use super::stream::Reader;
use super::{Compute, ForwardPass, KvCache, LayerNorm};
use crate::config::Gpt2Config;
use crate::config::norm::LnSite;
use crate::model::ln_state::LnState;
use crate::ops::{self, Gradients, ResidualStream};
use crate::{Error, Result};

/// A GPT-2: parameters only. Which LNs are fake is in a [`LnState`], given to every forward.
///
/// The folded model, which has no LN at all, is a `Gpt2` whose LN fields are `None`.
#[derive(Debug)]
pub struct Gpt2 {
    /// Sizes and constants.
    pub config: Gpt2Config,
    /// Token embedding, `[vocab_size, n_embd]`; also the unembedding unless `lm_head` is there.
    pub wte: Tensor,
    /// Position embedding, `[block_size, n_embd]`.
    pub wpe: Tensor,
    /// The blocks.
    pub h: Vec<Block>,
    /// The final LN.
    pub ln_f: Option<LayerNorm>,
    /// An untied unembedding, `[vocab_size, n_embd]`.
    pub lm_head: Option<Tensor>,
}

/// A transformer block: x += attn(ln_1(x)); x += mlp(ln_2(x)).
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

/// Causal multi-head attention of one block. Its values may read another normalisation than its queries and
/// keys.
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

/// The two-layer perceptron of a block, with tanh-GELU between.
#[derive(Debug)]
pub struct Mlp {
    /// Weight `[n_embd, n_inner]`.
    pub c_fc: Conv1d,
    /// Weight `[n_inner, n_embd]`.
    pub c_proj: Conv1d,
}

/// An affine map stored as the original GPT-2 stores it: y = x @ weight + bias.
#[derive(Debug)]
pub struct Conv1d {
    /// `[in, out]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
    /// Where a backward adds the gradients; None where weight and bias are leaves that gather their own.
    pub(crate) gradients: Option<Gradients>,
}

impl Gpt2 {
    /// Logits `[batch, pos, vocab_size]` of `input_ids`, int64 `[batch, pos]`, in the dtype of `compute`.
    ///
    /// # Errors
    /// As [`Gpt2::pass`], and [`Error::Hook`] when `hook` returns what cannot take an activation's place.
    pub fn forward(
        &self,
        input_ids: &Tensor,
        ln: &LnState,
        compute: Compute,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let mut pass = self.pass(input_ids, ln, compute)?;
        let residual = self.residual(input_ids, &mut pass, hook);
        let last = self.final_norm(&residual, &mut pass, hook);
        pass.check()?;
        Ok(self.unembed(&last, &pass))
    }

    /// Logits `[batch, vocab_size]` of the token after the last of `input_ids`, int64 `[batch, pos]`, which
    /// go on where `cache` ends: a whole prompt first, then a token at a time. What [`Gpt2::forward`] gives
    /// for the last position of everything together, without a hook: to look inside or to patch, give that
    /// the whole text.
    ///
    /// # Errors
    /// When the tokens do not fit the cache, or the cache is for another number of texts.
    pub fn decode(&self, input_ids: &Tensor, ln: &LnState, cache: &mut KvCache) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        cache.check(input_ids)?;
        let mut pass = self.pass(input_ids, ln, Compute { dtype: cache.kind(), ..Compute::default() })?;
        pass.start = cache.len() as i64;
        pass.cache = Some(cache);
        let residual = self.residual(input_ids, &mut pass, &mut NoHook);
        // Only the last position is unembedded; it is position 0 of a prompt only if the prompt is one token.
        let n = input_ids.size()[1];
        pass.start += n - 1;
        pass.is_eot = pass.is_eot.narrow(1, n - 1, 1);
        let last = self.final_norm(&residual.narrow(1, n - 1, 1), &mut pass, &mut NoHook);
        let logits = self.unembed(&last.squeeze_dim(1), &pass);
        cache.grow(n);
        Ok(logits)
    }

    /// Prepares a forward over `input_ids`, int64 `[batch, pos]`.
    ///
    /// # Errors
    /// When the input is longer than the model's positions, or not `[batch, pos]`.
    pub fn pass<'a>(&self, input_ids: &Tensor, ln: &'a LnState, compute: Compute) -> Result<ForwardPass<'a>> {
        let size = input_ids.size();
        let &[_, pos] = size.as_slice() else {
            return Err(Error::invalid(format!("input_ids must be [batch, pos], not {size:?}")));
        };
        if pos > self.config.block_size {
            return Err(Error::invalid(format!(
                "sequences of {pos} tokens do not fit the model's {} positions; cut the data to that length",
                self.config.block_size
            )));
        }
        if input_ids.device() == tch::Device::Cpu {
            crate::base::device::products();
        }
        let eot = self.config.eot_token_id().unwrap_or(-1);
        Ok(ForwardPass::new(input_ids.eq(eot).unsqueeze(-1), 2 * self.h.len() + 1, ln, compute))
    }

    /// The residual stream after the last block, float32 `[batch, pos, n_embd]`.
    pub fn residual(&self, input_ids: &Tensor, pass: &mut ForwardPass, hook: &mut dyn Hook) -> Tensor {
        let x = self.embed(input_ids, pass, hook);
        self.blocks(x, pass, hook)
    }

    /// Token plus position embedding with dropout, float32 `[batch, pos, n_embd]`.
    pub fn embed(&self, input_ids: &Tensor, pass: &ForwardPass, hook: &mut dyn Hook) -> Tensor {
        self.drop_embedding(self.look_up(input_ids, pass, hook), pass)
    }

    /// [`Gpt2::embed`] before dropout.
    pub(crate) fn look_up(&self, input_ids: &Tensor, pass: &ForwardPass, hook: &mut dyn Hook) -> Tensor {
        let tokens = Tensor::embedding(&self.wte, input_ids, -1, false, false);
        let tokens = pass.seen(Activation::Embed, tokens, hook);
        let mut positions = self.wpe.narrow(0, pass.start, input_ids.size()[1]);
        if hook.wants(Activation::PosEmbed) {
            // A copy: a hook may write into what it is given.
            positions = pass.seen(Activation::PosEmbed, positions.expand_as(&tokens).copy(), hook);
        }
        (tokens + positions).to_kind(Kind::Float)
    }

    /// Dropout on token plus position embedding.
    pub(crate) fn drop_embedding(&self, x: Tensor, pass: &ForwardPass) -> Tensor {
        pass.seed_dropout(0);
        pass.dropout(x, self.config.embd_pdrop)
    }

    /// The residual stream after the last block from the one before the first.
    pub(crate) fn blocks(&self, x: Tensor, pass: &mut ForwardPass, hook: &mut dyn Hook) -> Tensor {
        let mut x = ResidualStream::of(x);
        for (layer, block) in self.h.iter().enumerate() {
            x = block.forward(layer, x, self.h.get(layer + 1), pass, hook);
        }
        x.x
    }

    /// ln_f of the residual stream, float32 `[batch, pos, n_embd]`.
    pub fn final_norm(&self, residual: &Tensor, pass: &mut ForwardPass, hook: &mut dyn Hook) -> Tensor {
        match &self.ln_f {
            Some(ln_f) => {
                let residual = ResidualStream::of(residual.shallow_clone());
                ln_f.forward(&residual, LnSite::LnF, pass, hook)
            }
            None => pass.seen(Activation::Normalized(LnSite::LnF), residual.shallow_clone(), hook),
        }
    }

    /// Logits of the normalised residual stream, `[.., vocab_size]`.
    pub fn unembed(&self, last: &Tensor, pass: &ForwardPass) -> Tensor {
        pass.cast(last).linear::<Tensor>(&pass.cast(self.unembedding()), None)
    }

    /// The unembedding, `[vocab_size, n_embd]`.
    pub fn unembedding(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// Number of parameters, a tied unembedding counted once.
    pub fn n_parameters(&self) -> usize {
        self.named_parameters().iter().map(|(_, t)| t.numel()).sum()
    }
}

impl KvCache {
    /// An empty cache for `batch` texts of `capacity` tokens, no more than the model's positions; matrix
    /// products of a decode run in `kind`. Takes 2 · n_layer · batch · capacity · n_embd numbers of that
    /// type.
    pub fn new(model: &Gpt2, batch: i64, capacity: i64, kind: Kind) -> KvCache {
        KvCache::empty(&model.config, batch, capacity, kind, model.device())
    }
}

impl Block {
    /// The residual stream after block `layer`, which `next` reads, from the one before it.
    pub(crate) fn forward(
        &self,
        layer: usize,
        x: ResidualStream,
        next: Option<&Block>,
        pass: &mut ForwardPass,
        hook: &mut dyn Hook,
    ) -> ResidualStream {
        pass.seed_dropout(1 + layer);
        let x = x.seen(Activation::ResidPre(layer), pass, hook);
        let normed = match &self.ln_1 {
            Some(ln_1) => ln_1.forward_ln_1(&x, layer, pass, hook),
            None => Ln1Output::Same(x.as_it_is()),
        };
        let attn_out = self.attn.forward(layer, normed, pass, hook);
        let attn_out = pass.seen(Activation::AttnOut(layer), pass.dropout(attn_out, self.resid_pdrop), hook);

        let x = x.plus(&attn_out, Some(Reader::mlp(self.ln_2.as_ref(), layer)), pass);
        let x = x.seen(Activation::ResidMid(layer), pass, hook);
        let normed = match &self.ln_2 {
            Some(ln_2) => ln_2.forward(&x, LnSite::Ln2(layer), pass, hook),
            None => x.as_it_is(),
        };
        let mlp_out = self.mlp.forward(layer, &normed, pass, hook);
        let mlp_out = pass.seen(Activation::MlpOut(layer), pass.dropout(mlp_out, self.resid_pdrop), hook);

        let reader = next.map(|block| Reader::attention(block.ln_1.as_ref(), layer + 1));
        x.plus(&mlp_out, reader, pass).seen(Activation::ResidPost(layer), pass, hook)
    }

    /// Keys and values of block `layer`, `[batch, head, .., d_head]` each, of the pass's past and of the
    /// residual stream `x` before the block; nothing else of it is computed.
    pub(crate) fn keys_values(
        &self,
        layer: usize,
        x: &ResidualStream,
        pass: &mut ForwardPass,
    ) -> [Tensor; 2] {
        let normed = match &self.ln_1 {
            Some(ln_1) => ln_1.forward_ln_1(x, layer, pass, &mut NoHook),
            None => Ln1Output::Same(x.as_it_is()),
        };
        let (map, n) = (&self.attn.c_attn, self.attn.c_proj.weight.size()[1]);
        let [k, v] = match normed {
            Ln1Output::Same(x) => {
                let kv = map.columns(n, 2 * n).forward(&x, pass);
                [0, n].map(|start| kv.narrow(-1, start, n))
            }
            Ln1Output::Apart { qk, v } => {
                [map.columns(n, n).forward(&qk, pass), map.columns(2 * n, n).forward(&v, pass)]
            }
        };
        let [k, v] = [k, v].map(|x| self.attn.split_heads(&x).transpose(1, 2));
        match pass.past {
            Some(past) => [after(past[0], &k, pass.start), after(past[1], &v, pass.start)],
            None => [k, v],
        }
    }
}

impl Attention {
    /// What attention adds to the residual stream, `[batch, pos, n_embd]`, before residual dropout.
    fn forward(&self, layer: usize, input: Ln1Output, pass: &ForwardPass, hook: &mut dyn Hook) -> Tensor {
        let [q, k, v] = self.queries_keys_values(input, pass).map(|x| self.split_heads(&x));
        let q = pass.seen(Activation::Q(layer), q, hook);
        let k = pass.seen(Activation::K(layer), k, hook);
        let v = pass.seen(Activation::V(layer), v, hook);
        // [batch, pos, head, d_head] → [batch, head, pos, d_head]
        let [q, k, v] = [q, k, v].map(|x| x.transpose(1, 2));
        let p = if pass.has_dropout() { self.attn_pdrop } else { 0.0 };
        let z = if let Some(cache) = pass.cache {
            cache.attention(layer, pass.start, &q, &k, &v)
        } else if let Some(past) = pass.past {
            attention_after(past, [&q, &k, &v], pass.start)
        } else if hook.wants(Activation::AttnScores(layer)) || hook.wants(Activation::Pattern(layer)) {
            explicit_attention(layer, [&q, &k, &v], p, pass, hook)
        } else if p > 0.0 {
            Tensor::scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, p, true, None, false)
        } else {
            causal_attention(&q, &k, &v)
        };
        let z = pass.seen(Activation::Z(layer), z.transpose(1, 2), hook);
        self.c_proj.forward(&z.flatten(2, 3), pass)
    }

    /// Each `[batch, pos, n_embd]`.
    fn queries_keys_values(&self, input: Ln1Output, pass: &ForwardPass) -> [Tensor; 3] {
        let n = self.c_proj.weight.size()[1];
        match input {
            Ln1Output::Same(x) => {
                let qkv = self.c_attn.forward(&x, pass);
                [0, n, 2 * n].map(|start| qkv.narrow(-1, start, n))
            }
            Ln1Output::Apart { qk, v } => {
                let qk = self.c_attn.columns(0, 2 * n).forward(&qk, pass);
                let v = self.c_attn.columns(2 * n, n).forward(&v, pass);
                [qk.narrow(-1, 0, n), qk.narrow(-1, n, n), v]
            }
        }
    }

    /// `[batch, pos, n_embd]` → `[batch, pos, head, d_head]`.
    fn split_heads(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        x.view([size[0], size[1], self.n_head, -1])
    }
}

/// Attention of q, k and v `[runs · batch, head, n, d_head]` at positions `start ..` to these and to a past,
/// keys and values of `[batch, head, start.., d_head]`.
fn attention_after(past: [&Tensor; 2], [q, k, v]: [&Tensor; 3], start: i64) -> Tensor {
    let (k, v, n) = (after(past[0], k, start), after(past[1], v, start), q.size()[2]);
    // A single query sees all.
    let mask = (n > 1).then(|| Tensor::ones([n, start + n], (Kind::Bool, q.device())).tril(start));
    Tensor::scaled_dot_product_attention(q, &k, &v, mask.as_ref(), 0.0, false, None, false)
}

/// `new` `[runs · batch, head, n, d_head]` behind the first `start` positions of `past`, `[batch, head, ..,
/// d_head]`, of every run.
fn after(past: &Tensor, new: &Tensor, start: i64) -> Tensor {
    let (of_past, of_new) = (past.size(), new.size());
    let (batch, head, n, d_head) = (of_past[0], of_new[1], of_new[2], of_new[3]);
    let runs = of_new[0] / batch;
    let past = past.narrow(2, 0, start).unsqueeze(0).expand([runs, batch, head, start, d_head], false);
    Tensor::cat(&[past, new.view([runs, batch, head, n, d_head])], 3).flatten(0, 1)
}

/// Attention with scores and pattern made, for hooks that want to see them. `p`: dropout probability.
fn explicit_attention(
    layer: usize,
    [q, k, v]: [&Tensor; 3],
    p: f64,
    pass: &ForwardPass,
    hook: &mut dyn Hook,
) -> Tensor {
    let (pos, d_head) = (q.size()[2], q.size()[3]);
    let scores = q.matmul(&k.transpose(-2, -1)) / (d_head as f64).sqrt();
    let future = Tensor::ones([pos, pos], (Kind::Bool, q.device())).triu(1);
    let scores = scores.masked_fill(&future, f64::NEG_INFINITY);
    let scores = pass.seen(Activation::AttnScores(layer), scores, hook);
    let pattern = pass.seen(Activation::Pattern(layer), scores.softmax(-1, scores.kind()), hook);
    let pattern = if p > 0.0 { pattern.dropout(p, true) } else { pattern };
    pattern.matmul(v)
}

impl Mlp {
    /// What the MLP adds to the residual stream, `[batch, pos, n_embd]`, before residual dropout.
    fn forward(&self, layer: usize, input: &Tensor, pass: &ForwardPass, hook: &mut dyn Hook) -> Tensor {
        let pre = pass.seen(Activation::MlpPre(layer), self.c_fc.forward(input, pass), hook);
        let post = pass.seen(Activation::MlpPost(layer), gelu(&pre), hook);
        self.c_proj.forward(&post, pass)
    }
}

impl Conv1d {
    /// A map whose weight and bias gather their own gradients, if any.
    pub(crate) fn new(weight: Tensor, bias: Tensor) -> Conv1d {
        Conv1d { weight, bias, gradients: None }
    }

    /// `x` `[.., in]` → `[.., out]`, computed in the pass's dtype.
    fn forward(&self, x: &Tensor, pass: &ForwardPass) -> Tensor {
        let (x, weight, bias) = (pass.cast(x), pass.cast(&self.weight), pass.cast(&self.bias));
        ops::must(ops::linear(&x, &weight, &bias, self.gradients.as_ref()))
    }

    /// The part of the map that makes outputs `start .. start + len`; shares its storage and gradients.
    fn columns(&self, start: i64, len: i64) -> Conv1d {
        let part =
            |weight: &Tensor, bias: &Tensor| (weight.narrow(1, start, len), bias.narrow(0, start, len));
        let (weight, bias) = part(&self.weight, &self.bias);
        let gradients = self.gradients.as_ref().map(|g| {
            let (weight, bias) = part(&g.weight, &g.bias);
            Gradients { weight, bias }
        });
        Conv1d { weight, bias, gradients }
    }
}

/// GPT-2's GELU, x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), of float32 or bfloat16 of any shape;
/// differentiable.
pub fn gelu(x: &Tensor) -> Tensor {
    ops::must(ops::gelu(x))
}

/// Causal attention, softmax(q kᵀ / √d_head) v, of q, k and v `[batch, head, pos, d_head]`; likewise;
/// differentiable. No `[pos, pos]` matrix is made.
pub fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    ops::must(ops::causal_attention(q, k, v))
}
