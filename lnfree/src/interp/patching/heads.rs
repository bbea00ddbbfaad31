//! Patches of single attention heads.

use tch::Tensor;

use super::pair::Patching;
use super::patched::{Patched, Table};
use super::replace::{Replacement, Replacements, head_by_run, mask_of};
use super::sweep::Sweep;
use crate::model::hook::Activation;
use crate::{Error, Result};

/// An activation of every head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSite {
    /// Attention-weighted values, the head's output.
    Z,
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Attention probabilities.
    Pattern,
}

impl HeadSite {
    /// All of them, in the order of TransformerLens' `get_act_patch_attn_head_all_pos_every`.
    pub const ALL: [HeadSite; 5] = [HeadSite::Z, HeadSite::Q, HeadSite::K, HeadSite::V, HeadSite::Pattern];

    /// The activation of block `layer`.
    pub fn activation(self, layer: usize) -> Activation {
        match self {
            HeadSite::Z => Activation::Z(layer),
            HeadSite::Q => Activation::Q(layer),
            HeadSite::K => Activation::K(layer),
            HeadSite::V => Activation::V(layer),
            HeadSite::Pattern => Activation::Pattern(layer),
        }
    }

    /// Where the heads are in `[runs, batch, ..]`.
    fn head_dim(self) -> usize {
        if self == HeadSite::Pattern { 2 } else { 3 }
    }
}

impl Patching<'_> {
    /// Patches one head at all positions: metric `[layer, head, batch]`. TransformerLens'
    /// `get_act_patch_attn_head_out_all_pos`, and those of q, k, v and patterns.
    ///
    /// # Errors
    /// If the metric cannot be read.
    pub fn by_head(&self, site: HeadSite) -> Result<Patched> {
        let _guard = tch::no_grad_guard();
        let (n_layer, n_head) = (self.base.n_layer(), self.n_head());
        let mut table = Table::new(&self.corrupted, &[n_layer as i64, n_head])?;
        let clean = self.of_clean((0..n_layer).map(|layer| site.activation(layer)))?;
        let mut sweep = Sweep::new(self, 0)?;
        for layer in 0..n_layer {
            let value = clean.get(site.activation(layer))?;
            self.every_head(site, layer, value, 0, None, |head, streams| {
                sweep.push_runs(layer as i64 * n_head + head, layer + 1, streams)
            })?;
        }
        if let Some((slots, found)) = sweep.finish()? {
            table.set(&slots, &found)?;
        }
        self.result(table)
    }

    /// Patches one head at one position: metric `[layer, pos, head, batch]`. TransformerLens'
    /// `get_act_patch_attn_head_out_by_pos`, and those of q, k and v.
    ///
    /// Outputs and queries change the stream at that position alone, and one pass over the block serves all
    /// positions; keys and values change it there and behind.
    ///
    /// # Errors
    /// For patterns, which have two positions, and if the metric cannot be read.
    pub fn by_head_and_position(&self, site: HeadSite) -> Result<Patched> {
        if site == HeadSite::Pattern {
            return Err(Error::invalid("a pattern is of two positions: patch it by head"));
        }
        let _guard = tch::no_grad_guard();
        let (n_layer, n_head, end) = (self.base.n_layer(), self.n_head(), self.base.pos());
        let mut table = Table::new(&self.corrupted, &[n_layer as i64, self.pos, n_head])?;
        let clean = self.of_clean((0..n_layer).map(|layer| site.activation(layer)))?;
        for layer in 0..n_layer {
            let value = clean.get(site.activation(layer))?;
            let mut everywhere = Vec::new();
            if matches!(site, HeadSite::Z | HeadSite::Q) {
                self.every_head(site, layer, value, 0, None, |_, streams| {
                    everywhere.extend(streams.f_split(self.base.batch(), 0)?);
                    Ok(())
                })?;
            }
            for at in 0..end {
                let mut sweep = Sweep::new(self, at)?;
                let slot = (layer as i64 * self.pos + at) * n_head;
                let rest = self.base.streams[layer + 1].f_narrow(1, at + 1, end - at - 1)?;
                for (slot, patched) in (slot..).zip(&everywhere) {
                    let stream = Tensor::f_cat(&[&patched.f_narrow(1, at, 1)?, &rest], 1)?;
                    sweep.push(slot, layer + 1, stream)?;
                }
                if everywhere.is_empty() {
                    let value = value.f_narrow(1, at, end - at)?;
                    self.every_head(site, layer, &value, at, Some(0), |head, streams| {
                        sweep.push_runs(slot + head, layer + 1, streams)
                    })?;
                }
                if let Some((slots, found)) = sweep.finish()? {
                    table.set(&slots, &found)?;
                }
            }
        }
        self.result(table)
    }

    fn n_head(&self) -> i64 {
        self.base.model.config.n_head
    }

    /// The streams after block `layer` of the corrupted run from `start` on, with `value` in the place of
    /// one head's: at position `start + only`, or at all. They are given to `take` some heads at a time, with
    /// the first of these, as `[heads · batch, pos − start, n_embd]`.
    fn every_head(
        &self,
        site: HeadSite,
        layer: usize,
        value: &Tensor,
        start: i64,
        only: Option<i64>,
        mut take: impl FnMut(i64, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let (n_head, device) = (self.n_head(), value.device());
        let at_a_time = (self.base.runs_at_a_time(start) as i64).min(n_head);
        for first in (0..n_head).step_by(at_a_time as usize) {
            let runs = at_a_time.min(n_head - first);
            let mut mask = head_by_run(first, runs, n_head, site.head_dim(), 5, device)?;
            if let Some(only) = only {
                mask = mask.f_logical_and(&mask_of(2, 5, self.base.pos() - start, &[only], device)?)?;
            }
            let at = site.activation(layer);
            let all = vec![Replacement { at, mask, value: value.shallow_clone() }];
            let mut hook = Replacements { batch: self.base.batch(), all };
            let streams = self.base.repeated(layer, start, runs)?;
            take(first, &self.base.block(layer, &streams, start, &mut hook)?)?;
        }
        Ok(())
    }
}
