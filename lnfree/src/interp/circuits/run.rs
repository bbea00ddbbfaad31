//! A run whose patterns are given, as the linear map that it then is.

use tch::{Kind, Tensor};

use super::Circuits;
use crate::model::hook::{Activation, Capture};
use crate::{Error, Result};

/// One sequence up to the position that is looked at, in float64.
pub(super) struct Run {
    /// `[source, pos, n_embd]`.
    sources: Tensor,
    pub(super) blocks: Vec<BlockRun>,
    /// Positions up to the one that is looked at.
    pos: i64,
}

/// The attention of a block in it.
pub(super) struct BlockRun {
    /// `[head, pos, pos]`.
    pattern: Tensor,
    /// `[head, n_embd, d_head]`.
    w_v: Tensor,
    /// `[head, d_head, n_embd]`.
    w_o: Tensor,
}

impl Run {
    pub(super) fn new(circuits: &Circuits, cache: &Capture, row: i64, position: i64) -> Result<Run> {
        let kept = |activation: Activation| -> Result<Tensor> {
            let kept = cache.get(activation)?;
            if !(0..kept.size()[0]).contains(&row) {
                return Err(Error::invalid(format!(
                    "the run has {} sequences and none {row}",
                    kept.size()[0]
                )));
            }
            Ok(kept.f_select(0, row)?.f_to_kind(Kind::Double)?)
        };
        let embed = kept(Activation::Embed)?;
        let pos = position + 1;
        if !(1..=embed.size()[0]).contains(&pos) {
            return Err(Error::invalid(format!("the run has no position {position}")));
        }
        let mut sources = vec![embed, kept(Activation::PosEmbed)?];
        let mut blocks = Vec::new();
        for (layer, heads) in circuits.blocks.iter().enumerate() {
            let pattern = kept(Activation::Pattern(layer))?.f_narrow(1, 0, pos)?.f_narrow(2, 0, pos)?;
            let [w_v, w_o, b_v, b_o] = doubles([&heads.w_v, &heads.w_o, &heads.b_v, &heads.b_o])?;
            // Rows of a pattern sum to one, unless a hook has changed them.
            let given = pattern.f_sum_dim_intlist(-1i64, false, Kind::Double)?.f_transpose(0, 1)?;
            let of_heads = b_v.f_unsqueeze(1)?.f_matmul(&w_o)?.f_squeeze_dim(1)?;
            sources.push(given.f_matmul(&of_heads)?.f_add(&b_o)?);
            sources.push(kept(Activation::MlpOut(layer))?);
            blocks.push(BlockRun { pattern, w_v, w_o });
        }
        let up_to_here = sources.iter().map(|x| Ok(x.f_narrow(0, 0, pos)?)).collect::<Result<Vec<_>>>()?;
        Ok(Run { sources: Tensor::f_stack(&up_to_here, 0)?, blocks, pos })
    }

    /// Sources that the attention of block `layer` reads.
    fn before(&self, layer: usize) -> Result<Tensor> {
        Ok(self.sources.f_narrow(0, 0, 2 + 2 * layer as i64)?)
    }

    fn n_head(&self) -> i64 {
        self.blocks.first().map_or(0, |block| block.pattern.size()[0])
    }

    /// `[source]`.
    pub(super) fn direct(&self, direction: &Tensor) -> Result<Tensor> {
        Ok(self.sources.f_select(1, self.pos - 1)?.f_matmul(direction)?)
    }

    /// `[layer, head, source]`.
    pub(super) fn one(&self, direction: &Tensor) -> Result<Tensor> {
        let size = [self.blocks.len() as i64, self.n_head(), self.sources.size()[0]];
        let out = Tensor::f_zeros(size, (Kind::Double, direction.device()))?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let sources = self.before(layer)?;
            // What a key's stream would write into the direction, [source, key, head].
            let values = sources.f_matmul(&block.reads_of(direction)?.f_transpose(0, 1)?)?;
            let given = block.last_row()?.f_transpose(0, 1)?.f_unsqueeze(0)?;
            let found = values.f_mul(&given)?.f_sum_dim_intlist(1i64, false, Kind::Double)?;
            let place = out.f_select(0, layer as i64)?.f_narrow(1, 0, sources.size()[0])?;
            place.shallow_clone().f_copy_(&found.f_transpose(0, 1)?)?;
        }
        Ok(out)
    }

    /// `[layer, head, layer, head, source]`, the second head first.
    pub(super) fn two(&self, direction: &Tensor) -> Result<Tensor> {
        let (n_layer, n_head) = (self.blocks.len() as i64, self.n_head());
        let size = [n_layer, n_head, n_layer, n_head, self.sources.size()[0]];
        let out = Tensor::f_zeros(size, (Kind::Double, direction.device()))?;
        for (l2, second) in self.blocks.iter().enumerate() {
            let (reads, given) = (second.reads_of(direction)?, second.last_row()?);
            for (l1, first) in self.blocks.iter().enumerate().take(l2) {
                let sources = self.before(l1)?;
                let found = first.through(&reads, &given, &sources)?;
                let place = out.f_select(0, l2 as i64)?.f_select(1, l1 as i64)?;
                place.f_narrow(2, 0, sources.size()[0])?.f_copy_(&found)?;
            }
        }
        Ok(out)
    }

    /// All paths by their number of heads, `[n_layer + 1]`: the stream is carried forward in as many parts.
    pub(super) fn by_depth(&self, direction: &Tensor) -> Result<Tensor> {
        let first = self.sources.f_narrow(0, 0, 2)?.f_sum_dim_intlist(0i64, true, Kind::Double)?;
        let none = first.f_zeros_like()?;
        let mut parts: Vec<Tensor> = vec![first];
        parts.extend(self.blocks.iter().map(|_| none.shallow_clone()));
        // [depth, pos, n_embd]
        let mut parts = Tensor::f_cat(&parts, 0)?;
        let n = self.blocks.len() as i64;
        for (layer, block) in self.blocks.iter().enumerate() {
            // A head makes a path one head longer; the longest have gone through every block so far.
            let longer = block.attention(&parts.f_narrow(0, 0, n)?)?;
            let new = self.sources.f_narrow(0, 2 + 2 * layer as i64, 2)?;
            let new = new.f_sum_dim_intlist(0i64, true, Kind::Double)?;
            parts = parts.f_add(&Tensor::f_cat(&[new, longer], 0)?)?;
        }
        Ok(parts.f_select(1, self.pos - 1)?.f_matmul(direction)?)
    }
}

impl BlockRun {
    /// What heads read to write into `direction` `[n_embd]`: W_V W_O direction, `[head, n_embd]`.
    fn reads_of(&self, direction: &Tensor) -> Result<Tensor> {
        let through = self.w_o.f_matmul(direction)?.f_unsqueeze(-1)?;
        Ok(self.w_v.f_matmul(&through)?.f_squeeze_dim(-1)?)
    }

    /// What the last position attends to, `[head, key]`.
    fn last_row(&self) -> Result<Tensor> {
        Ok(self.pattern.f_select(1, self.pattern.size()[1] - 1)?)
    }

    /// Paths through a head of this block and one of a later block that reads `reads` `[head, n_embd]` and
    /// gives `given` `[head, key]`: `[later head, head, source]`.
    fn through(&self, reads: &Tensor, given: &Tensor, sources: &Tensor) -> Result<Tensor> {
        let (n_head, n_later) = (self.pattern.size()[0], reads.size()[0]);
        let &[n_sources, pos, n_embd] = sources.size().as_slice() else {
            return Err(Error::invalid("sources are [source, pos, n_embd]"));
        };
        // [head, n_embd, later] → [later, head, n_embd]
        let reads = self.w_v.f_matmul(&self.w_o.f_matmul(&reads.f_transpose(0, 1)?)?)?;
        let reads = reads.f_permute([2i64, 0, 1])?.f_reshape([n_later * n_head, 1, n_embd])?;
        // [head, later, key] → [later, head, key]
        let given = given.f_matmul(&self.pattern)?.f_transpose(0, 1)?.f_reshape([n_later * n_head, pos])?;
        let by_key = sources.f_transpose(0, 1)?.f_reshape([pos, n_sources * n_embd])?;
        let seen = given.f_matmul(&by_key)?.f_reshape([n_later * n_head, n_sources, n_embd])?;
        let found = seen.f_mul(&reads)?.f_sum_dim_intlist(-1i64, false, Kind::Double)?;
        Ok(found.f_reshape([n_later, n_head, n_sources])?)
    }

    /// What the heads together make of `parts` `[depth, pos, n_embd]`, without biases.
    fn attention(&self, parts: &Tensor) -> Result<Tensor> {
        let values = parts.f_unsqueeze(1)?.f_matmul(&self.w_v)?;
        let written = self.pattern.f_matmul(&values)?.f_matmul(&self.w_o)?;
        Ok(written.f_sum_dim_intlist(1i64, false, Kind::Double)?)
    }
}

fn doubles(tensors: [&Tensor; 4]) -> Result<[Tensor; 4]> {
    let [a, b, c, d] = tensors;
    Ok([
        a.f_to_kind(Kind::Double)?,
        b.f_to_kind(Kind::Double)?,
        c.f_to_kind(Kind::Double)?,
        d.f_to_kind(Kind::Double)?,
    ])
}
