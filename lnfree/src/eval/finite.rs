//! Losses that are no finite numbers: how many, where, and what that makes of everything computed from them.
//!
//! A NaN or an infinity leaves nothing that is said of all tokens: means, quantiles and shares are then NaN,
//! which JSON writes as null.

use serde::{Deserialize, Deserializer, Serialize};

use super::Evaluation;
use crate::{Error, Result};

/// Tokens without a finite loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotFinite {
    /// How many.
    pub n_tokens: usize,
    /// The sequence of the first, its number in the token file, from 0.
    pub sequence: usize,
    /// The position that it was predicted from, from 0.
    pub position: usize,
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

/// Whether all are finite.
pub(super) fn all_finite(values: impl IntoIterator<Item = f64>) -> bool {
    values.into_iter().all(f64::is_finite)
}

/// A number of a JSON file; NaN where it is null.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Likewise two of them.
pub(crate) fn pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 2], D::Error> {
    let pair = Option::<[Option<f64>; 2]>::deserialize(deserializer)?.unwrap_or_default();
    Ok(pair.map(|end| end.unwrap_or(f64::NAN)))
}

/// Two of them that may be missing; missing too where one is null.
pub(crate) fn some_pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[f64; 2]>, D::Error> {
    Ok(Some(pair(deserializer)?).filter(|pair| all_finite(*pair)))
}

/// Pairs by their names.
pub(crate) fn pairs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<std::collections::BTreeMap<String, [f64; 2]>, D::Error> {
    #[derive(Deserialize)]
    struct Pair(#[serde(deserialize_with = "pair")] [f64; 2]);
    let pairs = std::collections::BTreeMap::<String, Pair>::deserialize(deserializer)?;
    Ok(pairs.into_iter().map(|(name, Pair(pair))| (name, pair)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{SequenceLoss, Summary, mean_interval, quantile, trimmed_mean};

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
