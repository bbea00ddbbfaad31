//! Mean, median and ranges of per-token losses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::finite::{all_finite, number, pairs};
use super::sequences::SequenceLoss;

/// Widths of the reported ranges in percent: `95` is from the 2.5th to the 97.5th percentile.
const RANGES: [&str; 5] = ["50", "95", "98", "99.8", "99.9"];
/// Share of sequences that [`trimmed_mean`] leaves out at either end.
const TRIMMED: f64 = 0.01;

/// Summary of a set of per-token losses, in nats; NaN, null in JSON, where one of them is not finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean, summed in float64.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
    /// Median.
    #[serde(deserialize_with = "number")]
    pub median: f64,
    /// exp(mean).
    #[serde(deserialize_with = "number")]
    pub perplexity: f64,
    /// Central ranges by their width in percent.
    #[serde(deserialize_with = "pairs")]
    pub ranges: BTreeMap<String, [f64; 2]>,
}

impl Summary {
    /// Summarises `losses`, which must not be empty for the figures to be numbers.
    pub fn new(losses: &[f32]) -> Summary {
        let finite = all_finite(losses.iter().map(|&x| f64::from(x)));
        let mut sorted = if finite { losses.to_vec() } else { vec![f32::NAN] };
        let mean = sorted.iter().map(|&x| f64::from(x)).sum::<f64>() / sorted.len() as f64;
        sorted.sort_unstable_by(f32::total_cmp);
        let range = |name: &str| {
            let tail = (1.0 - name.parse::<f64>().unwrap_or(0.0) / 100.0) / 2.0;
            [quantile(&sorted, tail), quantile(&sorted, 1.0 - tail)]
        };
        Summary {
            mean,
            median: quantile(&sorted, 0.5),
            perplexity: mean.exp(),
            ranges: RANGES.iter().map(|&name| (name.to_string(), range(name))).collect(),
        }
    }
}

/// Quantile `q` of ascending values (by `total_cmp`) with linear interpolation between neighbours, as numpy's
/// default; NaN where one of them is.
pub fn quantile(sorted: &[f32], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    if sorted[0].is_nan() || sorted[last].is_nan() {
        return f64::NAN;
    }
    let at = q.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    let (a, b) = (f64::from(sorted[low]), f64::from(sorted[(low + 1).min(last)]));
    let part = at - low as f64;
    // Towards an infinity there is nothing between.
    if part == 0.0 || a == b { a } else { a + (b - a) * part }
}

/// Mean loss per token without the 1% of sequences with the lowest and the 1% with the highest mean (both
/// rounded down): what a few exploding sequences cannot move. NaN where a loss is not finite.
pub fn trimmed_mean(sequences: &[SequenceLoss]) -> f64 {
    if !all_finite(sequences.iter().map(|s| s.loss)) {
        return f64::NAN;
    }
    let mut order = sequences.to_vec();
    order.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    let cut = (TRIMMED * order.len() as f64).floor() as usize;
    let kept = &order[cut..order.len() - cut];
    let sum: f64 = kept.iter().map(|s| s.loss * s.n_tokens as f64).sum();
    sum / kept.iter().map(|s| s.n_tokens as f64).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_exploding_sequences_do_not_move_the_trimmed_mean() {
        let sequence = |sequence, loss| SequenceLoss { sequence, loss, n_tokens: 7 };
        let mut all: Vec<_> =
            (0..1000).map(|i| sequence(i, 2.0 + f64::from(i as u32 % 10) / 100.0)).collect();
        let calm = trimmed_mean(&all);
        for exploded in &mut all[..3] {
            exploded.loss = 1e6;
        }
        assert!((trimmed_mean(&all) - calm).abs() < 1e-3);
        assert_eq!(trimmed_mean(&[sequence(0, 1.0), sequence(1, 3.0)]), 2.0, "too few to leave any out");
    }

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0], 0.3), 1.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
