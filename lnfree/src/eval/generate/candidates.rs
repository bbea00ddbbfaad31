//! From the logits of a position to the token that comes next.

use rand::distr::{Distribution, weighted::WeightedIndex};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::SampleOptions;
use crate::{Error, Result};

/// `logits` as float64.
///
/// # Errors
/// When one of them is not finite: nothing can be drawn from what is left.
pub(super) fn finite(logits: &Tensor) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Double)?;
    let bad = logits.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)?;
    match i64::try_from(bad)? {
        0 => Ok(logits),
        n => Err(Error::NotFinite(format!(
            "{n} of {} logits are NaN or infinite, no token can be drawn; are the model's weights finite, and small enough \
             for the dtype?",
            logits.numel()
        ))),
    }
}

/// `logits` `[batch, vocab_size]` with those of the tokens in `texts`, one of equal length for each row, made
/// less likely.
pub(super) fn penalised(logits: &Tensor, texts: &[&[i64]], penalty: f64) -> Result<Tensor> {
    let ids = Tensor::f_from_slice(&texts.concat())?.f_view([texts.len() as i64, -1])?;
    let ids = ids.f_to_device(logits.device())?;
    let old = logits.f_gather(1, &ids, false)?;
    let new = (&old * penalty).f_where_self(&old.f_lt(0.0)?, &(&old / penalty))?;
    Ok(logits.f_scatter(1, &ids, &new)?)
}

/// The tokens that may come next, most likely first, on the host.
pub(super) struct Candidates {
    /// How many there are for each text.
    k: usize,
    ids: Vec<i64>,
    /// Their probabilities; none where the first is always taken.
    weights: Vec<f64>,
}

impl Candidates {
    /// Of logits `[batch, vocab_size]`, float64.
    pub(super) fn of(logits: &Tensor, options: SampleOptions) -> Result<Candidates> {
        let n = logits.size()[1];
        let k = match (options.temperature == 0.0, options.top_k) {
            (true, _) => 1,
            (_, 0) => n,
            (_, k) => i64::try_from(k).map_or(n, |k| k.min(n)),
        };
        let (top, ids) = logits.f_topk(k, -1, true, true)?;
        let weights = match options.temperature == 0.0 {
            true => Vec::new(),
            false => Vec::try_from((top / options.temperature).softmax(-1, Kind::Double).view(-1))?,
        };
        let ids = Vec::try_from(ids.to_device(Device::Cpu).view(-1))?;
        let mut candidates = Candidates { k: k as usize, ids, weights };
        candidates.keep(options.top_p);
        Ok(candidates)
    }

    /// Leaves each text the fewest tokens that together have the probability `top_p`, at least one.
    fn keep(&mut self, top_p: f64) {
        if top_p >= 1.0 {
            return;
        }
        for row in self.weights.chunks_mut(self.k) {
            let mut before = 0.0;
            for (i, weight) in row.iter_mut().enumerate() {
                let own = *weight;
                if i > 0 && before >= top_p {
                    *weight = 0.0;
                }
                before += own;
            }
        }
    }

    /// Draws one for text `row`.
    pub(super) fn sample(&self, row: usize, rng: &mut ChaCha8Rng) -> Result<i64> {
        let of_row = row * self.k..(row + 1) * self.k;
        let ids = &self.ids[of_row.clone()];
        let Some(weights) = self.weights.get(of_row) else { return Ok(ids[0]) };
        let choice = WeightedIndex::new(weights).map_err(|_| {
            Error::NotFinite("the model's probabilities are not numbers; are its weights finite?".into())
        })?;
        Ok(ids[choice.sample(rng)])
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn one_logit_that_is_not_finite_is_enough() {
        for (bad, at) in [(f64::NAN, 0), (f64::INFINITY, 4), (f64::NEG_INFINITY, 7), (f64::NAN, 7)] {
            let logits = Tensor::arange(8, (Kind::Float, Device::Cpu)).view([2, 4]);
            assert!(finite(&logits).is_ok());
            let _ = logits.view(-1).narrow(0, at, 1).fill_(bad);
            let message = finite(&logits).unwrap_err().to_string();
            assert!(message.contains("1 of 8 logits"), "{message}");
        }
    }

    /// Numbers of transformers 4.57's RepetitionPenaltyLogitsProcessor(2.0).
    #[test]
    fn a_penalty_divides_positive_logits_and_multiplies_negative_ones() {
        let logits = Tensor::from_slice(&[1.0, -1.0, 3.0, -4.0, 0.5, 2.0]).view([2, 3]);
        let found = penalised(&logits, &[&[0, 1, 1], &[2, 0, 2]], 2.0).unwrap();
        assert_eq!(found, Tensor::from_slice(&[0.5, -2.0, 3.0, -8.0, 0.5, 1.0]).view([2, 3]));
    }

    #[test]
    fn top_p_keeps_the_fewest_that_have_it() {
        let logits = Tensor::from_slice(&[0.1f64, 0.5, 0.3, 0.1]).log().view([1, 4]);
        let kept = |top_p: f64| {
            let options = SampleOptions { temperature: 1.0, top_k: 0, top_p, ..SampleOptions::default() };
            let candidates = Candidates::of(&logits, options).unwrap();
            let mut ids: Vec<i64> = (0..200)
                .map(|seed| candidates.sample(0, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap())
                .collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(kept(0.0), [1]);
        assert_eq!(kept(0.49), [1]);
        assert_eq!(kept(0.6), [1, 2]);
        assert_eq!(kept(1.0), [0, 1, 2, 3]);
    }
}
