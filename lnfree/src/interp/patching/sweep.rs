//! Many patches that begin at one position.

use tch::Tensor;

use super::base::Entry;
use super::pair::Patching;
use crate::Result;
use crate::interp::metrics::mean;

/// Collects patches and computes them, as many together as pays.
#[derive(Debug)]
pub(super) struct Sweep<'s> {
    patching: &'s Patching<'s>,
    start: i64,
    /// The first position from `start` on that the metric reads.
    from: i64,
    /// What the metric reads before that, which no patch changes: `[batch, some]`.
    before: Tensor,
    at_a_time: usize,
    waiting: Vec<Entry>,
    /// `[some, batch]` each.
    found: Vec<Tensor>,
    slots: Vec<i64>,
}

impl<'s> Sweep<'s> {
    /// Of streams that differ from position `start` on.
    ///
    /// # Errors
    /// If the metric cannot be read.
    pub fn new(patching: &'s Patching<'s>, start: i64) -> Result<Sweep<'s>> {
        let base = &patching.base;
        let positions = patching.metric.positions(base.pos())?;
        let before = positions.partition_point(|at| *at < start);
        // The texts end at the last position read.
        let from = positions.get(before).copied().unwrap_or(start);
        let before = patching.corrupted_by_position.f_narrow(-1, 0, before as i64)?;
        let at_a_time = base.runs_at_a_time(start);
        let (waiting, found, slots) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Sweep { patching, start, from, before, at_a_time, waiting, found, slots })
    }

    /// A stream `[batch, pos − start, n_embd]` before block `layer`, which is none before that of the last
    /// one; `slot`: where its metric goes.
    pub fn push(&mut self, slot: i64, layer: usize, stream: Tensor) -> Result<()> {
        self.waiting.push(Entry { layer, stream });
        self.slots.push(slot);
        if self.waiting.len() == self.at_a_time { self.flush() } else { Ok(()) }
    }

    /// The streams of several runs, `[runs · batch, pos − start, n_embd]`, into slots from `slot` on.
    pub fn push_runs(&mut self, slot: i64, layer: usize, streams: &Tensor) -> Result<()> {
        let parts = streams.f_split(self.patching.base.batch(), 0)?;
        for (slot, stream) in (slot..).zip(parts) {
            self.push(slot, layer, stream)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let base = &self.patching.base;
        let last = base.finish(self.start, &self.waiting, self.from)?;
        let behind = base.measured(&last, self.from, self.patching.metric)?;
        let (runs, batch, _) = behind.size3()?;
        let before = self.before.f_unsqueeze(0)?.f_expand([runs, batch, -1], false)?;
        self.found.push(mean(&Tensor::f_cat(&[before, behind], -1)?)?);
        self.waiting.clear();
        Ok(())
    }

    /// The slots and, in their order, the metrics `[slots, batch]`; `None` if there are none.
    pub fn finish(mut self) -> Result<Option<(Vec<i64>, Tensor)>> {
        self.flush()?;
        if self.found.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.slots, Tensor::f_cat(&self.found, 0)?)))
    }
}
