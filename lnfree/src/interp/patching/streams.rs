//! Patches of the residual stream and of what is added to it.

use tch::{Device, Kind, Tensor};

use super::pair::Patching;
use super::patched::{Patched, Table};
use super::replace::Replacements;
use super::sweep::Sweep;
use crate::Result;
use crate::model::hook::Activation;

/// An activation of every block, `[batch, pos, n_embd]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamSite {
    /// The residual stream before the block.
    ResidPre,
    /// That between attention and MLP.
    ResidMid,
    /// What attention adds.
    AttnOut,
    /// What the MLP adds.
    MlpOut,
}

impl StreamSite {
    /// The activation of block `layer`.
    pub fn activation(self, layer: usize) -> Activation {
        match self {
            StreamSite::ResidPre => Activation::ResidPre(layer),
            StreamSite::ResidMid => Activation::ResidMid(layer),
            StreamSite::AttnOut => Activation::AttnOut(layer),
            StreamSite::MlpOut => Activation::MlpOut(layer),
        }
    }

    /// Before which block the patched stream is computed on, for a patch in block `layer`.
    fn entry(self, layer: usize) -> usize {
        if self == StreamSite::ResidPre { layer } else { layer + 1 }
    }
}

impl Patching<'_> {
    /// Patches one position of `site` in one block: metric `[layer, pos, batch]`. TransformerLens'
    /// `get_act_patch_resid_pre`, `_resid_mid`, `_attn_out` and `_mlp_out`.
    ///
    /// All four change the stream behind them at that position alone, so that they cost the same: see the
    /// module's text; the latter three one pass over every block more.
    ///
    /// # Errors
    /// If the metric cannot be read.
    pub fn by_position(&self, site: StreamSite) -> Result<Patched> {
        let _guard = tch::no_grad_guard();
        let (n_layer, end) = (self.base.n_layer(), self.base.pos());
        let patched = self.patched_streams(site)?;
        let changed = patched.iter().enumerate();
        let changed = changed.map(|(layer, x)| changed_at(x, &self.base.streams[site.entry(layer)]));
        let changed = changed.collect::<Result<Vec<_>>>()?;
        let mut table = Table::new(&self.corrupted, &[n_layer as i64, self.pos])?;
        for at in 0..end {
            let mut sweep = Sweep::new(self, at)?;
            for (layer, patched) in patched.iter().enumerate().filter(|(l, _)| changed[*l][at as usize]) {
                let entry = site.entry(layer);
                let rest = self.base.streams[entry].f_narrow(1, at + 1, end - at - 1)?;
                let stream = Tensor::f_cat(&[patched.f_narrow(1, at, 1)?, rest], 1)?;
                sweep.push(layer as i64 * self.pos + at, entry, stream)?;
            }
            if let Some((slots, found)) = sweep.finish()? {
                table.set(&slots, &found)?;
            }
        }
        self.result(table)
    }

    /// Patches all positions of `site` in one block: metric `[layer, batch]`.
    ///
    /// # Errors
    /// If the metric cannot be read.
    pub fn by_layer(&self, site: StreamSite) -> Result<Patched> {
        let _guard = tch::no_grad_guard();
        let mut table = Table::new(&self.corrupted, &[self.base.n_layer() as i64])?;
        let mut sweep = Sweep::new(self, 0)?;
        for (layer, stream) in self.patched_streams(site)?.into_iter().enumerate() {
            sweep.push(layer as i64, site.entry(layer), stream)?;
        }
        if let Some((slots, found)) = sweep.finish()? {
            table.set(&slots, &found)?;
        }
        self.result(table)
    }

    /// [`by_position`](Patching::by_position) of the residual stream before a block, of what attention adds
    /// and of what the MLP adds, in that order: TransformerLens' `get_act_patch_block_every`.
    ///
    /// # Errors
    /// If the metric cannot be read.
    pub fn every_block(&self) -> Result<[Patched; 3]> {
        Ok([
            self.by_position(StreamSite::ResidPre)?,
            self.by_position(StreamSite::AttnOut)?,
            self.by_position(StreamSite::MlpOut)?,
        ])
    }

    /// For each block the stream before block `site.entry(layer)` with `site` patched at all positions: since
    /// nothing behind attention mixes positions, at each of them it is that of a patch there alone.
    fn patched_streams(&self, site: StreamSite) -> Result<Vec<Tensor>> {
        let (n_layer, batch) = (self.base.n_layer(), self.base.batch());
        if site == StreamSite::ResidPre {
            return Ok(self.clean_streams[..n_layer].iter().map(Tensor::shallow_clone).collect());
        }
        let clean = self.of_clean((0..n_layer).map(|layer| site.activation(layer)))?;
        let patched = (0..n_layer).map(|layer| {
            let at = site.activation(layer);
            let mut hook = Replacements::whole(batch, at, clean.get(at)?);
            self.base.block(layer, &self.base.streams[layer], 0, &mut hook)
        });
        patched.collect()
    }

    /// A finished table with the two runs that it lies between.
    pub(super) fn result(&self, table: Table) -> Result<Patched> {
        let [clean, corrupted] = [&self.clean, &self.corrupted].map(Tensor::shallow_clone);
        Ok(Patched { metric: table.done()?, clean, corrupted })
    }
}

/// At which positions two streams `[batch, pos, n_embd]` differ in some text.
fn changed_at(x: &Tensor, y: &Tensor) -> Result<Vec<bool>> {
    let differ = x.f_ne_tensor(y)?.f_any_dim(-1, false)?.f_any_dim(0, false)?;
    let differ = Vec::<i64>::try_from(differ.f_to_kind(Kind::Int64)?.f_to_device(Device::Cpu)?)?;
    Ok(differ.into_iter().map(|n| n != 0).collect())
}
