//! How much heads attend to position 0.

use tch::{Kind, Tensor};

use super::samples::{mean_of, portions};
use super::{Sample, Subject};
use crate::Result;
use crate::interp::AttentionSinks;
use crate::study::found::{Axis, Curve, Found, Map, finite};

/// What position 0 has to get to be a sink, the paper's.
const THRESHOLD: f64 = 0.3;

/// Sink rates ([`AttentionSinks`]) and mean attention to position 0. The sample goes through the model some
/// sequences at a time, and of their patterns one number a sequence and head is kept.
pub(super) fn find(subject: &Subject, sample: &Sample) -> Result<Found> {
    let (ids, note) = subject.ids(sample)?;
    let (mut rates, mut later, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for ids in portions(&ids)? {
        let to_first = AttentionSinks::of(subject.model(), subject.ln(), &ids)?.to_first;
        let sinks = to_first.f_gt(THRESHOLD)?;
        let queries = sinks.size()[3];
        rates.push(sinks.f_mean_dim(-1i64, false, Kind::Double)?.f_mul_scalar(100.0)?);
        later.push(
            sinks
                .f_narrow(-1, 1, queries - 1)?
                .f_mean_dim(-1i64, false, Kind::Double)?
                .f_mul_scalar(100.0)?,
        );
        given.push(to_first.f_mean_dim(-1i64, false, Kind::Double)?);
    }
    // [layer, sequence, head]
    let rates = Tensor::f_cat(&rates, 1)?;
    let (later, given) = (Tensor::f_cat(&later, 1)?, Tensor::f_cat(&given, 1)?);
    let by_sequence = |x: &Tensor| -> Result<Vec<f64>> {
        Ok(Vec::try_from(x.f_mean_dim([0i64, 2].as_slice(), false, Kind::Double)?)?)
    };
    let by_head = |x: &Tensor| -> Result<Vec<Vec<f64>>> {
        Ok(Vec::try_from(x.f_mean_dim(1i64, false, Kind::Double)?)?)
    };
    let by_layer = Vec::<f64>::try_from(rates.f_mean_dim([1i64, 2].as_slice(), false, Kind::Double)?)?;
    Ok(Found {
        notes: vec![
            note,
            format!(
                "The sink rate is the share of layers, heads and queries that give position 0 more than \
                 {THRESHOLD}; position 0 itself, which has nowhere else to look, is counted."
            ),
        ],
        numbers: vec![
            mean_of("sink rate", &by_sequence(&rates)?, "%"),
            mean_of("sink rate without position 0", &by_sequence(&later)?, "%"),
            mean_of("attention to position 0", &by_sequence(&given)?, ""),
        ],
        maps: vec![
            Map::by_layer("sink rate", "%", "head", &by_head(&rates)?, false),
            Map::by_layer("attention to position 0", "", "head", &by_head(&given)?, false),
        ],
        curves: vec![Curve {
            name: "sink rate by layer".into(),
            unit: "%".into(),
            at: Axis::counted("layer", by_layer.len()),
            values: by_layer.into_iter().map(finite).collect(),
        }],
        ..Found::default()
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn portions_give_the_rate_of_the_whole_sample() {
        let subject = Subject::load("original", "nano", None, None, Device::Cpu).unwrap();
        // More than go through at once.
        let sample = Sample { data: "nano-addresses".into(), sequences: 40, positions: 120 };
        let found = find(&subject, &sample).unwrap();
        let (ids, note) = subject.ids(&sample).unwrap();
        assert!(portions(&ids).unwrap().len() > 1);
        let whole = AttentionSinks::of(subject.model(), subject.ln(), &ids).unwrap();
        let close = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 0.03, "{found:?} {expected}");
        };
        let rate = &found.numbers[0];
        assert_eq!((rate.name.as_str(), rate.unit.as_str()), ("sink rate", "%"));
        close(rate.value, 100.0 * whole.rate(0.3).unwrap());
        let [low, high] = rate.interval.unwrap();
        assert!(low < rate.value.unwrap() && rate.value.unwrap() < high, "{rate:?}");
        for (layer, heads) in whole.by_head(0.3).unwrap().into_iter().enumerate() {
            for (head, expected) in heads.into_iter().enumerate() {
                close(found.maps[0].values[layer][head], 100.0 * expected);
            }
        }
        // Position 0 is one of 120 queries, and a sink for certain.
        let later = found.numbers[1].value.unwrap();
        close(rate.value, (100.0 + 119.0 * later) / 120.0);
        assert_eq!(found.notes[0], note);
    }
}
