//! What the analyses of the embedded models came to when that was last recorded: `data/interp.json`, which
//! the example `interp_record` makes.

use serde::{Deserialize, Serialize};

use super::figure::{Figure, Origin};
use super::{Findings, Request};
use crate::study::found::Number;

/// The record of a suite of analyses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterpRecord {
    /// How the numbers came to be.
    pub provenance: Provenance,
    /// The numbers, model by model in the order of the suite.
    pub figures: Vec<RecordedAnalysis>,
}

/// How numbers came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// What was run.
    pub command: String,
    /// The processor, and how many of its cores there were.
    pub processor: String,
    /// The day, as 2025-01-31.
    pub date: String,
}

/// What one analysis of one model came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedAnalysis {
    /// The model's label.
    pub label: String,
    /// What was asked.
    pub request: Request,
    /// All single numbers that are finite, with their 95% intervals.
    pub numbers: Vec<Number>,
}

impl InterpRecord {
    /// The finite numbers of `findings`; maps, curves, rankings and texts are not recorded.
    pub fn of(findings: &[Findings], provenance: Provenance) -> InterpRecord {
        let figures = findings.iter().map(|Findings { label, request, found, .. }| RecordedAnalysis {
            label: label.clone(),
            request: request.clone(),
            numbers: found.numbers.iter().filter(|number| number.value.is_some()).cloned().collect(),
        });
        InterpRecord { provenance, figures: figures.collect() }
    }

    /// One for each number.
    pub(super) fn into_figures(self) -> Vec<Figure> {
        let of_one = |RecordedAnalysis { label, request, numbers }: RecordedAnalysis| {
            numbers.into_iter().filter_map(move |Number { name, value, interval, unit }| {
                let (label, request) = (label.clone(), request.clone());
                Some(Figure {
                    label,
                    request,
                    number: name,
                    unit,
                    value: value?,
                    interval,
                    origin: Origin::Recorded,
                })
            })
        };
        self.figures.into_iter().flat_map(of_one).collect()
    }
}

/// Every recorded number.
pub(super) fn figures() -> Vec<Figure> {
    embedded().map(InterpRecord::into_figures).unwrap_or_default()
}

/// How the record came to be, as a sentence.
pub(super) fn how_recorded() -> String {
    let Ok(InterpRecord { provenance: Provenance { command, processor, date }, .. }) = embedded() else {
        return String::new();
    };
    format!("Recorded by {command} on {processor}, {date}.")
}

fn embedded() -> serde_json::Result<InterpRecord> {
    serde_json::from_str(include_str!("../../../data/interp.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::analyses::InterpSuite;
    use crate::study::found::{Axis, Curve, Found};

    fn provenance() -> Provenance {
        let [command, processor, date] =
            ["interp-all", "a processor, 2 cores", "2025-01-31"].map(String::from);
        Provenance { command, processor, date }
    }

    #[test]
    fn the_embedded_record_has_every_analysis_of_every_model() {
        let record = embedded().unwrap();
        let suite = InterpSuite::find("nano").unwrap();
        let of = |label: &str, request: &Request| {
            record.figures.iter().filter(|of| of.label == label && of.request == *request).count()
        };
        for model in &suite.models {
            for request in &suite.requests {
                let (label, name) = (&model.label, request.name());
                assert_eq!(of(label, request), 1, "{name} of {label}: run the example interp_record");
            }
        }
        assert_eq!(record.figures.len(), suite.models.len() * suite.requests.len());
        let numbers = record.figures.iter().flat_map(|of| &of.numbers);
        assert!(numbers.clone().all(|number| number.value.is_some_and(f64::is_finite)));
        assert_eq!(figures().len(), numbers.count());
    }

    #[test]
    fn finite_numbers_are_recorded_and_read_again() {
        let curve = Curve {
            name: "loss by position".into(),
            unit: "nats".into(),
            at: Axis::counted("position", 1),
            values: vec![Some(1.0)],
        };
        let loss = Number::new("loss", 3.4879999161, "nats").with_interval([3.4, 3.6]);
        let numbers = vec![loss.clone(), Number::new("calibration error", f64::NAN, "")];
        let findings = Findings {
            request: Request::Circuits { heads: 4 },
            label: "original".into(),
            model: "nano".into(),
            original: None,
            seconds: 1.0,
            found: Found { numbers, curves: vec![curve], ..Found::default() },
        };
        let record = InterpRecord::of(&[findings], provenance());
        assert_eq!(record.figures[0].numbers, [loss]);
        let text = serde_json::to_string_pretty(&record).unwrap();
        assert!(!text.contains("position") && text.contains("2 cores"), "{text}");
        let again: InterpRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(again, record);
        let figures = again.into_figures();
        assert_eq!((figures.len(), figures[0].number.as_str(), figures[0].value), (1, "loss", 3.4879999161));
        assert_eq!(figures[0].origin, Origin::Recorded);
    }
}
