//! Many patches that begin at one position.

use tch::Tensor;

use super::base::{Base, Entry};
use crate::Result;
use crate::interp::metrics::Metric;

/// Collects patches and computes them, as many together as pays.
#[derive(Debug)]
pub(super) struct Sweep<'s> {
    base: &'s Base<'s>,
    metric: &'s Metric<'s>,
    start: i64,
    at_a_time: usize,
    waiting: Vec<Entry>,
    /// `[some, batch]` each.
    found: Vec<Tensor>,
    slots: Vec<i64>,
}

impl<'s> Sweep<'s> {
    /// Of streams that differ from position `start` on.
    pub fn new(base: &'s Base<'s>, metric: &'s Metric<'s>, start: i64) -> Sweep<'s> {
        let at_a_time = base.runs_at_a_time(start);
        Sweep { base, metric, start, at_a_time, waiting: Vec::new(), found: Vec::new(), slots: Vec::new() }
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
        let parts = streams.f_split(self.base.batch(), 0)?;
        for (slot, stream) in (slot..).zip(parts) {
            self.push(slot, layer, stream)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let last = self.base.finish(self.start, &self.waiting, false)?;
        self.found.push(self.base.measured(&last, self.base.pos() - 1, self.metric)?);
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
