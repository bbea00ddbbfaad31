//! Keys and values of earlier positions, kept instead of computed again: what decoding a token at a time
//! needs.

use tch::{Device, Kind, Tensor};

use crate::config::Gpt2Config;
use crate::{Error, Result, ops};

/// Keys and values of the positions that [`Gpt2::decode`](super::Gpt2::decode) has seen, in memory taken
/// once.
#[derive(Debug)]
pub struct KvCache {
    blocks: Vec<KeysAndValues>,
    kind: Kind,
    batch: i64,
    capacity: i64,
    len: i64,
}

/// Of one block, `[batch, head, capacity, d_head]` each.
#[derive(Debug)]
struct KeysAndValues {
    k: Tensor,
    v: Tensor,
}

impl KvCache {
    /// See [`KvCache::new`].
    pub(super) fn empty(
        config: &Gpt2Config,
        batch: i64,
        capacity: i64,
        kind: Kind,
        device: Device,
    ) -> KvCache {
        let capacity = capacity.clamp(1, config.block_size);
        let size = [batch, config.n_head, capacity, config.n_embd / config.n_head];
        let empty = || Tensor::empty(size, (kind, device));
        let blocks = (0..config.n_layer).map(|_| KeysAndValues { k: empty(), v: empty() }).collect();
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

    /// The type of what is kept.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Counts `n` positions more as held, in every block.
    pub(super) fn grow(&mut self, n: i64) {
        self.len += n;
    }

    /// Whether `input_ids` can be added.
    pub(super) fn check(&self, input_ids: &Tensor) -> Result<()> {
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

    /// Attention of queries at `start ..` of block `layer`, whose keys and values are taken up, over all up
    /// to them. q, k, v: `[batch, head, n, d_head]`; likewise.
    pub(super) fn attention(&self, layer: usize, start: i64, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let (kept, n) = (&self.blocks[layer], q.size()[2]);
        kept.k.narrow(2, start, n).copy_(k);
        kept.v.narrow(2, start, n).copy_(v);
        if start == 0 && n > 1 {
            return ops::must(ops::causal_attention(q, k, v));
        }
        let (k, v) = (kept.k.narrow(2, 0, start + n), kept.v.narrow(2, 0, start + n));
        // A single query sees all.
        let mask = (n > 1).then(|| Tensor::ones([n, start + n], (Kind::Bool, q.device())).tril(start));
        Tensor::scaled_dot_product_attention(q, &k, &v, mask.as_ref(), 0.0, false, None, false)
    }
}
