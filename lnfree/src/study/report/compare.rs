//! What was measured beside what was published, or recorded by ourselves, and whether that is the same.

use serde::{Serialize, Serializer};

use crate::study::plot::EvalRow;

/// How far a measured figure may lie from the published one, in nats, unless the reader says otherwise.
///
/// Published figures have four decimals, and in which precision they were computed is not known; 0.01 is less
/// than nearly all of the gaps between the paper's models, so that it still tells them apart.
pub const TOLERANCE: f64 = 0.01;

/// Which figure of an evaluation is held against the published one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// The mean loss.
    Mean,
    /// The median loss, where a few sequences of enormous loss make the mean meaningless.
    Median,
}

impl Statistic {
    /// As tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Statistic::Mean => "mean",
            Statistic::Median => "median",
        }
    }
}

/// An evaluation to compare with: one that somebody published, or one that was recorded here before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// The model's label.
    pub label: &'static str,
    /// The data set's name.
    pub dataset: &'static str,
    /// Steps of fine-tuning of the model that was published.
    pub steps: u32,
    /// Mean loss, nats per token.
    pub mean: f64,
    /// Median loss, where it was published.
    pub median: Option<f64>,
    /// Central ranges over tokens by their width in percent, where they were published.
    pub ranges: &'static [(&'static str, [f64; 2])],
    /// Which of them is compared.
    pub compared: Statistic,
    /// Whether it is a record of ours and nobody else published it: then nothing is reproduced by it.
    pub recorded: bool,
}

impl Published {
    /// What such a figure is called.
    pub fn word(recorded: bool) -> &'static str {
        if recorded { "recorded" } else { "published" }
    }
}

/// A row for tables and figures: what was published, and nothing else.
impl From<&Published> for EvalRow {
    fn from(published: &Published) -> EvalRow {
        EvalRow {
            label: Some(published.label.into()),
            model: published.label.into(),
            dataset: published.dataset.into(),
            mean: published.mean,
            median: published.median.unwrap_or(f64::NAN),
            ranges: published.ranges.iter().map(|(width, range)| (width.to_string(), *range)).collect(),
            ..EvalRow::default()
        }
    }
}

/// What a comparison comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance of what somebody published.
    Reproduced,
    /// Within the tolerance of what was recorded here before.
    AsRecorded,
    /// Outside of it, or no number.
    Differs,
    /// Measured on another sample than the published figure.
    NotComparable,
    /// The published figure is of another step of fine-tuning, or it is not known of which step the model is.
    OtherStep,
    /// There is no published figure.
    Unpublished,
}

impl Verdict {
    /// As tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Reproduced => "reproduced",
            Verdict::AsRecorded => "as recorded",
            Verdict::Differs => "differs",
            Verdict::NotComparable => "not comparable",
            Verdict::OtherStep => "of another step",
            Verdict::Unpublished => "–",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if *self == Verdict::Unpublished { "unpublished" } else { self.name() })
    }
}

/// One evaluation beside its published figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The model's label.
    pub label: String,
    /// The data set's name.
    pub dataset: String,
    /// What is compared.
    pub compared: Statistic,
    /// As measured, nats per token.
    pub measured: f64,
    /// As published, or recorded; `None` where nothing was.
    pub published: Option<f64>,
    /// Whether that is a record of ours.
    pub recorded: bool,
    /// Measured less published.
    pub difference: Option<f64>,
    /// What that comes to.
    pub verdict: Verdict,
}

/// Holds `row`, of a model after `steps` steps of fine-tuning where that is known, against `published`, which
/// was measured on the first `sample` sequences of the data set, or on all of them where it has fewer. A
/// figure of another step is not shown beside it.
pub fn compare(
    row: &EvalRow,
    steps: Option<u32>,
    published: Option<&Published>,
    sample: u64,
    tolerance: f64,
) -> Comparison {
    let other_step = published.is_some_and(|p| steps != Some(p.steps));
    let recorded = published.is_some_and(|p| p.recorded);
    let published = published.filter(|_| !other_step);
    let compared = published.map_or(Statistic::Mean, |p| p.compared);
    let (measured, figure) = match compared {
        Statistic::Mean => (row.mean, published.map(|p| p.mean)),
        Statistic::Median => (row.median, published.and_then(|p| p.median)),
    };
    let difference = figure.map(|figure| measured - figure);
    // Half a unit of the last published decimal is no difference at all.
    let verdict = match difference {
        None if other_step => Verdict::OtherStep,
        None => Verdict::Unpublished,
        Some(_) if !same_sample(row, sample) => Verdict::NotComparable,
        Some(d) if d.abs() <= tolerance + 5e-5 && recorded => Verdict::AsRecorded,
        Some(d) if d.abs() <= tolerance + 5e-5 => Verdict::Reproduced,
        Some(_) => Verdict::Differs,
    };
    Comparison {
        label: row.label.clone().unwrap_or_else(|| row.model.clone()),
        dataset: row.dataset.clone(),
        compared,
        measured,
        published: figure,
        recorded,
        difference,
        verdict,
    }
}

/// A smaller limit takes a smaller sample, a larger one more than was published.
fn same_sample(row: &EvalRow, sample: u64) -> bool {
    let limit = row.details.max_sequences.unwrap_or(sample);
    limit >= sample && row.n_sequences.is_none_or(|n| n <= sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::plot::EvalDetails;

    fn published(compared: Statistic) -> Published {
        Published {
            label: "XL",
            dataset: "pile",
            steps: 800,
            mean: 130.2197,
            median: Some(1.0937),
            ranges: &[],
            compared,
            recorded: false,
        }
    }

    fn row(mean: f64, n_sequences: u64, max_sequences: u64) -> EvalRow {
        EvalRow {
            label: Some("XL".into()),
            dataset: "pile".into(),
            mean,
            median: 1.09,
            n_sequences: Some(n_sequences),
            details: EvalDetails { max_sequences: Some(max_sequences), ..EvalDetails::default() },
            ..EvalRow::default()
        }
    }

    fn verdict(mean: f64, n: u64, max: u64) -> Verdict {
        compare(&row(mean, n, max), Some(800), Some(&published(Statistic::Mean)), 10_000, TOLERANCE).verdict
    }

    #[test]
    fn the_tolerance_decides_on_both_sides_and_nan_differs() {
        assert_eq!(verdict(130.2297, 10_000, 10_000), Verdict::Reproduced);
        assert_eq!(verdict(130.2097, 10_000, 10_000), Verdict::Reproduced);
        assert_eq!(verdict(130.2299, 10_000, 10_000), Verdict::Differs);
        assert_eq!(verdict(130.2095, 10_000, 10_000), Verdict::Differs);
        assert_eq!(verdict(f64::NAN, 10_000, 10_000), Verdict::Differs);
        assert_eq!(verdict(f64::INFINITY, 10_000, 10_000), Verdict::Differs);
    }

    #[test]
    fn what_was_recorded_here_is_not_reproduced() {
        let ours = Published { recorded: true, ..published(Statistic::Mean) };
        let found = |mean| compare(&row(mean, 10_000, 10_000), Some(800), Some(&ours), 10_000, TOLERANCE);
        assert_eq!((found(130.22).verdict, found(130.22).recorded), (Verdict::AsRecorded, true));
        assert_eq!(found(131.0).verdict, Verdict::Differs);
        assert_eq!((Verdict::AsRecorded.name(), Published::word(true)), ("as recorded", "recorded"));
    }

    #[test]
    fn another_sample_does_not_compare() {
        assert_eq!(verdict(130.2197, 100, 100), Verdict::NotComparable);
        assert_eq!(verdict(130.2197, 20_000, 20_000), Verdict::NotComparable);
        // All of a data set that has fewer.
        assert_eq!(verdict(130.2197, 4_315, 10_000), Verdict::Reproduced);
        assert_eq!(verdict(130.2197, 4_315, 20_000), Verdict::Reproduced);
        assert_eq!(verdict(130.2197, 4_000, 4_000), Verdict::NotComparable);
    }

    #[test]
    fn a_figure_of_another_step_is_not_compared() {
        for steps in [None, Some(1200), Some(0)] {
            let row = row(130.2197, 10_000, 10_000);
            let of = compare(&row, steps, Some(&published(Statistic::Mean)), 10_000, TOLERANCE);
            assert_eq!((of.verdict, of.published, of.difference), (Verdict::OtherStep, None, None));
        }
    }

    #[test]
    fn the_median_stands_in_for_an_exploded_mean() {
        let median = published(Statistic::Median);
        let of = compare(&row(9e9, 10_000, 10_000), Some(800), Some(&median), 10_000, TOLERANCE);
        assert_eq!((of.verdict, of.measured, of.published), (Verdict::Reproduced, 1.09, Some(1.0937)));
        assert!((of.difference.unwrap() + 0.0037).abs() < 1e-9);
        let none = compare(&row(3.0, 1, 1), Some(800), None, 10_000, TOLERANCE);
        assert_eq!((none.verdict, none.published, none.measured), (Verdict::Unpublished, None, 3.0));
    }
}
