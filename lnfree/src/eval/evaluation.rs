//! What is asked of an evaluation, and what it gives: the losses, by sequence and by position.

use super::calibration::Calibration;
use super::finite::NotFinite;
use super::sequences::{PositionLoss, SequenceLoss};
use crate::config::FloatType;
use crate::{Error, Result};

/// How an evaluation runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalOptions {
    /// Sequences in one batch; computed in smaller pieces where memory is short.
    pub batch_size: usize,
    /// Sequences evaluated at most.
    pub max_sequences: usize,
    /// Leave out the last batch when it is not full, as the paper's code does.
    pub drop_last: bool,
    /// What matrix products and attention are computed in.
    pub dtype: FloatType,
}

impl Default for EvalOptions {
    fn default() -> Self {
        EvalOptions { batch_size: 8, max_sequences: usize::MAX, drop_last: false, dtype: FloatType::Float32 }
    }
}

/// What a model makes of token data. End-of-text targets count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// Cross-entropy in nats, one per predicted token, in the order of sequences and positions.
    pub losses: Vec<f32>,
    /// Which sequences they came from.
    pub sequences: Vec<SequenceLoss>,
    /// Mean entropy of the predicted distributions in nats; NaN where a loss is not finite, or a distribution
    /// has none.
    pub entropy: f64,
    /// Share of tokens that the model held to be the most likely; NaN where a loss is not finite.
    pub accuracy: f64,
    /// How far its confidence can be trusted.
    pub calibration: Calibration,
}

impl Evaluation {
    /// Expected calibration error, 15 bins; NaN where a loss is not finite.
    pub fn calibration_error(&self) -> f64 {
        if self.not_finite().is_some() { f64::NAN } else { self.calibration.error() }
    }
}

impl Evaluation {
    /// Losses of each sequence, in order.
    pub(super) fn by_sequence(&self) -> impl Iterator<Item = (&SequenceLoss, &[f32])> {
        let mut rest = self.losses.as_slice();
        self.sequences.iter().map(move |sequence| {
            let (own, others) = rest.split_at(sequence.n_tokens.min(rest.len()));
            rest = others;
            (sequence, own)
        })
    }

    /// Mean loss of every position, in float64; index 0 predicts from the first token alone.
    pub fn position_means(&self) -> Vec<f64> {
        self.over_ranges(&(1..=self.longest()).collect::<Vec<_>>()).iter().map(|range| range.mean).collect()
    }

    /// Mean loss by ranges of positions that double in length: 0, 1, 2–3, 4–7, …
    pub fn by_position(&self) -> Vec<PositionLoss> {
        let mut ends: Vec<usize> = Vec::new();
        while ends.last().copied().unwrap_or(0) < self.longest() {
            ends.push((1usize << ends.len()).min(self.longest()));
        }
        self.over_ranges(&ends)
    }

    /// Predicted tokens of the longest sequence.
    fn longest(&self) -> usize {
        self.sequences.iter().map(|s| s.n_tokens).max().unwrap_or(0)
    }

    /// Mean loss of the ranges of positions that end at (before) `ends`, which ascend to the longest
    /// sequence.
    fn over_ranges(&self, ends: &[usize]) -> Vec<PositionLoss> {
        let (mut sums, mut counts) = (vec![0.0; ends.len()], vec![0u64; ends.len()]);
        for (_, losses) in self.by_sequence() {
            let mut range = 0;
            for (position, loss) in losses.iter().enumerate() {
                range += usize::from(ends[range] <= position);
                sums[range] += f64::from(*loss);
                counts[range] += 1;
            }
        }
        let froms = std::iter::once(0).chain(ends.iter().copied());
        (froms.zip(ends).zip(sums.iter().zip(&counts)))
            .map(|((from, &to), (sum, n))| {
                let mean = if f64::is_finite(*sum) { sum / *n as f64 } else { f64::NAN };
                PositionLoss { from, to, mean }
            })
            .collect()
    }

    /// The `k` sequences with the highest mean loss, worst first; those whose loss is not finite before all
    /// others.
    pub fn worst(&self, k: usize) -> Vec<SequenceLoss> {
        let mut order = self.sequences.clone();
        let key = |s: &SequenceLoss| if s.loss.is_finite() { s.loss } else { f64::INFINITY };
        order.sort_by(|a, b| key(b).total_cmp(&key(a)));
        order.truncate(k);
        order
    }

    /// Where in sequence number `sequence` the loss is highest, or first is not finite: the position
    /// predicted from, and the loss.
    pub fn peak(&self, sequence: usize) -> Option<(usize, f32)> {
        let (_, losses) = self.by_sequence().find(|(s, _)| s.sequence == sequence)?;
        let mut places = losses.iter().copied().enumerate();
        let lost = places.clone().find(|place| !place.1.is_finite());
        lost.or_else(|| places.by_ref().max_by(|a, b| a.1.total_cmp(&b.1)))
    }
}

impl Evaluation {
    /// Tokens without a finite loss; `None` where all have one.
    pub fn not_finite(&self) -> Option<NotFinite> {
        let n_tokens = self.losses.iter().filter(|loss| !loss.is_finite()).count();
        let (sequence, position) = self.by_sequence().find_map(|(sequence, losses)| {
            let position = losses.iter().position(|loss| !loss.is_finite())?;
            Some((sequence.sequence, position))
        })?;
        Some(NotFinite { n_tokens, sequence, position })
    }

    /// Refuses an evaluation of `model` on `dataset` that has no mean.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when a token has no finite loss; says how many have none, and where the first is.
    pub fn check(&self, model: &str, dataset: &str) -> Result<()> {
        let Some(NotFinite { n_tokens, sequence, position }) = self.not_finite() else { return Ok(()) };
        Err(Error::NotFinite(format!(
            "{model} on {dataset}: {n_tokens} of {} tokens have no finite loss, the first in sequence {sequence} \
             at position {position} (both from 0), so that there is no mean; are the weights finite, and does \
             --dtype float32 help?",
            self.losses.len()
        )))
    }
}

#[cfg(test)]
mod by_sequence {
    use super::*;

    fn example() -> Evaluation {
        let sequence = |sequence, losses: &[f32]| SequenceLoss {
            sequence,
            loss: losses.iter().map(|x| f64::from(*x)).sum::<f64>() / losses.len() as f64,
            n_tokens: losses.len(),
        };
        let rows: [&[f32]; 3] = [&[4.0, 3.0, 2.0, 1.0, 1.0], &[6.0, 1.0], &[8.0, 5.0, 2.0, 3.0, 9.0]];
        Evaluation {
            losses: rows.concat(),
            sequences: rows.iter().enumerate().map(|(i, row)| sequence(2 * i, row)).collect(),
            ..Evaluation::default()
        }
    }

    #[test]
    fn positions_are_averaged_over_the_sequences_that_have_them() {
        let example = example();
        assert_eq!(example.position_means(), [6.0, 3.0, 2.0, 2.0, 5.0]);
        let ranges: Vec<_> = example.by_position().iter().map(|p| (p.from, p.to, p.mean)).collect();
        assert_eq!(ranges, [(0, 1, 6.0), (1, 2, 3.0), (2, 4, 2.0), (4, 5, 5.0)]);
        assert!(Evaluation::default().by_position().is_empty());
    }

    #[test]
    fn the_worst_come_first_with_their_peak() {
        let example = example();
        let worst: Vec<_> = example.worst(2).iter().map(|s| (s.sequence, s.loss)).collect();
        assert_eq!(worst, [(4, 5.4), (2, 3.5)]);
        assert_eq!(example.peak(4), Some((4, 9.0)));
        assert_eq!(example.peak(0), Some((0, 4.0)));
        assert_eq!(example.peak(1), None);
    }
}

#[cfg(test)]
mod not_finite {
    use super::*;
    use crate::eval::{Summary, mean_interval, quantile, trimmed_mean};

    /// Four sequences of three tokens, with `bad` as the third loss of the second, whose number is 5.
    fn evaluation(bad: f32) -> Evaluation {
        let mut losses = vec![1.0f32; 12];
        losses[5] = bad;
        let numbers = [2, 5, 6, 9];
        let sequences = (losses.chunks(3).zip(numbers))
            .map(|(own, sequence)| SequenceLoss {
                sequence,
                loss: own.iter().map(|x| f64::from(*x)).sum::<f64>() / 3.0,
                n_tokens: 3,
            })
            .collect();
        Evaluation { losses, sequences, ..Evaluation::default() }
    }

    #[test]
    fn one_loss_that_is_not_finite_leaves_no_figure_of_all() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let found = evaluation(bad);
            let where_it_is = NotFinite { n_tokens: 1, sequence: 5, position: 2 };
            assert_eq!(found.not_finite(), Some(where_it_is), "{bad}");
            let summary = Summary::new(&found.losses);
            let ranges = summary.ranges.values().flatten();
            let figures = [summary.mean, summary.median, summary.perplexity, trimmed_mean(&found.sequences)];
            let mut all = figures.iter().chain(ranges).copied().chain(mean_interval(&found.sequences));
            assert!(all.all(f64::is_nan), "{bad}: {summary:?}");
            // The sequence itself is found, and the place in it.
            assert_eq!((found.worst(1)[0].sequence, found.peak(5).unwrap().0), (5, 2), "{bad}");
            let by_position: Vec<bool> = found.by_position().iter().map(|p| p.mean.is_finite()).collect();
            assert_eq!(by_position, [true, true, false], "{bad}");
            let text = found.check("m", "d").unwrap_err().to_string();
            assert!(text.starts_with("m on d: 1 of 12 tokens have no finite loss"), "{text}");
            assert!(text.contains("sequence 5 at position 2"), "{text}");
        }
        let fine = evaluation(2.0);
        assert!(fine.check("m", "d").is_ok() && fine.not_finite().is_none());
        assert!(Summary::new(&fine.losses).mean.is_finite());
    }

    #[test]
    fn quantiles_of_what_is_no_number_are_none() {
        for nan in [f32::NAN, -f32::NAN] {
            let mut values = [1.0, nan, 2.0, 3.0];
            values.sort_by(f32::total_cmp);
            assert!(quantile(&values, 0.5).is_nan() && quantile(&values, 0.0).is_nan(), "{values:?}");
        }
        assert_eq!(quantile(&[1.0, 2.0, f32::INFINITY], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, f32::INFINITY], 1.0), f64::INFINITY);
    }

    #[test]
    fn what_json_says_with_null_is_read_back() {
        let summary = Summary::new(&[1.0, f32::NAN]);
        let text = serde_json::to_string(&summary).unwrap();
        assert!(text.contains(r#""mean":null"#) && text.contains(r#""95":[null,null]"#), "{text}");
        let back: Summary = serde_json::from_str(&text).unwrap();
        assert!(back.mean.is_nan() && back.ranges["95"][1].is_nan());
        // A perplexity may be infinite where the mean is not.
        let huge = serde_json::to_string(&Summary::new(&[800.0])).unwrap();
        let back: Summary = serde_json::from_str(&huge).unwrap();
        assert!(back.mean == 800.0 && back.perplexity.is_nan(), "{huge}");
    }
}
