//! Losses by sequence and by position.

use serde::{Deserialize, Serialize};

use super::Evaluation;
use super::finite::number;

/// One sequence of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SequenceLoss {
    /// Its number in the token file, from 0.
    pub sequence: usize,
    /// Mean cross-entropy of its predicted tokens, in nats.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Predicted tokens.
    pub n_tokens: usize,
}

/// Mean loss of the tokens at some positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PositionLoss {
    /// First position predicted from; 0 has seen one token.
    pub from: usize,
    /// The position after the last one.
    pub to: usize,
    /// Mean cross-entropy in nats; NaN, null in JSON, where one of the losses is not finite.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
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

    /// Mean loss of the ranges of positions that end at (before) `ends`, which ascend to the longest sequence.
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

#[cfg(test)]
mod tests {
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
