//! Attention heads that look at the token before, at the same token earlier, and at what came after it.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor, no_grad};

use crate::model::hook::{Activation, Capture, NoHook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// Sequences of random tokens, each said twice: where a head attends to is then known to be for the
/// repetition alone.
#[derive(Debug)]
pub struct RepeatedTokens {
    /// int64 `[batch, 2 × period]`; without a beginning-of-text token.
    pub ids: Tensor,
    /// Tokens that are said twice.
    pub period: i64,
}

impl RepeatedTokens {
    /// `n_sequences` of `period` different tokens below `vocab_size` that are not `eot`, drawn from `seed`.
    ///
    /// # Errors
    /// If there are not that many tokens.
    pub fn new(n_sequences: usize, period: usize, vocab_size: i64, eot: i64, seed: u64) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let tokens: Vec<i64> = (0..vocab_size).filter(|&id| id != eot).collect();
        if n_sequences == 0 || period == 0 || period > tokens.len() {
            return Err(Error::invalid(format!(
                "{n_sequences} sequences of {period} different tokens cannot be drawn from {}",
                tokens.len()
            )));
        }
        let mut ids = Vec::with_capacity(2 * period * n_sequences);
        for _ in 0..n_sequences {
            let mut tokens = tokens.clone();
            let (said, _) = tokens.partial_shuffle(&mut random, period);
            ids.extend_from_slice(said);
            ids.extend_from_slice(said);
        }
        let period = period as i64;
        let ids = Tensor::f_from_slice(&ids)?.f_view([n_sequences as i64, 2 * period])?;
        Ok(Self { ids, period })
    }

    /// Mean cross-entropy of the tokens when they are said first and when they are said again, nats a token.
    /// The first token of either time is left out: nothing before it tells that it comes.
    ///
    /// # Errors
    /// If the model cannot take the ids.
    pub fn losses(&self, model: &Gpt2, ln: &LnState) -> Result<(f64, f64)> {
        let ids = self.ids.to_device(model.device());
        let n = 2 * self.period;
        let losses = no_grad(|| -> Result<Tensor> {
            let logits = model.forward(&ids, ln, Compute::default(), &mut NoHook)?;
            let predictions = logits.narrow(1, 0, n - 1).to_kind(Kind::Float).log_softmax(-1, Kind::Float);
            let targets = ids.narrow(1, 1, n - 1).unsqueeze(-1);
            Ok(-predictions.gather(-1, &targets, false).squeeze_dim(-1))
        })?;
        let mean = |start: i64| losses.narrow(1, start, self.period - 1).mean(Kind::Double).double_value(&[]);
        Ok((mean(0), mean(self.period)))
    }

    /// The scores of every head.
    ///
    /// # Errors
    /// If the model cannot take the ids.
    pub fn head_scores(&self, model: &Gpt2, ln: &LnState) -> Result<HeadScores> {
        let ids = self.ids.to_device(model.device());
        let n_layer = model.config.n_layer as usize;
        let mut cache = Capture::of((0..n_layer).map(Activation::Pattern))?;
        let _logits = no_grad(|| model.forward(&ids, ln, Compute::default(), &mut cache))?;
        let mut scores = HeadScores { previous_token: vec![], duplicate_token: vec![], induction: vec![] };
        for layer in 0..n_layer {
            // [batch, head, query, key]
            let pattern = cache.get(Activation::Pattern(layer))?.to_kind(Kind::Float);
            scores.previous_token.push(mean_of_diagonal(&pattern, -1)?);
            scores.duplicate_token.push(mean_of_diagonal(&pattern, -self.period)?);
            scores.induction.push(mean_of_diagonal(&pattern, 1 - self.period)?);
        }
        Ok(scores)
    }
}

/// How much of its attention each head gives, on average, to one place: `[layer][head]`, 0 to 1.
///
/// The means are over sequences and over a diagonal of the attention pattern, TransformerLens'
/// `pattern.diagonal(dim1=-2, dim2=-1, offset=…)`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadScores {
    /// To the token before: offset −1.
    pub previous_token: Vec<Vec<f64>>,
    /// To the same token when it was said first: offset −period.
    pub duplicate_token: Vec<Vec<f64>>,
    /// To the token that came after it then: offset 1 − period.
    pub induction: Vec<Vec<f64>>,
}

impl HeadScores {
    /// The head with the highest score: layer, head, score.
    pub fn best(scores: &[Vec<f64>]) -> Option<(usize, usize, f64)> {
        let heads = scores.iter().enumerate();
        let heads =
            heads.flat_map(|(layer, heads)| heads.iter().enumerate().map(move |(head, &s)| (layer, head, s)));
        heads.max_by(|a, b| a.2.total_cmp(&b.2))
    }
}

/// The mean of a diagonal of the last two dimensions of `[batch, head, query, key]`, for each head.
fn mean_of_diagonal(pattern: &Tensor, offset: i64) -> Result<Vec<f64>> {
    let means = pattern.diagonal(offset, -2, -1).mean_dim([0i64, 2].as_slice(), false, Kind::Double);
    Ok(Vec::try_from(means.to_device(Device::Cpu))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Gpt2Config;

    #[test]
    fn tokens_are_said_twice_and_none_twice_in_between() {
        let tokens = RepeatedTokens::new(5, 20, 40, 7, 3).unwrap();
        for row in 0..5 {
            let ids = Vec::<i64>::try_from(tokens.ids.get(row)).unwrap();
            assert_eq!(ids[..20], ids[20..]);
            let mut said = ids[..20].to_vec();
            said.sort_unstable();
            said.dedup();
            assert!(said.len() == 20 && !said.contains(&7) && said.iter().all(|id| (0..40).contains(id)));
        }
        let again = RepeatedTokens::new(5, 20, 40, 7, 3).unwrap();
        assert_eq!(tokens.ids, again.ids);
        assert_ne!(tokens.ids, RepeatedTokens::new(5, 20, 40, 7, 4).unwrap().ids);
        for (n, period, vocab_size) in [(0, 2, 9), (1, 0, 9), (1, 9, 9)] {
            assert!(RepeatedTokens::new(n, period, vocab_size, 0, 0).is_err());
        }
    }

    /// A head's pattern is put in by hand: it gives 0.75 to one place and the rest to itself.
    #[test]
    fn scores_are_the_attention_to_one_place() {
        let period = 6;
        let looking_back = |by: i64| {
            let n = 2 * period;
            let pattern = Tensor::eye(n, (Kind::Float, Device::Cpu)) * 0.25;
            let place = Tensor::ones([n - by], (Kind::Float, Device::Cpu)).diag(-by) * 0.75;
            pattern + place
        };
        let by_head = [1, period, period - 1].map(looking_back);
        let pattern = Tensor::stack(&by_head, 0).unsqueeze(0).expand([3, 3, 2 * period, 2 * period], false);
        for (offset, head) in [(-1, 0), (-period, 1), (1 - period, 2)] {
            let scores = mean_of_diagonal(&pattern, offset).unwrap();
            for (h, score) in scores.into_iter().enumerate() {
                assert!(
                    (score - if h == head { 0.75 } else { 0.0 }).abs() < 1e-6,
                    "{offset}, head {h}: {score}"
                );
            }
        }
    }

    #[test]
    fn scores_and_losses_are_those_of_the_forward() {
        let model = Gpt2::init(Gpt2Config::new(2, 2, 16, 16, 50).unwrap(), 0, Device::Cpu).unwrap();
        let ln = LnState::plain(2, Device::Cpu);
        let tokens = RepeatedTokens::new(4, 8, 50, 49, 0).unwrap();
        let scores = tokens.head_scores(&model, &ln).unwrap();
        // An untrained model attends to all places alike: 1/(i + 1) at query i.
        let even = |first: i64| (first..16).map(|i| 1.0 / (i + 1) as f64).sum::<f64>() / (16 - first) as f64;
        for (scores, first) in
            [(&scores.previous_token, 1), (&scores.duplicate_token, 8), (&scores.induction, 7)]
        {
            assert_eq!((scores.len(), scores[0].len()), (2, 2));
            assert!(scores.iter().flatten().all(|s| (s - even(first)).abs() < 0.01), "{scores:?}");
        }
        let (first, again) = tokens.losses(&model, &ln).unwrap();
        assert!((first - 50f64.ln()).abs() < 0.2 && (again - 50f64.ln()).abs() < 0.2, "{first} {again}");
        assert_eq!(HeadScores::best(&[vec![0.1, 0.4], vec![0.3, 0.2]]), Some((0, 1, 0.4)));
    }
}
