//! The tables beside the results table as plain cells, which HTML and Markdown share, and what is said above
//! them.

use super::compare::{Comparison, Statistic, Verdict};
use super::models::StudyModel;
use super::page::thousands;
use crate::eval::PairedDifference;
use crate::study::plot::Difference;
use crate::study::plot::{EvalRow, ModelName, distinct_names};

/// One cell of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// Whether a reader has to see it first.
    pub marked: bool,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), marked: false }
    }
}

/// Headings and rows.
pub type Cells = (Vec<&'static str>, Vec<Vec<Cell>>);

pub const MODELS: &str = "Names are those of the Hugging Face hub, or of the models that lnfree carries.";
pub const DIFFERENCES: &str = "Differences of the mean loss on the same sequences, nats per token, with bootstrap 95% \
                               intervals over sequences.";
pub const QUALITY: &str = "The interval of the mean is a bootstrap 95% interval over sequences; the trimmed mean leaves 1% of \
                           the sequences out at either end. Accuracy: how often the most likely token is the right one. Entropy of \
                           the predictions in nats. Calibration error: by how much the probability of the most likely \
                           token misses its accuracy, on average.";
pub const DISTANCES: &str = "How far the predictions lie from another model's, by `eval --against`: KL(other ‖ model) and \
                             Jensen–Shannon divergence in nats per token, with bootstrap 95% intervals over sequences, and the \
                             share of tokens on which both hold the same one to be the most likely.";
pub const WORST: &str = "The sequences that each model predicts worst, numbered from 0 in the order of the data set: their mean \
                         loss, the highest loss of one token, and the text around it. A few that explode can carry a \
                         whole mean.";
pub const MACHINE: &str = "Seconds for computing the losses; loading and downloads are not in them.";

/// Nats with four decimals, as the paper prints.
pub fn nats(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "NaN".into() }
}

/// Differences with their sign; a true minus, as long as a plus.
pub fn gap(value: f64) -> String {
    match format!("{value:+.4}").as_str() {
        _ if !value.is_finite() => "NaN".into(),
        "-0.0000" | "+0.0000" => "0.0000".into(),
        text => text.replace('-', "−"),
    }
}

fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> Cell {
    value.map_or("–".into(), show).into()
}

/// The models of a study.
pub fn models(models: &[StudyModel]) -> Cells {
    let count = |n: Option<u64>| Cell::from(n.map_or("–".into(), thousands));
    let row = |m: &StudyModel| {
        vec![
            m.label.clone().into(),
            m.model.clone().into(),
            count(m.steps.map(u64::from)),
            count(m.parameters),
        ]
    };
    (vec!["label", "model", "steps of fine-tuning", "parameters"], models.iter().map(row).collect())
}

/// Measured beside published.
pub fn comparisons(comparisons: &[Comparison], source: &'static str) -> Cells {
    let head = vec!["model", "data set", "measured", source, "difference", "verdict"];
    let row = |c: &Comparison| {
        let name = match c.compared {
            Statistic::Mean => c.label.clone(),
            Statistic::Median => format!("{} (median)", c.label),
        };
        let marked = c.verdict == Verdict::Differs;
        vec![
            name.into(),
            c.dataset.clone().into(),
            nats(c.measured).into(),
            or_dash(c.published, nats),
            or_dash(c.difference, gap),
            Cell { text: c.verdict.name().into(), marked },
        ]
    };
    (head, comparisons.iter().map(row).collect())
}

/// Paired differences with intervals.
pub fn differences(differences: &[Difference]) -> Cells {
    let row = |d: &Difference| {
        let PairedDifference { mean, interval: [low, high], n_sequences } = d.difference;
        let interval = format!("{} to {}", gap(low), gap(high));
        let n = thousands(n_sequences as u64);
        vec![d.label.clone().into(), d.dataset.clone().into(), gap(mean).into(), interval.into(), n.into()]
    };
    (
        vec!["models", "data set", "difference", "95% interval", "sequences"],
        differences.iter().map(row).collect(),
    )
}

/// Intervals, trimmed means, perplexity, accuracy, entropy and calibration; no rows where no file says any of
/// them.
pub fn quality(rows: &[EvalRow]) -> Cells {
    let head = vec![
        "model",
        "data set",
        "mean, 95% interval",
        "trimmed mean",
        "perplexity",
        "accuracy",
        "entropy",
        "calibration error",
    ];
    let cells = |(row, name): (&EvalRow, &dyn std::fmt::Display)| -> Vec<Cell> {
        let details = &row.details;
        let interval = details.mean_interval.map(|[low, high]| format!("{} to {}", nats(low), nats(high)));
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        vec![
            name.to_string().into(),
            row.dataset_name().into(),
            interval.unwrap_or_else(|| "–".into()).into(),
            or_dash(details.trimmed_mean, nats),
            perplexity(row.mean).into(),
            or_dash(details.accuracy, percent),
            or_dash(details.entropy, nats),
            or_dash(details.calibration_error, |error| format!("{error:.4}")),
        ]
    };
    (head, rows_with(rows, |row| row.details.mean_interval.is_some() || row.details.entropy.is_some(), cells))
}

/// How far models lie from others; no rows where no file says that.
pub fn distances(rows: &[EvalRow]) -> Cells {
    let head =
        vec!["model", "data set", "from", "KL", "95% interval", "JSD", "95% interval", "same top token"];
    let cells = |(row, name): (&EvalRow, ModelName)| -> Option<Vec<Cell>> {
        let found = row.details.faithfulness.as_ref()?;
        let interval = |[low, high]: [f64; 2]| format!("{} to {}", nats(low), nats(high));
        Some(vec![
            name.to_string().into(),
            row.dataset_name().into(),
            found.reference.clone().into(),
            nats(found.kl).into(),
            interval(found.kl_interval).into(),
            nats(found.jsd).into(),
            interval(found.jsd_interval).into(),
            format!("{:.1}%", 100.0 * found.agreement).into(),
        ])
    };
    (head, rows.iter().zip(distinct_names(rows)).filter_map(cells).collect())
}

/// exp(mean); that of a model that has exploded as a power of ten.
fn perplexity(mean: f64) -> String {
    match mean.exp() {
        large if large >= 1e6 => format!("{large:.1e}"),
        usual => format!("{usual:.2}"),
    }
}

/// Device, type, speed and memory; no rows where no file says how fast it was.
pub fn machine(rows: &[EvalRow]) -> Cells {
    let head = vec![
        "model",
        "data set",
        "device",
        "computed in",
        "batch",
        "tokens",
        "seconds",
        "tokens/s",
        "peak memory",
    ];
    let cells = |(row, name): (&EvalRow, &dyn std::fmt::Display)| -> Vec<Cell> {
        let details = &row.details;
        let text = |text: &Option<String>| Cell::from(text.clone().unwrap_or_else(|| "–".into()));
        let count = |n: Option<u64>| Cell::from(n.map_or("–".into(), thousands));
        vec![
            name.to_string().into(),
            row.dataset_name().into(),
            text(&details.device),
            text(&details.dtype),
            count(details.batch_size),
            count(row.n_tokens),
            or_dash(details.seconds, |s| format!("{s:.1}")),
            or_dash(details.tokens_per_s, |s| thousands(s.round() as u64)),
            details.peak_memory.map_or("–".into(), bytes).into(),
        ]
    };
    (head, rows_with(rows, |row| row.details.tokens_per_s.is_some(), cells))
}

/// The cells of all rows, or of none if `any` is true for none.
fn rows_with(
    rows: &[EvalRow],
    any: impl Fn(&EvalRow) -> bool,
    cells: impl Fn((&EvalRow, &dyn std::fmt::Display)) -> Vec<Cell>,
) -> Vec<Vec<Cell>> {
    if !rows.iter().any(any) {
        return Vec::new();
    }
    rows.iter().zip(distinct_names(rows)).map(|(row, name)| cells((row, &name))).collect()
}

/// Bytes as `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}
