//! Intervals by resampling sequences: tokens of one text are not independent, texts nearly are.

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::finite::{all_finite, number, pair};
use super::quantile;
use super::sequences::SequenceLoss;
use crate::{Error, Result};

/// Resamples; the ends of an interval then move by some percent of its width from seed to seed.
const RESAMPLES: usize = 2000;
/// The same data gives the same interval.
const SEED: u64 = 2357;

/// 95% bootstrap interval (percentiles) of the mean loss per token, sequences resampled with replacement.
/// Not numbers when there are no sequences or a loss is not finite; a point when there is one sequence.
pub fn mean_interval(sequences: &[SequenceLoss]) -> [f64; 2] {
    let weighted: Vec<(f64, f64)> =
        sequences.iter().map(|s| (s.loss * s.n_tokens as f64, s.n_tokens as f64)).collect();
    interval(&weighted)
}

/// Likewise of Σ value / Σ weight over pairs of them.
pub(crate) fn interval(pairs: &[(f64, f64)]) -> [f64; 2] {
    if pairs.is_empty() || !all_finite(pairs.iter().map(|pair| pair.0)) {
        return [f64::NAN; 2];
    }
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut means: Vec<f32> = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let (mut value, mut weight) = (0.0, 0.0);
        for _ in 0..pairs.len() {
            let pair = pairs[random.random_range(0..pairs.len())];
            value += pair.0;
            weight += pair.1;
        }
        means.push((value / weight) as f32);
    }
    means.sort_by(f32::total_cmp);
    [quantile(&means, 0.025), quantile(&means, 0.975)]
}

/// How much more one model loses than another on the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean loss of the first less that of the second, in nats per token.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
    /// Its 95% bootstrap interval over sequences: far narrower than what the two means' own intervals
    /// suggest, because a hard text is hard for both.
    #[serde(deserialize_with = "pair")]
    pub interval: [f64; 2],
    /// Sequences compared.
    pub n_sequences: usize,
}

impl PairedDifference {
    /// Of the losses of two models on the same sequences.
    ///
    /// # Errors
    /// When the sequences are not the same.
    pub fn new(a: &[SequenceLoss], b: &[SequenceLoss]) -> Result<PairedDifference> {
        let same =
            |(x, y): (&SequenceLoss, &SequenceLoss)| (x.sequence, x.n_tokens) == (y.sequence, y.n_tokens);
        if a.len() != b.len() || a.is_empty() || !a.iter().zip(b).all(same) {
            return Err(Error::invalid(
                "the two evaluations are of different sequences, so their losses cannot be paired",
            ));
        }
        let pairs: Vec<(f64, f64)> = (a.iter().zip(b))
            .map(|(a, b)| ((a.loss - b.loss) * a.n_tokens as f64, a.n_tokens as f64))
            .collect();
        let (value, weight) = pairs.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        Ok(PairedDifference { mean: value / weight, interval: interval(&pairs), n_sequences: a.len() })
    }
}

/// [`PairedDifference::new`] of two files that [`super::write_sequences`] wrote.
///
/// # Errors
/// When a file cannot be read, or the sequences are not the same.
pub fn paired_difference(a: &Path, b: &Path) -> Result<PairedDifference> {
    let (a_losses, b_losses) = (super::read_sequences(a)?, super::read_sequences(b)?);
    PairedDifference::new(&a_losses, &b_losses)
        .map_err(|e| Error::invalid(format!("{} and {}: {e}", a.display(), b.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(losses: impl Iterator<Item = f64>) -> Vec<SequenceLoss> {
        losses.enumerate().map(|(sequence, loss)| SequenceLoss { sequence, loss, n_tokens: 10 }).collect()
    }

    #[test]
    fn the_interval_is_that_of_a_mean() {
        // Of n values with deviation s, the mean has the deviation s / sqrt(n).
        let values = sequences((0..400).map(|i| 3.0 + if i % 2 == 0 { 0.5 } else { -0.5 }));
        let [low, high] = mean_interval(&values);
        let expected = 1.96 * 0.5 / 20.0;
        assert!((low - (3.0 - expected)).abs() < 0.15 * expected, "{low}");
        assert!((high - (3.0 + expected)).abs() < 0.15 * expected, "{high}");
        assert_eq!(mean_interval(&values), [low, high], "the same data, the same interval");
        assert_eq!(mean_interval(&values[..1]), [3.5, 3.5]);
        assert!(mean_interval(&[])[0].is_nan());
    }

    #[test]
    fn longer_sequences_weigh_more() {
        let values = [
            SequenceLoss { sequence: 0, loss: 1.0, n_tokens: 30 },
            SequenceLoss { sequence: 1, loss: 2.0, n_tokens: 10 },
        ];
        let double = values.map(|s| SequenceLoss { loss: 2.0 * s.loss, ..s });
        assert_eq!(PairedDifference::new(&double, &values).unwrap().mean, 1.25);
    }

    #[test]
    fn a_pair_is_told_apart_better_than_two_means() {
        let noise = |i: usize| ((i * 7919) % 101) as f64 / 10.0;
        let a = sequences((0..200).map(|i| noise(i) + 0.1 + if i % 2 == 0 { 0.01 } else { -0.01 }));
        let b = sequences((0..200).map(noise));
        let pair = PairedDifference::new(&a, &b).unwrap();
        assert!(
            (pair.mean - 0.1).abs() < 1e-9 && pair.interval[0] > 0.09 && pair.interval[1] < 0.11,
            "{pair:?}"
        );
        let [low, high] = mean_interval(&a);
        assert!(high - low > 10.0 * (pair.interval[1] - pair.interval[0]));
        assert!(PairedDifference::new(&a, &b[..199]).is_err());
        assert!(PairedDifference::new(&[], &[]).is_err());
    }
}
