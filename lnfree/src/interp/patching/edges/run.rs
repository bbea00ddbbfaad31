//! A corrupted run with what edges need of it.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::config::norm::LnSite;
use crate::interp::metrics::Metric;
use crate::interp::patching::attribution::{Leaves, gradients, run};
use crate::model::Gpt2;
use crate::model::hook::{Activation, Capture};
use crate::model::ln_state::LnState;
use crate::{Error, Result};

/// `[batch, pos, ..]` each.
type Values = BTreeMap<Activation, Tensor>;

/// A corrupted run, without its graph.
pub(super) struct Run {
    /// Metric, `[batch]`.
    pub metric: Tensor,
    /// The gradient of its sum at the stream after the last block, `[batch, pos, n_embd]`.
    pub last: Tensor,
    /// The same at what matrices make of the stream, see [`made_of_stream`].
    gradients: Values,
    /// Clean less corrupted of what is [`written`].
    changes: Values,
    /// Activations: the streams, and what LNs divide them by where they divide.
    seen: Values,
}

/// What tells what all senders write: the embedding, heads before their output projection, MLPs.
pub(super) fn written(n_layer: usize) -> impl Iterator<Item = Activation> {
    let of_block = |layer| [Activation::Z(layer), Activation::MlpOut(layer)];
    [Activation::ResidPre(0)].into_iter().chain((0..n_layer).flat_map(of_block))
}

/// What the matrices of a block that read the stream through an LN make of it.
fn made_of_stream(layer: usize) -> [Activation; 4] {
    [Activation::Q(layer), Activation::K(layer), Activation::V(layer), Activation::MlpPre(layer)]
}

/// The streams that they read, and what their LNs divide these by.
fn read_of_stream(layer: usize) -> [Activation; 5] {
    [
        Activation::ResidPre(layer),
        Activation::ResidMid(layer),
        Activation::Scale(LnSite::Ln1Qk(layer)),
        Activation::Scale(LnSite::Ln1V(layer)),
        Activation::Scale(LnSite::Ln2(layer)),
    ]
}

impl Run {
    /// Of a model on corrupted ids `[batch, pos]`, that end at the last position read; `clean` has what is
    /// [`written`] in the clean run.
    ///
    /// # Errors
    /// If the model cannot take the ids, or the metric cannot be read or differentiated.
    pub fn new(model: &Gpt2, ln: &LnState, ids: &Tensor, metric: &Metric, clean: &Capture) -> Result<Run> {
        let n_layer = model.h.len();
        let made: Vec<Activation> = (0..n_layer).flat_map(made_of_stream).collect();
        let others = (0..n_layer).flat_map(read_of_stream).chain(written(n_layer));
        let mut leaves = Leaves::of(made.iter().copied().chain(others));
        let (last, metric) = run(model, ln, ids, metric, &mut leaves)?;
        let mut places = made.iter().map(|at| leaves.get(*at)).collect::<Result<Vec<&Tensor>>>()?;
        places.push(&last);
        let found = gradients(&metric, &places)?;
        let _guard = tch::no_grad_guard();
        let found = found.into_iter().zip(&places).map(|(gradient, place)| match gradient.defined() {
            true => Ok(gradient),
            // What a metric does not depend on has no gradient.
            false => Ok(place.f_zeros_like()?),
        });
        let mut found = found.collect::<Result<Vec<Tensor>>>()?;
        let last = found.pop().ok_or_else(|| Error::invalid("the forward had no stream"))?;
        let mut seen = leaves.detached();
        let changes = written(n_layer).map(|at| Ok((at, clean.get(at)?.f_sub(value(&seen, at)?)?)));
        let changes = changes.collect::<Result<Values>>()?;
        // Of these the gradients alone are needed.
        seen.retain(|at, _| !made.contains(at));
        let gradients = made.into_iter().zip(found).collect();
        Ok(Run { metric: metric.detach(), last, gradients, changes, seen })
    }

    /// Texts `start .. start + len` alone.
    pub fn texts(&self, start: i64, len: i64) -> Result<Run> {
        let some = |x: &Tensor| Ok::<_, Error>(x.f_narrow(0, start, len)?);
        let all =
            |values: &Values| values.iter().map(|(at, x)| Ok((*at, some(x)?))).collect::<Result<Values>>();
        Ok(Run {
            metric: some(&self.metric)?,
            last: some(&self.last)?,
            gradients: all(&self.gradients)?,
            changes: all(&self.changes)?,
            seen: all(&self.seen)?,
        })
    }

    pub fn change(&self, at: Activation) -> Result<&Tensor> {
        value(&self.changes, at)
    }

    pub fn gradient(&self, at: Activation) -> Result<&Tensor> {
        value(&self.gradients, at)
    }

    pub fn stream(&self, at: Activation) -> Result<&Tensor> {
        value(&self.seen, at)
    }

    /// What an LN divides by, `[batch, pos, 1]` or `[batch, pos, n_embd]`; `None` where nothing is divided:
    /// there is no LN, or the matrix behind it has it in it.
    pub fn scale(&self, site: LnSite) -> Option<&Tensor> {
        self.seen.get(&Activation::Scale(site))
    }
}

fn value(values: &Values, at: Activation) -> Result<&Tensor> {
    values.get(&at).ok_or_else(|| Error::invalid(format!("the forward had no {at}")))
}
