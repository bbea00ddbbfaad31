//! What "Transformers Don't Need LayerNorm at Inference Time" (arXiv 2507.02559) published of the models of
//! the suite `paper`.

use super::figure::{Figure, Origin};
use super::{Request, Sample};

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

/// The paper's sample: each text is cut to as many tokens.
pub(super) fn sample() -> Sample {
    Sample { data: "pile-apollo-luca".into(), sequences: 1000, positions: 512 }
}

/// All of them.
pub(super) fn figures() -> Vec<Figure> {
    let effects = EFFECTS.into_iter().map(|(label, value, interval)| Figure {
        label: label.into(),
        request: Request::DirectEffects(sample()),
        number: "NMAE, mean over heads".into(),
        unit: "%".into(),
        value,
        interval,
        origin: Origin::Published { rounding: 0.005 },
    });
    let sinks = SINKS.into_iter().map(|(label, value, interval)| Figure {
        label: label.into(),
        request: Request::Sinks(sample()),
        number: "sink rate".into(),
        unit: "%".into(),
        value,
        interval: Some(interval),
        origin: Origin::Published { rounding: 0.05 },
    });
    effects.chain(sinks).chain(OUTPUTS.into_iter().flat_map(outputs)).collect()
}

/// A row of [`OUTPUTS`].
fn outputs((label, [loss, entropy, calibration], jsd): (&str, [f64; 3], Option<f64>)) -> Vec<Figure> {
    let numbers = [
        ("loss", "nats", Some(loss)),
        ("entropy", "nats", Some(entropy)),
        ("calibration error", "", Some(calibration)),
        ("JSD to the original", "nats", jsd),
    ];
    let figure = |(number, unit, value): (&str, &str, Option<f64>)| {
        Some(Figure {
            label: label.into(),
            request: Request::Outputs(sample()),
            number: number.into(),
            unit: unit.into(),
            value: value?,
            interval: None,
            origin: Origin::Published { rounding: 5e-5 },
        })
    };
    numbers.into_iter().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::analyses::InterpSuite;

    #[test]
    fn the_figures_are_those_of_the_papers_models_and_of_what_they_are_asked() {
        let (figures, suite) = (figures(), InterpSuite::find("paper").unwrap());
        assert_eq!(figures.len(), 3 + 2 + 6 * 3 + 4);
        for figure in figures {
            assert!(suite.models.iter().any(|model| model.label == figure.label), "{figure:?}");
            assert!(suite.requests.contains(&figure.request), "{figure:?}");
            assert!(figure.interval.is_none_or(|[low, high]| low < figure.value && figure.value < high));
        }
    }
}
