//! How far a model's predictions lie from those of another one, most often the original that it was made of.

use std::fmt;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::batches::for_each_batch;
use super::bootstrap::mean_interval;
use super::evaluation::{EvalOptions, Evaluation};
use super::finite::{number, pair};
use super::memory::sequences_at_a_time;
use super::sequences::SequenceLoss;
use crate::base::device::share_cores;
use crate::base::interrupt;
use crate::base::ranks::Ranks;
use crate::data::TokenFile;
use crate::model::hook::NoHook;
use crate::model::ln_state::LnState;
use crate::model::{Gpt2, LoadedModel};
use crate::{Error, Result};

/// float32 numbers of one model's logits that are compared at a time: a CPU's cache holds them several times,
/// and a GPU is busy with them.
const AT_A_TIME: (i64, i64) = (1 << 18, 1 << 26);

/// Distances of next-token distributions, in nats per token, on tokens that neither model need have seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Faithfulness {
    /// The model that the other is compared with: its path or name.
    pub reference: String,
    /// Mean KL(reference ‖ model).
    #[serde(deserialize_with = "number")]
    pub kl: f64,
    /// Its 95% bootstrap interval, over sequences.
    #[serde(deserialize_with = "pair")]
    pub kl_interval: [f64; 2],
    /// Mean Jensen–Shannon divergence, at most ln 2: the mean KL of both to their average.
    #[serde(deserialize_with = "number")]
    pub jsd: f64,
    /// Its 95% bootstrap interval.
    #[serde(deserialize_with = "pair")]
    pub jsd_interval: [f64; 2],
    /// Share of positions at which both hold the same token to be the most likely.
    #[serde(deserialize_with = "number")]
    pub agreement: f64,
    /// By ranges of positions that double in length.
    pub by_position: Vec<PositionDistance>,
}

impl fmt::Display for Faithfulness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([kl_low, kl_high], [jsd_low, jsd_high]) = (self.kl_interval, self.jsd_interval);
        write!(f, "from {}: KL {:.4} [{kl_low:.4}, {kl_high:.4}]", self.reference, self.kl)?;
        write!(f, "  JSD {:.4} [{jsd_low:.4}, {jsd_high:.4}]", self.jsd)?;
        write!(f, "  same top token {:.4}", self.agreement)
    }
}

/// Mean distances at some positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PositionDistance {
    /// First position predicted from; 0 has seen one token.
    pub from: usize,
    /// The position after the last one.
    pub to: usize,
    /// KL(reference ‖ model).
    #[serde(deserialize_with = "number")]
    pub kl: f64,
    /// Jensen–Shannon divergence.
    #[serde(deserialize_with = "number")]
    pub jsd: f64,
    /// Share with the same most likely token.
    #[serde(deserialize_with = "number")]
    pub agreement: f64,
}

/// Compares `model` with `reference`, both on one device and of one vocabulary, on `tokens`; `progress` is
/// told how many sequences are done. Distances that are not finite make figures NaN.
///
/// # Errors
/// Models of other vocabularies or devices, and as [`evaluate`](super::evaluate).
pub fn faithfulness(
    reference: &LoadedModel,
    model: &LoadedModel,
    tokens: &TokenFile,
    options: EvalOptions,
    mut progress: impl FnMut(usize),
) -> Result<Faithfulness> {
    let device = model.model.device();
    let (wanted, found) = (model.model.config.vocab_size, reference.model.config.vocab_size);
    if wanted != found {
        let message = format!("has {found} tokens, the model that is compared with it {wanted}");
        return Err(Error::file(&reference.path, message));
    }
    if reference.model.device() != device {
        return Err(Error::file(
            &reference.path,
            "is on another device than the model that is compared with it",
        ));
    }
    let _guard = tch::no_grad_guard();
    let listening = interrupt::listen();
    let _sharing = share_cores(device);
    options.dtype.prepare(device)?;
    let dtype = options.dtype.in_effect(device);
    let readers = [Reader::new(reference, dtype.kind())?, Reader::new(model, dtype.kind())?];
    let mut found: [Evaluation; 3] = Default::default();
    for_each_batch(&Ranks::alone(), tokens, options, device, |batch| {
        let len = batch.ids.size()[1] as usize;
        let fitting = readers.each_ref().map(|r| sequences_at_a_time(&r.model.config, len, device, dtype));
        let at_a_time = fitting[0].min(fitting[1]);
        for (i, rows) in batch.rows.chunks(at_a_time).enumerate() {
            listening.check()?;
            let ids = batch.ids.narrow(0, (i * at_a_time) as i64, rows.len() as i64);
            let distances = distances(&readers, &ids)?.to_device(tch::Device::Cpu);
            for (kind, found) in found.iter_mut().enumerate() {
                let values = Vec::<f32>::try_from(distances.get(kind as i64))?;
                add(found, rows, len - 1, &values);
            }
            progress(found[0].sequences.len());
        }
        Ok(())
    })?;
    finish(reference, &found, options)
}

/// A model ready for forwards.
struct Reader<'a> {
    model: Gpt2,
    ln: &'a LnState,
    dtype: Kind,
}

impl<'a> Reader<'a> {
    fn new(loaded: &'a LoadedModel, dtype: Kind) -> Result<Reader<'a>> {
        Ok(Reader { model: loaded.model.for_inference(&loaded.ln, dtype)?, ln: &loaded.ln, dtype })
    }
}

/// KL, Jensen–Shannon divergence and agreement at every position of int64 `[batch, pos]` that has a next
/// token: float32 `[3, batch · (pos − 1)]`.
fn distances(readers: &[Reader; 2], ids: &Tensor) -> Result<Tensor> {
    let last = |reader: &Reader| reader.model.unembedded(ids, reader.ln, reader.dtype, &mut NoHook);
    let lasts = [last(&readers[0])?, last(&readers[1])?];
    let heads = readers.each_ref().map(|reader| reader.model.unembedding().to_kind(reader.dtype));
    let (n, vocab_size) = (lasts[0].size()[0], heads[0].size()[0]);
    let numbers = if ids.device() == tch::Device::Cpu { AT_A_TIME.0 } else { AT_A_TIME.1 };
    let rows = (numbers / vocab_size).max(1);
    let parts = (0..n).step_by(rows as usize).map(|start| {
        let logits = |i: usize| lasts[i].narrow(0, start, rows.min(n - start)).mm(&heads[i].tr());
        of_logits(&logits(0), &logits(1))
    });
    Ok(Tensor::cat(&parts.collect::<Vec<_>>(), 1))
}

/// The same of logits `[n, vocab_size]`: `[3, n]`.
fn of_logits(reference: &Tensor, model: &Tensor) -> Tensor {
    let [log_p, log_q] = [reference, model].map(|logits| logits.log_softmax(-1, Kind::Float));
    let (p, q) = (log_p.exp(), log_q.exp());
    let sum = |x: Tensor| x.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    let log_mean = ((&p + &q) * 0.5).log();
    let kl = sum(&p * (&log_p - &log_q));
    let jsd = (sum(p * (&log_p - &log_mean)) + sum(q * (&log_q - log_mean))) * 0.5;
    let same = log_p.argmax(-1, false).eq_tensor(&log_q.argmax(-1, false)).to_kind(Kind::Float);
    Tensor::stack(&[kl, jsd, same], 0)
}

/// Adds the values of `n_tokens` tokens of each of `rows`.
fn add(found: &mut Evaluation, rows: &[usize], n_tokens: usize, values: &[f32]) {
    for (&sequence, values) in rows.iter().zip(values.chunks_exact(n_tokens)) {
        let sum: f64 = values.iter().copied().map(f64::from).sum();
        found.sequences.push(SequenceLoss { sequence, loss: sum / n_tokens as f64, n_tokens });
        found.losses.extend_from_slice(values);
    }
}

fn finish(reference: &LoadedModel, found: &[Evaluation; 3], options: EvalOptions) -> Result<Faithfulness> {
    let [kl, jsd, agreement] = found;
    if kl.losses.is_empty() {
        let n = options.batch_size.max(1);
        return Err(Error::invalid(format!("nothing to compare: no batch of {n} with two tokens each")));
    }
    let mean = |found: &Evaluation| match found.not_finite() {
        Some(_) => f64::NAN,
        None => found.losses.iter().copied().map(f64::from).sum::<f64>() / found.losses.len() as f64,
    };
    let by_position = kl.by_position().into_iter().zip(jsd.by_position()).zip(agreement.by_position());
    Ok(Faithfulness {
        reference: reference.path.display().to_string(),
        kl: mean(kl),
        kl_interval: mean_interval(&kl.sequences),
        jsd: mean(jsd),
        jsd_interval: mean_interval(&jsd.sequences),
        agreement: mean(agreement),
        by_position: by_position
            .map(|((kl, jsd), same)| PositionDistance {
                from: kl.from,
                to: kl.to,
                kl: kl.mean,
                jsd: jsd.mean,
                agreement: same.mean,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn distances_of_two_coins_are_known() {
        let logits = |p: f64| Tensor::from_slice(&[p.ln(), (1.0 - p).ln()]).view([1, 2]).to_kind(Kind::Float);
        let found = Vec::<f32>::try_from(of_logits(&logits(0.75), &logits(0.25)).view(-1)).unwrap();
        // KL(3/4 ‖ 1/4) = ½ ln 3, and the average is a fair coin: ln 2 − H(3/4).
        let half_ln_3 = 0.5 * 3f64.ln();
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        for (found, right) in found.iter().zip([half_ln_3, 2f64.ln() - entropy, 0.0]) {
            assert!((f64::from(*found) - right).abs() < 1e-6, "{found} {right}");
        }
        let same = of_logits(&logits(0.6), &(logits(0.6) + 3.0)).to_device(Device::Cpu);
        let same = Vec::<f32>::try_from(same.view(-1)).unwrap();
        assert!(same[0].abs() < 1e-6 && same[1].abs() < 1e-6 && same[2] == 1.0, "{same:?}");
    }
}
