//! The two runs that patches are made of.

use tch::Tensor;

use super::base::{Base, captured};
use crate::interp::metrics::{Metric, mean};
use crate::model::Gpt2;
use crate::model::hook::{Activation, Capture};
use crate::model::ln_state::LnState;
use crate::{Error, Result};

/// A clean and a corrupted run of a model, ready for patches of the one into the other.
///
/// ```
/// use lnfree::interp::{Metric, Patching, StreamSite};
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
/// let clean = Tensor::from_slice(&[5i64, 9, 2, 7]).unsqueeze(0);
/// let corrupted = Tensor::from_slice(&[5i64, 8, 2, 7]).unsqueeze(0);
/// let answers = Tensor::from_slice(&[11i64, 12]).unsqueeze(0);
/// let metric = Metric::logit_difference(&answers);
/// let patching = Patching::new(&nano.model, &nano.ln, &clean, &corrupted, &metric)?;
/// let found = patching.by_position(StreamSite::ResidPre)?;
/// // [layer, position, batch]
/// assert_eq!(found.metric.size(), [6, 4, 1]);
/// // Before the texts differ there is nothing to patch.
/// assert_eq!(found.effect().double_value(&[3, 0, 0]), 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Patching<'a> {
    pub(super) metric: &'a Metric<'a>,
    /// The corrupted run, up to the last position that the metric reads.
    pub(super) base: Base<'a>,
    /// The clean run likewise, int64 `[batch, last read + 1]`.
    pub(super) clean_ids: Tensor,
    /// Its residual stream before every block and after the last, `[batch, last read + 1, n_embd]`.
    pub(super) clean_streams: Vec<Tensor>,
    /// What the metric is of the corrupted run at each of the positions read, float32 `[batch, some]`.
    pub(super) corrupted_by_position: Tensor,
    /// Positions of the texts; what comes after the last one read does nothing.
    pub(super) pos: i64,
    /// Metric of the clean run, float32 `[batch]`.
    pub clean: Tensor,
    /// Metric of the corrupted run, float32 `[batch]`.
    pub corrupted: Tensor,
}

/// Clean and corrupted ids on the model's device, cut behind the last position that the metric reads.
///
/// # Errors
/// If they are of two shapes or empty, or there is no such position.
pub(super) fn cut(model: &Gpt2, clean: &Tensor, corrupted: &Tensor, metric: &Metric) -> Result<[Tensor; 2]> {
    let (size, other) = (clean.size(), corrupted.size());
    if size != other {
        return Err(Error::invalid(format!(
            "clean ids are {size:?} and corrupted ids {other:?}: a patch needs two texts of one length"
        )));
    }
    let &[_, pos] = size.as_slice() else {
        return Err(Error::invalid(format!("ids must be [batch, pos], not {size:?}")));
    };
    if size.contains(&0) {
        return Err(Error::invalid(format!("ids are {size:?}: there is nothing to patch")));
    }
    let len = metric.positions(pos)?.last().map_or(0, |last| last + 1);
    let cut = |ids: &Tensor| Ok::<_, Error>(ids.f_narrow(1, 0, len)?.f_to_device(model.device())?);
    Ok([cut(clean)?, cut(corrupted)?])
}

impl<'a> Patching<'a> {
    /// Runs the model once on each of `clean` and `corrupted`, int64 `[batch, pos]`, without padding. Keeps
    /// 4 · n_layer tensors of `[batch, pos, n_embd]`.
    ///
    /// The ids stay those of the corrupted run: fake LNs that divide end-of-text by a constant of its own do
    /// so where the corrupted text has it.
    ///
    /// # Errors
    /// If the two differ in shape, the model cannot take them, or the metric cannot be read.
    pub fn new(
        model: &'a Gpt2,
        ln: &'a LnState,
        clean: &Tensor,
        corrupted: &Tensor,
        metric: &'a Metric<'a>,
    ) -> Result<Patching<'a>> {
        let _guard = tch::no_grad_guard();
        let [clean_ids, corrupted_ids] = cut(model, clean, corrupted, metric)?;
        let pos = clean.size()[1];
        let base = Base::new(model, ln, &corrupted_ids)?;
        let wanted = (0..base.n_layer()).map(Activation::ResidPre);
        let (kept, last) = captured(model, ln, &clean_ids, wanted)?;
        let streams = (0..base.n_layer()).map(|l| Ok(kept.get(Activation::ResidPre(l))?.shallow_clone()));
        let mut clean_streams = streams.collect::<Result<Vec<_>>>()?;
        clean_streams.push(last);
        let (n_layer, from) = (base.n_layer(), metric.positions(base.pos())?[0]);
        let measured = |streams: &[Tensor]| {
            let last = streams[n_layer].f_narrow(1, from, base.pos() - from)?;
            Ok::<_, Error>(base.measured(&last, from, metric)?.f_get(0)?)
        };
        let (clean, corrupted_by_position) = (measured(&clean_streams)?, measured(&base.streams)?);
        let (clean, corrupted) = (mean(&clean)?, mean(&corrupted_by_position)?);
        Ok(Patching { metric, base, clean_ids, clean_streams, corrupted_by_position, pos, clean, corrupted })
    }

    /// Activations of the clean run.
    pub(super) fn of_clean(&self, wanted: impl IntoIterator<Item = Activation>) -> Result<Capture> {
        Ok(captured(self.base.model, self.base.ln, &self.clean_ids, wanted)?.0)
    }

    /// Activations of the corrupted run.
    pub(super) fn of_corrupted(&self, wanted: impl IntoIterator<Item = Activation>) -> Result<Capture> {
        Ok(captured(self.base.model, self.base.ln, &self.base.ids, wanted)?.0)
    }
}
