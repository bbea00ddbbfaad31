//! First-order estimates of all patches at once.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::base::captured;
use super::pair::cut;
use crate::interp::metrics::{Metric, mean};
use crate::model::hook::{Activation, Capture, Hook, NoHook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// What patches would do to a metric if it were linear in the activations: Σ_d gradient · (clean −
/// corrupted), the gradient that of the metric in the corrupted run (Nanda, "Attribution Patching", 2023;
/// Syed et al., arXiv 2310.10348). One forward of the clean text, and one forward and one backward of the
/// corrupted one, serve every component; no gradient of a parameter is computed.
///
/// An estimate of `effect` of what [`Patching`](super::Patching) measures. Whether the streams are centred
/// makes no difference to it where everything reads them through an LN, real or fake.
#[derive(Debug)]
pub struct AttributionPatching {
    /// Of the residual stream before each block, float32 `[layer, pos, batch]`.
    pub resid_pre: Tensor,
    /// Of what attention adds, likewise.
    pub attn_out: Tensor,
    /// Of what the MLP adds, likewise.
    pub mlp_out: Tensor,
    /// Of the outputs of heads, float32 `[layer, pos, head, batch]`.
    pub z: Tensor,
    /// Metric of the clean run, float32 `[batch]`.
    pub clean: Tensor,
    /// Metric of the corrupted run, float32 `[batch]`.
    pub corrupted: Tensor,
}

/// What one kind of activation is in every block.
type InBlock = fn(usize) -> Activation;

const SITES: [InBlock; 4] = [Activation::ResidPre, Activation::AttnOut, Activation::MlpOut, Activation::Z];

impl AttributionPatching {
    /// Of a model on `clean` and `corrupted`, int64 `[batch, pos]`, without padding.
    ///
    /// # Errors
    /// If the two differ in shape, the model cannot take them or has no blocks, or the metric cannot be read
    /// or differentiated.
    pub fn of(
        model: &Gpt2,
        ln: &LnState,
        clean: &Tensor,
        corrupted: &Tensor,
        metric: &Metric,
    ) -> Result<AttributionPatching> {
        let n_layer = model.h.len();
        let pos = corrupted.size().get(1).copied().unwrap_or(0);
        let [clean, corrupted] = cut(model, clean, corrupted, metric)?;
        let wanted = || SITES.iter().flat_map(move |site| (0..n_layer).map(site));
        let (kept, clean_metric) = clean_run(model, ln, &clean, wanted(), metric)?;
        let mut leaves = Leaves::of(wanted());
        let (_, corrupted_metric) = run(model, ln, &corrupted, metric, &mut leaves)?;
        let places: Vec<Activation> = wanted().collect();
        let seen = places.iter().map(|at| leaves.get(*at)).collect::<Result<Vec<&Tensor>>>()?;
        let gradients = gradients(&corrupted_metric, &seen)?;
        let _guard = tch::no_grad_guard();
        let products = places.iter().zip(seen.iter().zip(&gradients)).map(|(at, (corrupted, gradient))| {
            let change = kept.get(*at)?.f_sub(&corrupted.detach())?;
            // What a metric does not depend on has no gradient.
            if !gradient.defined() {
                return Ok(change.f_zeros_like()?.f_select(-1, 0)?);
            }
            Ok(gradient.f_mul(&change)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?)
        });
        let products = products.collect::<Result<Vec<Tensor>>>()?;
        let by_layer = |site: usize| {
            // [layer, batch, last read + 1, ..]; what comes behind the last position read does nothing.
            let found = Tensor::f_stack(&products[site * n_layer..(site + 1) * n_layer], 0)?;
            let mut size = found.size();
            size[2] = pos - size[2];
            let behind = Tensor::f_zeros(size.as_slice(), (Kind::Float, found.device()))?;
            Ok::<_, Error>(Tensor::f_cat(&[found, behind], 2)?.f_movedim_int(1, -1)?.f_contiguous()?)
        };
        Ok(AttributionPatching {
            resid_pre: by_layer(0)?,
            attn_out: by_layer(1)?,
            mlp_out: by_layer(2)?,
            z: by_layer(3)?,
            clean: clean_metric,
            corrupted: corrupted_metric.detach(),
        })
    }
}

/// What is `wanted` of a run over clean ids, and its metric, `[batch]`.
///
/// # Errors
/// If the model cannot take the ids or has no blocks, or the metric cannot be read.
pub(super) fn clean_run(
    model: &Gpt2,
    ln: &LnState,
    ids: &Tensor,
    wanted: impl Iterator<Item = Activation>,
    metric: &Metric,
) -> Result<(Capture, Tensor)> {
    if model.h.is_empty() {
        return Err(Error::invalid("a model without blocks has nothing to patch"));
    }
    let (kept, last) = captured(model, ln, ids, wanted)?;
    let metric = tch::no_grad(|| read(model, ln, ids, &last, metric))?;
    Ok((kept, metric))
}

/// The stream after the last block of a run over `ids`, `[batch, pos, n_embd]`, and its metric, `[batch]`,
/// with the graph that leads to them from what `leaves` keeps.
pub(super) fn run(
    model: &Gpt2,
    ln: &LnState,
    ids: &Tensor,
    metric: &Metric,
    leaves: &mut Leaves,
) -> Result<(Tensor, Tensor)> {
    tch::with_grad(|| -> Result<(Tensor, Tensor)> {
        let mut pass = model.pass(ids, ln, Compute::default())?;
        let last = model.residual(ids, &mut pass, leaves);
        pass.check()?;
        let metric = read(model, ln, ids, &last, metric)?;
        Ok((last, metric))
    })
}

/// Gradients of the sum of a `metric`, `[batch]`, at `places` of its graph, undefined at what it does not
/// depend on.
///
/// # Errors
/// If it has no graph.
pub(super) fn gradients(metric: &Tensor, places: &[&Tensor]) -> Result<Vec<Tensor>> {
    if !metric.requires_grad() {
        return Err(Error::invalid("the metric is no differentiable function of the logits"));
    }
    let total = tch::with_grad(|| metric.f_sum(Kind::Float))?;
    Ok(Tensor::f_run_backward(&[&total], places, false, false)?)
}

/// The metric of a run over `ids` from the stream after its last block, `[batch]`.
fn read(model: &Gpt2, ln: &LnState, ids: &Tensor, last: &Tensor, metric: &Metric) -> Result<Tensor> {
    let pos = ids.size()[1];
    let from = metric.positions(pos)?[0];
    let mut pass = model.pass(&ids.f_narrow(1, from, pos - from)?, ln, Compute::default())?;
    pass.start = from;
    let last = model.final_norm(&last.f_narrow(1, from, pos - from)?, &mut pass, &mut NoHook);
    let (places, read) = metric.places(pos, from, last.device())?;
    let last = last.f_index_select(1, &places)?;
    // The texts are one run, [1, batch, read, n_embd].
    mean(&metric.of_runs(model, &last.f_unsqueeze(0)?, read)?.f_get(0)?)
}

/// Keeps activations with the graph that leads to them from the stream before the first block on.
pub(super) struct Leaves(BTreeMap<Activation, Option<Tensor>>);

impl Leaves {
    /// Of these, the stream before the first block among them.
    pub fn of(wanted: impl IntoIterator<Item = Activation>) -> Leaves {
        Leaves(wanted.into_iter().map(|at| (at, None)).collect())
    }

    pub fn get(&self, at: Activation) -> Result<&Tensor> {
        let kept = self.0.get(&at).and_then(Option::as_ref);
        kept.ok_or_else(|| Error::invalid(format!("the forward had no {at}")))
    }

    /// What of them the forward had, without graph.
    pub fn detached(&self) -> BTreeMap<Activation, Tensor> {
        self.0.iter().filter_map(|(at, kept)| Some((*at, kept.as_ref()?.detach()))).collect()
    }
}

impl Hook for Leaves {
    fn on(&mut self, at: Activation, x: Tensor) -> Tensor {
        // Parameters need no gradients: the graph begins here.
        let x = if at == Activation::ResidPre(0) { x.detach().set_requires_grad(true) } else { x };
        self.0.insert(at, Some(x.shallow_clone()));
        x
    }

    fn wants(&self, at: Activation) -> bool {
        self.0.contains_key(&at)
    }
}
