//! First-order estimates of all direct paths at once.

mod ends;
mod run;

use std::collections::HashSet;
use std::fmt;

use tch::{Device, Kind, Tensor};

use self::run::{Run, written};
use super::attribution::clean_run;
use super::pair::cut;
use super::paths::{Receiver, Sender};
use crate::interp::metrics::Metric;
use crate::model::Gpt2;
use crate::model::ln_state::LnState;
use crate::{Error, Result};

/// Tokens of texts whose edges are computed together, if they are shorter: what their senders write is 250 MB
/// in GPT-2's smallest model.
const TOKENS: i64 = 512;

/// What [`Patching::path`](super::Patching::path) would do to a metric along every edge if it were linear in
/// what the receiver reads: Σ_pos Σ_d (clean − corrupted)\[pos, d\] · gradient\[pos, d\] (edge attribution
/// patching; Syed et al., arXiv 2310.10348). The difference is that of what the sender writes, z W_O for a
/// head; the gradient is that of the metric in the corrupted run at the stream that the receiver reads,
/// before its LN, where the queries, keys and values of each head read a stream of their own
/// (TransformerLens' `use_split_qkv_input`). One forward of the clean text, and one forward and one backward
/// of the corrupted one, serve all edges; no stream is copied for a head.
///
/// libtorch's backward ends at queries, keys, values and the MLPs' pre-activations. From there to the stream
/// it is one matrix and one LN, which are taken in closed form, of each head by itself, and exactly: the
/// matrix makes g Wᵀ of a gradient g, and an LN (x − mean(x))/s ⊙ γ + β makes g ⊙ γ/s less its mean, and
/// where it is real less x̂ · mean(g ⊙ γ ⊙ x̂)/σ, with x̂ = (x − mean(x))/σ. The faces of ln_1 that queries
/// and keys and that values read have each their own s. So what a sender's edges add up to is what
/// [`AttributionPatching`](super::AttributionPatching) says of that sender.
///
/// Only the way from the receiver's input to the metric is made linear. Where ln_f is fake or gone, that from
/// the input of the logits to a difference of two *is*, and scores of edges to the logits are what
/// [`Patching::path`](super::Patching::path) finds.
///
/// ```
/// use lnfree::interp::{EdgeAttribution, Metric};
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano_LNFree200")?, None, Kind::Float, Device::Cpu)?;
/// let clean = Tensor::from_slice(&[5i64, 9, 2, 5]).unsqueeze(0);
/// let corrupted = Tensor::from_slice(&[5i64, 8, 2, 5]).unsqueeze(0);
/// let metric = Metric::logit_difference(&Tensor::from_slice(&[9i64, 8]).unsqueeze(0));
/// let edges = EdgeAttribution::of(&nano.model, &nano.ln, &clean, &corrupted, &metric)?;
/// for edge in edges.strongest(3)? {
///     println!("{edge}: {:+.3}", edge.score);
/// }
/// // The exact counterpart, one edge at a time.
/// let edge = edges.strongest(1)?[0];
/// let patching = Patching::new(&nano.model, &nano.ln, &clean, &corrupted, &metric)?;
/// let effect = patching.path(edge.sender, edge.receiver)? - &patching.corrupted;
/// assert_eq!(effect.size(), edges.get(edge.sender, edge.receiver)?.size());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EdgeAttribution {
    /// What writes, in the order of a forward: the embedding, then of each block its heads and its MLP.
    pub senders: Vec<Sender>,
    /// What reads, likewise: of each block the queries of its heads, their keys, their values, and its MLP;
    /// then the logits.
    pub receivers: Vec<Receiver>,
    /// In units of the metric, float32 `[receiver, sender, batch]`; 0 where there is no edge, as the sender
    /// writes after the receiver has read ([`Sender::is_before`]).
    pub scores: Tensor,
    /// Metric of the clean run, float32 `[batch]`.
    pub clean: Tensor,
    /// Metric of the corrupted run, float32 `[batch]`.
    pub corrupted: Tensor,
}

/// A direct path with its score. [`Display`](fmt::Display): `L0H1 → L2H3.q`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// What writes.
    pub sender: Sender,
    /// What reads.
    pub receiver: Receiver,
    /// Mean over the texts, in units of the metric; positive where the sender's clean output moves the
    /// metric up.
    pub score: f64,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.sender, self.receiver)
    }
}

impl EdgeAttribution {
    /// Of a model on `clean` and `corrupted`, int64 `[batch, pos]`, without padding. The ids stay those of
    /// the corrupted run, see [`Patching::new`](super::Patching::new).
    ///
    /// # Errors
    /// As [`AttributionPatching::of`](super::AttributionPatching::of).
    pub fn of(
        model: &Gpt2,
        ln: &LnState,
        clean: &Tensor,
        corrupted: &Tensor,
        metric: &Metric,
    ) -> Result<EdgeAttribution> {
        let (n_layer, n_head) = (model.h.len(), model.config.n_head as usize);
        let [clean, corrupted] = cut(model, clean, corrupted, metric)?;
        let (kept, clean_metric) = clean_run(model, ln, &clean, written(n_layer), metric)?;
        let run = Run::new(model, ln, &corrupted, metric, &kept)?;
        let _guard = tch::no_grad_guard();
        let (batch, pos) = corrupted.size2()?;
        let each = (TOKENS / pos).max(1);
        let parts = (0..batch).step_by(each as usize).map(|start| {
            let texts = run.texts(start, each.min(batch - start))?;
            scores(model, ln, &texts)
        });
        Ok(EdgeAttribution {
            senders: senders(n_layer, n_head),
            receivers: receivers(n_layer, n_head),
            scores: Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, -1)?,
            clean: clean_metric,
            corrupted: run.metric,
        })
    }

    /// Scores of one edge, float32 `[batch]`.
    ///
    /// # Errors
    /// If there is no such edge.
    pub fn get(&self, sender: Sender, receiver: Receiver) -> Result<Tensor> {
        let row = self.receivers.iter().position(|other| *other == receiver);
        let column = self.senders.iter().position(|other| *other == sender);
        match (row, column) {
            (Some(row), Some(column)) if sender.is_before(receiver) => {
                Ok(self.scores.f_get(row as i64)?.f_get(column as i64)?)
            }
            _ => Err(Error::invalid(format!("there is no edge from {sender} to {receiver}"))),
        }
    }

    /// What all edges from each sender add up to, float32 `[sender, batch]`: what
    /// [`AttributionPatching`](super::AttributionPatching) says of the sender, over all positions.
    pub fn by_sender(&self) -> Tensor {
        self.scores.sum_dim_intlist(0i64, false, Kind::Float)
    }

    /// What all edges to each receiver add up to, float32 `[receiver, batch]`: what its whole input does, as
    /// the biases, which are no sender's, are those of both runs.
    pub fn by_receiver(&self) -> Tensor {
        self.scores.sum_dim_intlist(1i64, false, Kind::Float)
    }

    /// Every edge that there is, in the order of a forward: by receiver, then by sender.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn edges(&self) -> Result<Vec<Edge>> {
        let means = self.scores.f_mean_dim(-1i64, false, Kind::Double)?.f_to_device(Device::Cpu)?;
        let means = Vec::<Vec<f64>>::try_from(means)?;
        let mut edges = Vec::new();
        for (&receiver, row) in self.receivers.iter().zip(means) {
            let there = self.senders.iter().zip(row).filter(|(sender, _)| sender.is_before(receiver));
            edges.extend(there.map(|(&sender, score)| Edge { sender, receiver, score }));
        }
        Ok(edges)
    }

    /// The `n` edges whose mean over the texts is largest in size, the largest first.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn strongest(&self, n: usize) -> Result<Vec<Edge>> {
        let mut edges = self.edges()?;
        edges.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()));
        edges.truncate(n);
        Ok(edges)
    }

    /// The circuit of the edges whose mean over the texts is of size `threshold` or more, in the order of a
    /// forward. Edges that lie on no path of such edges from the embedding to the logits are left out: with
    /// all other edges corrupted, nothing would come through them. A path goes through a head by any of its
    /// queries, keys and values.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn in_circuit(&self, threshold: f64) -> Result<Vec<Edge>> {
        let mut edges = self.edges()?;
        edges.retain(|edge| edge.score.abs() >= threshold);
        // By receiver in the order of a forward, edges into a component come before those out of it.
        let mut reached = HashSet::from([Sender::Embed]);
        edges.retain(|edge| {
            let kept = reached.contains(&edge.sender);
            reached.extend(edge.receiver.component().filter(|_| kept));
            kept
        });
        edges.reverse();
        let mut heard = HashSet::<Sender>::new();
        edges.retain(|edge| {
            let kept = edge.receiver.component().is_none_or(|reader| heard.contains(&reader));
            heard.extend(kept.then_some(edge.sender));
            kept
        });
        edges.reverse();
        Ok(edges)
    }
}

/// All that write, in the order of [`Run::written`].
fn senders(n_layer: usize, n_head: usize) -> Vec<Sender> {
    let of_block = |layer: usize| {
        let heads = (0..n_head).map(move |head| Sender::Head { layer, head });
        heads.chain([Sender::Mlp { layer }])
    };
    [Sender::Embed].into_iter().chain((0..n_layer).flat_map(of_block)).collect()
}

/// All that read, in the order of [`scores`].
fn receivers(n_layer: usize, n_head: usize) -> Vec<Receiver> {
    let of_block = |layer: usize| {
        let q = (0..n_head).map(move |head| Receiver::Q { layer, head });
        let k = (0..n_head).map(move |head| Receiver::K { layer, head });
        let v = (0..n_head).map(move |head| Receiver::V { layer, head });
        q.chain(k).chain(v).chain([Receiver::Mlp { layer }])
    };
    (0..n_layer).flat_map(of_block).chain([Receiver::Logits]).collect()
}

/// Of the texts of a run, `[receiver, sender, batch]`.
fn scores(model: &Gpt2, ln: &LnState, run: &Run) -> Result<Tensor> {
    let (written, n_head) = (run.written(model)?, model.config.n_head);
    let mut rows = Vec::new();
    // The senders before a block's heads: at first the embedding.
    let mut before = 1;
    for layer in 0..model.h.len() {
        rows.push(products(&run.read_by_heads(model, ln, layer)?, &written, before)?);
        rows.push(products(&run.read_by_mlp(model, ln, layer)?, &written, before + n_head)?);
        before += n_head + 1;
    }
    rows.push(products(&run.last.f_unsqueeze(0)?, &written, before)?);
    Ok(Tensor::f_cat(&rows, 0)?)
}

/// Σ over positions and n_embd of gradients `[receiver, batch, pos, n_embd]` times what the first `n` of all
/// senders write, `[sender, batch, pos, n_embd]`: `[receiver, sender, batch]`, 0 for the other senders.
fn products(gradients: &Tensor, written: &Tensor, n: i64) -> Result<Tensor> {
    // [batch, receiver, pos · n_embd] by [batch, pos · n_embd, sender]
    let gradients = gradients.f_flatten(2, 3)?.f_transpose(0, 1)?;
    let before = written.f_narrow(0, 0, n)?.f_flatten(2, 3)?.f_permute([1, 2, 0])?;
    let found = gradients.f_bmm(&before)?.f_permute([1, 2, 0])?;
    Ok(found.f_constant_pad_nd([0, 0, 0, written.size()[0] - n])?)
}
