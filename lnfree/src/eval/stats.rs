//! Mean, median and ranges of per-token losses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Widths of the reported ranges in percent: `95` is from the 2.5th to the 97.5th percentile.
const RANGES: [&str; 5] = ["50", "95", "98", "99.8", "99.9"];

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
        sorted.sort_by(f32::total_cmp);
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
