//! What a model predicts, and how far that is from what the original predicts.

use tch::{Kind, Tensor};

use super::samples::mean;
use super::{Sample, Subject};
use crate::Result;
use crate::interp::divergence::Predictions;
use crate::study::found::{Axis, Curve, Found, Number, finite};

/// Loss, entropy, calibration error and accuracy, all in the paper's measures ([`Predictions`]); with an
/// original, the distances from it ([`Predictions::beside`]). Only what is said of every position is kept of
/// the whole sample.
pub(super) fn find(subject: &Subject, sample: &Sample) -> Result<Found> {
    let (ids, note) = subject.ids(sample)?;
    let own = (subject.model(), subject.ln());
    let (said, apart) = match &subject.original {
        Some((_, original)) => {
            let (said, apart) = Predictions::beside(own, (&original.model, &original.ln), &ids)?;
            (said, Some(apart))
        }
        None => (Predictions::of(own.0, own.1, &ids)?, None),
    };
    let mut found = Found {
        notes: vec![note],
        numbers: vec![
            mean("loss", &said.ce_loss, "nats")?,
            mean("entropy", &said.entropy, "nats")?,
            Number::new("calibration error", said.calibration_error()?, ""),
            mean("accuracy", &said.correct.f_to_kind(Kind::Double)?.f_mul_scalar(100.0)?, "%")?,
        ],
        curves: vec![
            by_position("loss by position", &said.ce_loss)?,
            by_position("entropy by position", &said.entropy)?,
        ],
        ..Found::default()
    };
    if let Some(apart) = apart {
        found.numbers.extend([
            mean("JSD to the original", &apart.jsd, "nats")?,
            mean("JSD to the original, top 20", &apart.jsd_top20, "nats")?,
            mean("symmetric KL to the original", &apart.symmetric_kl, "nats")?,
            mean("symmetric KL to the original, top 20", &apart.symmetric_kl_top20, "nats")?,
        ]);
        found.curves.push(by_position("JSD to the original by position", &apart.jsd)?);
    }
    Ok(found)
}

/// The mean over sequences at every position, of nats `[sequences, positions]`.
fn by_position(name: &str, values: &Tensor) -> Result<Curve> {
    let means = Vec::<f64>::try_from(values.f_mean_dim(0i64, false, Kind::Double)?)?;
    Ok(Curve {
        name: name.into(),
        unit: "nats".into(),
        at: Axis::counted("position", means.len()),
        values: means.into_iter().map(finite).collect(),
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::Compute;
    use crate::model::hook::NoHook;

    fn numbers(original: Option<&str>) -> (Subject, Sample, Found) {
        let subject = Subject::load("original", "nano", original, None, Device::Cpu).unwrap();
        let sample = Sample { data: "nano-addresses".into(), sequences: 3, positions: 16 };
        let found = find(&subject, &sample).unwrap();
        (subject, sample, found)
    }

    fn value(found: &Found, name: &str) -> f64 {
        found.numbers.iter().find(|number| number.name == name).unwrap().value.unwrap()
    }

    #[test]
    fn losses_and_entropies_are_those_of_the_logits() {
        let (subject, sample, found) = numbers(None);
        let (ids, note) = subject.ids(&sample).unwrap();
        let logits = subject.model().forward(&ids, subject.ln(), Compute::default(), &mut NoHook).unwrap();
        let logp = logits.narrow(1, 0, 15).to_kind(Kind::Double).log_softmax(-1, Kind::Double);
        let loss = -logp.gather(-1, &ids.narrow(1, 1, 15).unsqueeze(-1), false).mean(Kind::Double);
        let entropy = -(logp.exp() * &logp).sum_dim_intlist(-1i64, false, Kind::Double).mean(Kind::Double);
        for (name, expected) in [("loss", loss), ("entropy", entropy)] {
            let apart = value(&found, name) - expected.double_value(&[]);
            assert!(apart.abs() < 5e-4, "{name}: {apart:e}");
        }
        let right = logp.argmax(-1i64, false).eq_tensor(&ids.narrow(1, 1, 15)).mean(Kind::Double);
        assert!((value(&found, "accuracy") - 100.0 * right.double_value(&[])).abs() < 1e-9);
        let [low, high] = found.numbers[0].interval.unwrap();
        assert!(low < value(&found, "loss") && value(&found, "loss") < high, "{low} {high}");
        assert_eq!(found.notes, [note]);
        assert_eq!((found.numbers.len(), found.curves[0].values.len()), (4, 15));
    }

    #[test]
    fn a_model_is_no_way_from_itself_and_some_way_from_another() {
        let (.., itself) = numbers(Some("nano"));
        assert!(value(&itself, "JSD to the original").abs() < 1e-6);
        let (.., other) = numbers(Some("nano_LNFree200"));
        let [jsd, kl] =
            ["JSD to the original", "symmetric KL to the original"].map(|name| value(&other, name));
        assert!(jsd > 1e-4 && jsd < 2f64.ln() && kl > jsd, "{jsd} {kl}");
        let by_position: f64 = other.curves[2].values.iter().flatten().sum();
        assert!((by_position / 15.0 - jsd).abs() < 1e-6);
    }
}
