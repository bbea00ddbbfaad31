//! Loss without each head and without each MLP.

use tch::{Device, Kind, Tensor};

use super::samples::mean_of;
use super::{Sample, Subject};
use crate::interp::{Ablation, Component, Means, Metric, Substitute};
use crate::study::found::{Axis, Curve, Found, Map, Ranking, finite};
use crate::{Error, Result};

/// Tokens of a run whose streams, keys and values are kept at a time: some hundred MB in GPT-2's smallest
/// model.
const TOKENS: i64 = 2048;
/// Heads that are named.
const DEAREST: usize = 10;
/// Of a normal distribution, 95% lies within so many standard deviations.
const WITHIN: f64 = 1.96;

const SUBSTITUTE: &str = "What a head or an MLP adds is replaced by its mean over all positions of these \
                          texts, position 0 with them: where that has a far longer stream than the \
                          others, the mean has something of it. Changes are of the mean loss, above 0 \
                          where it is missed.";

/// How much the mean loss changes, nats, without each head (`[layer][head]`) and each MLP, with the heads
/// that cost most: changes with half the width of their 95% intervals over sequences.
///
/// # Errors
/// If the sample cannot be had, or is of single tokens.
pub(super) fn find(subject: &Subject, sample: &Sample, progress: &mut impl FnMut(f64)) -> Result<Found> {
    let (ids, beginning) = subject.ids(sample)?;
    let losses = Losses::of(subject, &ids, progress)?;
    let (heads, within) = losses.changes(&losses.heads)?;
    let (heads, within) = (Vec::<Vec<f64>>::try_from(heads)?, Vec::<Vec<f64>>::try_from(within)?);
    let (mlps, _) = losses.changes(&losses.mlps)?;
    let mlps = Vec::<f64>::try_from(mlps)?;
    Ok(Found {
        notes: vec![beginning, SUBSTITUTE.into()],
        numbers: vec![mean_of("loss", &Vec::<f64>::try_from(&losses.whole)?, "nats")],
        maps: vec![Map::by_layer("change of loss without each head", "nats", "head", &heads, true)],
        curves: vec![Curve {
            name: "change of loss without each MLP".into(),
            unit: "nats".into(),
            at: Axis::counted("layer", mlps.len()),
            values: mlps.into_iter().map(finite).collect(),
        }],
        rankings: vec![dearest(&heads, &within)],
        ..Found::default()
    })
}

/// The heads without which the loss grows most.
fn dearest(heads: &[Vec<f64>], within: &[Vec<f64>]) -> Ranking {
    let changes = heads.iter().zip(within).enumerate().flat_map(|(layer, (changes, within))| {
        let of_layer = changes.iter().zip(within).enumerate();
        of_layer.map(move |(head, (change, within))| (format!("L{layer}H{head}"), *change, *within))
    });
    let mut changes: Vec<(String, f64, f64)> = changes.collect();
    changes.sort_by(|a, b| b.1.total_cmp(&a.1));
    changes.truncate(DEAREST);
    let rows = changes.into_iter();
    let rows = rows.map(|(label, change, within)| (label, vec![finite(change), finite(within)]));
    Ranking {
        name: "heads that cost most".into(),
        what: "head".into(),
        columns: vec!["change of loss, nats".into(), "± (95%)".into()],
        rows: rows.collect(),
        total: None,
    }
}

/// Mean losses of sequences, float64 on the CPU.
struct Losses {
    /// Of the model as it is, `[sequence]`.
    whole: Tensor,
    /// Without each head, `[layer, head, sequence]`.
    heads: Tensor,
    /// Without each MLP, `[layer, sequence]`.
    mlps: Tensor,
}

impl Losses {
    /// Of ids `[sequence, pos]`, some sequences at a time.
    fn of(subject: &Subject, ids: &Tensor, progress: &mut impl FnMut(f64)) -> Result<Losses> {
        let (model, ln) = (subject.model(), subject.ln());
        let (n, pos) = ids.size2()?;
        if pos < 2 {
            return Err(Error::invalid("a single token predicts nothing: two positions or more are needed"));
        }
        let means = Means::of(model, ln, ids)?;
        let each = (TOKENS / pos).max(1);
        let (mut whole, mut heads, mut mlps) = (Vec::new(), Vec::new(), Vec::new());
        // To take an MLP away is as much work as to take a head away.
        let of_heads = model.config.n_head as f64 / (model.config.n_head + 1) as f64;
        for start in (0..n).step_by(each as usize) {
            let len = each.min(n - start);
            let some = ids.f_narrow(0, start, len)?;
            // Losses alone are wanted; of all metrics this one is read with the least work.
            let answers = Tensor::f_zeros([len, 2], (Kind::Int64, some.device()))?;
            let metric = Metric::logit_difference(&answers);
            let ablation = Ablation::new(model, ln, &some, &metric, Substitute::Mean(&means))?;
            whole.push(by_sequence(&ablation.nothing()?.loss)?);
            heads.push(by_sequence(&ablation.every_head()?.loss)?);
            progress((start as f64 + len as f64 * of_heads) / n as f64);
            let without = (0..model.h.len())
                .map(|layer| by_sequence(&ablation.of(&[Component::Mlp { layer }])?.loss))
                .collect::<Result<Vec<Tensor>>>()?;
            mlps.push(Tensor::f_stack(&without, 0)?);
            progress((start + len) as f64 / n as f64);
        }
        let [whole, heads, mlps] = [whole, heads, mlps].map(|parts| Tensor::f_cat(&parts, -1));
        Ok(Losses { whole: whole?, heads: heads?, mlps: mlps? })
    }

    /// The mean over sequences of losses `[.., sequence]` less those of the model as it is, and half the
    /// width of its 95% interval; not a number of a single sequence.
    fn changes(&self, losses: &Tensor) -> Result<(Tensor, Tensor)> {
        let changes = losses.f_sub(&self.whole)?;
        let n = self.whole.size()[0] as f64;
        let within = changes.f_std_dim(-1i64, true, false)?.f_mul_scalar(WITHIN / n.sqrt())?;
        Ok((changes.f_mean_dim(-1i64, false, Kind::Double)?, within))
    }
}

/// The mean of losses `[.., pos − 1]` over positions.
fn by_sequence(losses: &Tensor) -> Result<Tensor> {
    Ok(losses.f_mean_dim(-1i64, false, Kind::Double)?.f_to_device(Device::Cpu)?)
}
