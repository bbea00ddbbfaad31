//! What was measured beside what was published, or recorded by ourselves.

use serde::{Serialize, Serializer};

use super::figure::{Figure, OF_RECORDED, Origin};
use super::{Findings, Request, published, recorded};

/// A published or recorded number and ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The analysis, as the command line names it.
    pub analysis: String,
    /// The model's label.
    pub label: String,
    /// What was measured.
    pub number: String,
    /// Of all values; empty for a plain number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// `None` where it is not among the findings or not finite.
    pub measured: Option<f64>,
    /// Its 95% interval.
    pub interval: Option<[f64; 2]>,
    /// The figure to compare with, as published or recorded.
    pub published: f64,
    /// Its interval, where there is one.
    pub published_interval: Option<[f64; 2]>,
    /// Whether that figure is a record of ours.
    pub recorded: bool,
    /// What the comparison comes to.
    pub verdict: Verdict,
}

/// What a comparison comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The intervals overlap; a published figure without one counts as all that is rounded to it. Where
    /// neither has an interval: within 2% of the published figure.
    Agrees,
    /// They do not, or the number is not finite.
    Differs,
    /// Within 0.1% of what was recorded here before, or within 0.0001 (of a percentage 0.01) where that is
    /// more. Intervals count for nothing: what is computed is the same.
    AsRecorded,
    /// Further away, or not finite.
    NotAsRecorded,
    /// Not measured, or of another request: on other data, or on more or fewer or longer sequences.
    NotComparable,
}

impl Verdict {
    /// All of them, in the order in which they are counted.
    const ALL: [Verdict; 5] = [
        Verdict::Agrees,
        Verdict::Differs,
        Verdict::AsRecorded,
        Verdict::NotAsRecorded,
        Verdict::NotComparable,
    ];

    /// As tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Agrees => "agrees",
            Verdict::Differs => "differs",
            Verdict::AsRecorded => "as recorded",
            Verdict::NotAsRecorded => "not as recorded",
            Verdict::NotComparable => "not comparable",
        }
    }

    /// Whether something else was measured.
    pub fn is_otherwise(self) -> bool {
        matches!(self, Verdict::Differs | Verdict::NotAsRecorded)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Every figure that was published for the suite `paper`, or recorded for `nano`, of the models and analyses
/// that were `asked` for (labels and requests), each beside what `findings` have of it, in the order of the
/// suite. One that they lack is not comparable. For other suites there are no figures.
pub fn compare(findings: &[Findings], asked: &[(&str, &Request)], suite: &str) -> Vec<Row> {
    let figures = match suite {
        "paper" => published::figures(),
        "nano" => recorded::figures(),
        _ => Vec::new(),
    };
    beside(&figures, findings, asked)
}

/// What `rows` come to in one line; `None` where there are none.
pub fn summary(rows: &[Row]) -> Option<String> {
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let counts = Verdict::ALL.map(|verdict| (count(verdict), verdict.name()));
    let counts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}"));
    let source = match rows.first()?.recorded {
        true => format!("our record (tolerance {}%)", 100.0 * OF_RECORDED),
        false => "the published figures".into(),
    };
    Some(format!("beside {source}: {}", counts.collect::<Vec<_>>().join(", ")))
}

fn beside(figures: &[Figure], findings: &[Findings], asked: &[(&str, &Request)]) -> Vec<Row> {
    let is_asked = |figure: &&Figure| asked.iter().any(|(label, request)| is_of(figure, label, request));
    figures.iter().filter(is_asked).map(|figure| row(figure, found(figure, findings))).collect()
}

/// Whether a figure is of this model and analysis.
fn is_of(figure: &Figure, label: &str, request: &Request) -> bool {
    figure.label == label && figure.request.name() == request.name()
}

/// What the same analysis found in the same model; where there are several, that of the same request.
fn found<'a>(figure: &Figure, findings: &'a [Findings]) -> Option<&'a Findings> {
    let all = findings.iter().filter(|of| is_of(figure, &of.label, &of.request));
    all.max_by_key(|of| of.request == figure.request)
}

fn row(figure: &Figure, findings: Option<&Findings>) -> Row {
    let numbers = findings.map(|findings| findings.found.numbers.as_slice()).unwrap_or_default();
    let number = numbers.iter().find(|other| (&other.name, &other.unit) == (&figure.number, &figure.unit));
    let measured = number.and_then(|number| number.value).filter(|value| value.is_finite());
    let interval = number.and_then(|number| number.interval);
    let same = findings.is_some_and(|findings| findings.request == figure.request);
    let agrees = measured.is_some_and(|measured| figure.agrees(measured, interval));
    let verdict = match (figure.origin, agrees) {
        _ if number.is_none() || !same => Verdict::NotComparable,
        (Origin::Published { .. }, true) => Verdict::Agrees,
        (Origin::Published { .. }, false) => Verdict::Differs,
        (Origin::Recorded, true) => Verdict::AsRecorded,
        (Origin::Recorded, false) => Verdict::NotAsRecorded,
    };
    Row {
        analysis: figure.request.name().into(),
        label: figure.label.clone(),
        number: figure.number.clone(),
        unit: figure.unit.clone(),
        measured,
        interval,
        published: figure.value,
        published_interval: figure.interval,
        recorded: figure.origin == Origin::Recorded,
        verdict,
    }
}

#[cfg(test)]
impl Row {
    /// One for tests of how rows are shown.
    pub(super) fn of_a_sink_rate() -> Row {
        Row {
            analysis: "sinks".into(),
            label: "Medium original".into(),
            number: "sink rate".into(),
            unit: "%".into(),
            measured: Some(12.5),
            interval: None,
            published: 55.3,
            published_interval: Some([53.1, 58.1]),
            recorded: false,
            verdict: Verdict::Differs,
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
