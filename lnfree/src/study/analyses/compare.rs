//! What was measured beside what "Transformers Don't Need LayerNorm at Inference Time" (arXiv 2507.02559)
//! published.

use serde::{Serialize, Serializer};

use super::{Findings, Request, Sample};

/// How far a measured number may lie from the published one, as a part of it, where neither has an interval.
pub(super) const TOLERANCE: f64 = 0.02;

/// The paper's sample: each text is cut to as many tokens.
const DATA: &str = "pile-apollo-luca";
const SEQUENCES: usize = 1000;
const POSITIONS: usize = 512;

/// A published number and ours.
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
    /// The figure to compare with.
    pub published: f64,
    /// Its interval, where it was published.
    pub published_interval: Option<[f64; 2]>,
    /// What the comparison comes to.
    pub verdict: Verdict,
}

/// What a comparison comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The intervals overlap; a figure without one counts as all that is rounded to it. Where neither has an
    /// interval: within 2% of the published figure.
    Agrees,
    /// They do not, or the number is not finite.
    Differs,
    /// Not measured, or on other data, or on more or fewer or longer sequences.
    NotComparable,
}

impl Verdict {
    /// As tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Agrees => "agrees",
            Verdict::Differs => "differs",
            Verdict::NotComparable => "not comparable",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A figure of the paper.
struct Published {
    label: &'static str,
    analysis: &'static str,
    number: &'static str,
    unit: &'static str,
    value: f64,
    interval: Option<[f64; 2]>,
    /// Half of a unit in its last printed place.
    rounding: f64,
}

/// Mean over heads of the error of direct logit attribution, %.
const EFFECTS: [(&str, f64, Option<[f64; 2]>); 3] = [
    ("Small original", 49.07, Some([29.92, 66.10])),
    ("Small vanilla", 57.85, Some([38.52, 74.52])),
    ("Small LN-free", 0.0, None),
];

/// Queries that attend to position 0 above 0.3, %.
const SINKS: [(&str, f64, [f64; 2]); 2] =
    [("Medium original", 55.3, [53.1, 58.1]), ("Medium LN-free", 45.3, [42.0, 48.5])];

/// Loss, entropy, calibration error, JSD to the original.
const OUTPUTS: [(&str, [f64; 3], Option<f64>); 6] = [
    ("Small original", [2.9642, 3.0530, 0.0193], None),
    ("Small vanilla", [2.9836, 2.8006, 0.0263], Some(0.0202)),
    ("Small LN-free", [3.0491, 2.7940, 0.0354], Some(0.0393)),
    ("Medium original", [2.7111, 2.8640, 0.0194], None),
    ("Medium vanilla", [2.7424, 2.5861, 0.0223], Some(0.0234)),
    ("Medium LN-free", [2.8032, 2.5316, 0.0340], Some(0.0347)),
];

fn paper() -> Vec<Published> {
    let effect = |(label, value, interval)| Published {
        label,
        analysis: "direct-effects",
        number: "NMAE, mean over heads",
        unit: "%",
        value,
        interval,
        rounding: 0.005,
    };
    let sink = |(label, value, interval)| Published {
        label,
        analysis: "sinks",
        number: "sink rate",
        unit: "%",
        value,
        interval: Some(interval),
        rounding: 0.05,
    };
    let outputs = |(label, [loss, entropy, calibration], jsd): (&'static str, [f64; 3], Option<f64>)| {
        let numbers = [
            ("loss", "nats", Some(loss)),
            ("entropy", "nats", Some(entropy)),
            ("calibration error", "", Some(calibration)),
            ("JSD to the original", "nats", jsd),
        ];
        numbers.into_iter().filter_map(move |(number, unit, value)| {
            let value = value?;
            let rounding = 5e-5;
            Some(Published { label, analysis: "outputs", number, unit, value, interval: None, rounding })
        })
    };
    let mut all: Vec<Published> = EFFECTS.into_iter().map(effect).collect();
    all.extend(SINKS.into_iter().map(sink));
    all.extend(OUTPUTS.into_iter().flat_map(outputs));
    all
}

/// Every figure that was published for `suite`, `paper` or another, beside each of `findings` that is of the
/// same analysis and of a model of the same label, in the order of the suite. For other suites nothing was
/// published.
pub fn compare(findings: &[Findings], suite: &str) -> Vec<Row> {
    let published = if suite == "paper" { paper() } else { Vec::new() };
    let mut rows = Vec::new();
    for figure in &published {
        let same = |of: &&Findings| of.label == figure.label && of.request.name() == figure.analysis;
        rows.extend(findings.iter().filter(same).map(|of| figure.beside(of)));
    }
    rows
}

impl Published {
    fn beside(&self, findings: &Findings) -> Row {
        let found = findings.found.numbers.iter().find(|number| number.name == self.number);
        let measured = found.and_then(|number| number.value).filter(|value| value.is_finite());
        let interval = found.and_then(|number| number.interval);
        let verdict = match measured {
            _ if found.is_none() || !on_the_papers_sample(&findings.request) => Verdict::NotComparable,
            Some(measured) if self.agrees(measured, interval) => Verdict::Agrees,
            _ => Verdict::Differs,
        };
        Row {
            analysis: self.analysis.into(),
            label: self.label.into(),
            number: self.number.into(),
            unit: self.unit.into(),
            measured,
            interval,
            published: self.value,
            published_interval: self.interval,
            verdict,
        }
    }

    fn agrees(&self, measured: f64, interval: Option<[f64; 2]>) -> bool {
        let theirs = self.interval.unwrap_or([self.value - self.rounding, self.value + self.rounding]);
        let ours = interval.unwrap_or([measured; 2]);
        let overlap = ours[0] <= theirs[1] && theirs[0] <= ours[1];
        let bare = interval.is_none() && self.interval.is_none();
        overlap || (bare && (measured - self.value).abs() <= TOLERANCE * self.value.abs())
    }
}

fn on_the_papers_sample(request: &Request) -> bool {
    match request {
        Request::DirectEffects(sample) | Request::Sinks(sample) | Request::Outputs(sample) => {
            let Sample { data, sequences, positions } = sample;
            (data.as_str(), *sequences, *positions) == (DATA, SEQUENCES, POSITIONS)
        }
        _ => false,
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
            verdict: Verdict::Differs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::found::{Found, Number};

    fn sample() -> Sample {
        Sample { data: DATA.into(), sequences: SEQUENCES, positions: POSITIONS }
    }

    fn findings(label: &str, request: Request, numbers: Vec<Number>) -> Findings {
        Findings {
            request,
            label: label.into(),
            model: "m".into(),
            original: None,
            seconds: 1.0,
            found: Found { numbers, ..Found::default() },
        }
    }

    fn verdict(label: &str, request: Request, number: Number) -> Verdict {
        let name = number.name.clone();
        let rows = compare(&[findings(label, request, vec![number])], "paper");
        rows.into_iter().find(|row| row.number == name).unwrap().verdict
    }

    #[test]
    fn intervals_that_overlap_agree() {
        let sinks = |low: f64, high: f64| {
            let number = Number::new("sink rate", (low + high) / 2.0, "%").with_interval([low, high]);
            verdict("Medium LN-free", Request::Sinks(sample()), number)
        };
        assert_eq!(sinks(48.0, 50.0), Verdict::Agrees);
        assert_eq!(sinks(48.6, 50.0), Verdict::Differs);
        let bare = |value| {
            verdict("Medium original", Request::Sinks(sample()), Number::new("sink rate", value, "%"))
        };
        assert_eq!((bare(53.2), bare(52.9)), (Verdict::Agrees, Verdict::Differs));
    }

    #[test]
    fn a_figure_without_an_interval_is_what_is_rounded_to_it() {
        let effects = |value, interval| {
            let number = Number::new("NMAE, mean over heads", value, "%").with_interval(interval);
            verdict("Small LN-free", Request::DirectEffects(sample()), number)
        };
        assert_eq!(effects(2e-5, [1e-5, 3e-5]), Verdict::Agrees);
        assert_eq!(effects(0.02, [0.01, 0.03]), Verdict::Differs);
        let loss =
            |value| verdict("Small original", Request::Outputs(sample()), Number::new("loss", value, "nats"));
        assert_eq!((loss(2.95), loss(3.1)), (Verdict::Agrees, Verdict::Differs));
        assert_eq!(loss(f64::NAN), Verdict::Differs);
    }

    #[test]
    fn another_sample_does_not_compare() {
        let of =
            |sample| verdict("Small original", Request::Outputs(sample), Number::new("loss", 2.9642, "nats"));
        assert_eq!(of(sample()), Verdict::Agrees);
        for other in [
            Sample { data: "pile-apollo".into(), ..sample() },
            Sample { sequences: 999, ..sample() },
            Sample { positions: 1024, ..sample() },
        ] {
            assert_eq!(of(other), Verdict::NotComparable);
        }
    }

    #[test]
    fn each_model_stands_beside_its_own_figures() {
        let loss =
            |label: &str| findings(label, Request::Outputs(sample()), vec![Number::new("loss", 2.8, "nats")]);
        let all = [loss("Medium LN-free"), loss("Small original"), loss("something else")];
        let rows = compare(&all, "paper");
        let of = |label: &str| rows.iter().filter(|row| row.label == label).count();
        // The original has no distance to itself.
        assert_eq!((rows.len(), of("Small original"), of("Medium LN-free")), (7, 3, 4));
        let jsd = rows.iter().find(|row| row.number.starts_with("JSD")).unwrap();
        assert_eq!((jsd.measured, jsd.published, jsd.verdict), (None, 0.0347, Verdict::NotComparable));
        assert!(compare(&all, "nano").is_empty());
    }

    #[test]
    fn the_figures_are_those_of_the_papers_models() {
        let published = paper();
        assert_eq!(published.len(), 3 + 2 + 6 * 3 + 4);
        let models = crate::study::suite::Suite::find("paper").unwrap().models;
        for figure in published {
            assert!(models.iter().any(|model| model.label == figure.label), "{}", figure.label);
            assert!(figure.interval.is_none_or(|[low, high]| low < figure.value && figure.value < high));
        }
    }
}
