//! Whether tokens that a model gives the probability p come up with the frequency p.

use serde::{Deserialize, Serialize};

/// Bins of the confidence axis, as usual (Guo et al. 2017, arXiv 1706.04599).
const BINS: usize = 15;

/// Tokens by the probability of the most likely token (the confidence), in 15 bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Tokens in each bin.
    pub count: Vec<u64>,
    /// Sum of their confidences.
    pub confidence: Vec<f64>,
    /// How often the most likely token was the right one.
    pub correct: Vec<u64>,
}

impl Default for Calibration {
    fn default() -> Self {
        Calibration { count: vec![0; BINS], confidence: vec![0.0; BINS], correct: vec![0; BINS] }
    }
}

impl Calibration {
    /// Adds a token whose most likely continuation had probability `confidence`. With one that is no
    /// probability there is no error to be told any more.
    pub fn add(&mut self, confidence: f32, correct: bool) {
        // Rounding may take it a little beyond one.
        let confidence = if (0.0..1.001).contains(&confidence) { confidence } else { f32::NAN };
        let bin = ((confidence * BINS as f32) as usize).min(BINS - 1);
        self.count[bin] += 1;
        self.confidence[bin] += f64::from(confidence);
        self.correct[bin] += u64::from(correct);
    }

    /// Expected calibration error: |accuracy − mean confidence| of each bin, weighted by its tokens (arXiv
    /// 1706.04599, equation 3). NaN when a confidence was no probability.
    pub fn error(&self) -> f64 {
        let total = self.count.iter().sum::<u64>().max(1) as f64;
        let gaps = self.confidence.iter().zip(&self.correct).map(|(c, &k)| (c - k as f64).abs());
        gaps.sum::<f64>() / total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_gap_between_confidence_and_accuracy() {
        let mut honest = Calibration::default();
        let mut boastful = Calibration::default();
        for i in 0..100 {
            honest.add(0.75, i % 4 != 0);
            boastful.add(1.0, i % 4 != 0);
        }
        assert!(honest.error() < 1e-12, "{}", honest.error());
        assert!((boastful.error() - 0.25).abs() < 1e-12, "{}", boastful.error());
        assert_eq!(boastful.count[BINS - 1], 100);
        assert_eq!(Calibration::default().error(), 0.0);
    }

    #[test]
    fn a_confidence_that_is_no_probability_leaves_no_error() {
        for confidence in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.5, 2.0, 1e34] {
            let mut calibration = Calibration::default();
            calibration.add(0.5, true);
            calibration.add(confidence, false);
            assert!(calibration.error().is_nan(), "{confidence}: {}", calibration.error());
            assert_eq!(calibration.count.iter().sum::<u64>(), 2);
        }
    }
}
