//! Mean, median and ranges of per-token losses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sequences::SequenceLoss;

/// Widths of the reported ranges in percent: `95` is from the 2.5th to the 97.5th percentile.
const RANGES: [&str; 5] = ["50", "95", "98", "99.8", "99.9"];
/// Share of sequences that [`trimmed_mean`] leaves out at either end.
const TRIMMED: f64 = 0.01;

/// Summary of a set of per-token losses, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean, summed in float64.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// exp(mean).
    pub perplexity: f64,
    /// Central ranges by their width in percent.
    pub ranges: BTreeMap<String, [f64; 2]>,
}

impl Summary {
    /// Summarises `losses`, which must not be empty for the figures to be numbers.
    pub fn new(losses: &[f32]) -> Summary {
        let mean = losses.iter().map(|&x| f64::from(x)).sum::<f64>() / losses.len() as f64;
        let mut sorted = losses.to_vec();
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

/// Quantile `q` of ascending values with linear interpolation between neighbours, as numpy's default.
pub fn quantile(sorted: &[f32], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    let (a, b) = (f64::from(sorted[low]), f64::from(sorted[(low + 1).min(last)]));
    a + (b - a) * (at - low as f64)
}

/// Mean loss per token without the 1% of sequences with the lowest and the 1% with the highest mean (both rounded down): what
/// a few exploding sequences cannot move.
pub fn trimmed_mean(sequences: &[SequenceLoss]) -> f64 {
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
