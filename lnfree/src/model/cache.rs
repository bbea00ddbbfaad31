//! Decoding a token at a time: keys and values of earlier positions are kept instead of computed again.

use tch::{Kind, Tensor};

use super::layer_norm::Faces;
use super::stream::Reader;
use super::{Attention, Block, Compute, Gpt2, Pass, causal_attention};
use crate::model::hook::NoHook;
use crate::model::ln_state::LnState;
use crate::ops::Stream;
use crate::{Error, Result};

/// Keys and values of the positions that [`Gpt2::decode`] has seen, in memory taken once.
#[derive(Debug)]
pub struct KvCache {
    blocks: Vec<Kept>,
    kind: Kind,
    batch: i64,
    capacity: i64,
    len: i64,
}

/// Keys and values of one block, `[batch, head, capacity, d_head]` each.
#[derive(Debug)]
struct Kept {
    k: Tensor,
    v: Tensor,
}

impl KvCache {
    /// An empty cache for `batch` texts of `capacity` tokens, no more than the model's positions; matrix products of a decode run in
    /// `kind`. Takes 2 · n_layer · batch · capacity · n_embd numbers of that type.
    pub fn new(model: &Gpt2, batch: i64, capacity: i64, kind: Kind) -> KvCache {
        let config = &model.config;
        let capacity = capacity.clamp(1, config.block_size);
        let size = [batch, config.n_head, capacity, config.n_embd / config.n_head];
        let empty = || Tensor::empty(size, (kind, model.device()));
        let blocks = model.h.iter().map(|_| Kept { k: empty(), v: empty() }).collect();
        KvCache { blocks, kind, batch, capacity, len: 0 }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further token fits.
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Whether `input_ids` can be added.
    fn check(&self, input_ids: &Tensor) -> Result<()> {
        let size = input_ids.size();
        if size.first() != Some(&self.batch) || size.len() != 2 || size[1] == 0 {
            let message = format!("a cache of {} texts cannot take input_ids {size:?}", self.batch);
            return Err(Error::invalid(message));
        }
        if self.len + size[1] > self.capacity {
            return Err(Error::invalid(format!(
                "{} more tokens do not fit a cache of {} positions that holds {}; clear it and begin anew",
                size[1], self.capacity, self.len
            )));
        }
        Ok(())
    }
}

impl Gpt2 {
    /// Logits `[batch, vocab_size]` of the token after the last of `input_ids`, int64 `[batch, pos]`, which go on where `cache` ends:
    /// a whole prompt first, then a token at a time. What [`Gpt2::forward`] gives for the last position of
    /// everything together, without a hook: to look inside or to patch, give that the whole text.
    ///
    /// # Errors
    /// When the tokens do not fit the cache, or the cache is for another number of texts.
    pub fn decode(&self, input_ids: &Tensor, ln: &LnState, cache: &mut KvCache) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        cache.check(input_ids)?;
        let mut pass = self.pass(input_ids, ln, Compute { dtype: cache.kind, ..Compute::default() })?;
        pass.start = cache.len;
        let n = input_ids.size()[1];
        let mask = mask(cache.len, n, input_ids.device());
        let mut x = self.embed(input_ids, &pass, &mut NoHook);
        for (layer, (block, kept)) in self.h.iter().zip(&cache.blocks).enumerate() {
            x = block.decode(layer, x, &mut pass, kept, mask.as_ref());
        }
        cache.len += n;
        // Only the last position is unembedded; it is position 0 of a prompt only if the prompt is one token.
        pass.start += n - 1;
        pass.is_eot = pass.is_eot.narrow(1, n - 1, 1);
        let last = self.final_norm(&x.narrow(1, n - 1, 1), &mut pass, &mut NoHook);
        Ok(self.unembed(&last.squeeze_dim(1), &pass))
    }
}

/// Which of `start + n` keys each of the last `n` queries sees, bool `[n, start + n]`. Attention needs none where it can do without:
/// a single query sees all, and from position 0 on it has a causal mask of its own.
fn mask(start: i64, n: i64, device: tch::Device) -> Option<Tensor> {
    (start > 0 && n > 1).then(|| Tensor::ones([n, start + n], (Kind::Bool, device)).tril(start))
}

impl Block {
    /// [`Block::forward`] for the tokens after those in `kept`, which takes up theirs; no hooks, no dropout.
    fn decode(&self, layer: usize, x: Tensor, pass: &mut Pass, kept: &Kept, mask: Option<&Tensor>) -> Tensor {
        let x = Stream::of(x);
        let faces = self.attention_reads(layer, &x, pass);
        let x = x.plus(
            &self.attn.decode(faces, pass, kept, mask),
            Some(Reader::mlp(self.ln_2.as_ref(), layer)),
            pass,
        );
        let normed = self.mlp_reads(layer, &x, pass);
        let post = self.mlp.c_fc.forward(&normed, pass).gelu_("tanh");
        x.plus(&self.mlp.c_proj.forward(&post, pass), None, pass).x
    }
}

impl Attention {
    fn decode(&self, input: Faces, pass: &Pass, kept: &Kept, mask: Option<&Tensor>) -> Tensor {
        let (q, k, v) = self.qkv(input, pass);
        let [q, k, v] = [q, k, v].map(|x| self.split_heads(&x));
        let [batch, _, n, _] = q.size()[..] else { return q };
        let end = pass.start + n;
        kept.k.narrow(2, pass.start, n).copy_(&k);
        kept.v.narrow(2, pass.start, n).copy_(&v);
        let (k, v) = (kept.k.narrow(2, 0, end), kept.v.narrow(2, 0, end));
        let z = match pass.start == 0 && n > 1 {
            true => causal_attention(&q, &k, &v),
            false => Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, false, None, false),
        };
        self.c_proj.forward(&z.transpose(1, 2).reshape([batch, n, -1]), pass)
    }
}
