//! What the residual stream predicts before every block.

use tch::Tensor;

use super::samples::{average, by_sequence, mean_of, portions};
use super::{Sample, Subject};
use crate::Result;
use crate::interp::{ActivationCache, LensLayer};
use crate::model::hook::Activation;
use crate::study::found::{Axis, Curve, Found, finite};

/// The logit lens: loss of the next token, and how often the likeliest token is already the one that the
/// model ends with. Some sequences at a time; memory does not grow with the sample.
pub(super) fn find(subject: &Subject, sample: &Sample) -> Result<Found> {
    let (ids, note) = subject.ids(sample)?;
    let mut lens = Lens::default();
    for ids in portions(&ids)? {
        let stream = |at: Activation| matches!(at, Activation::ResidPre(_));
        let cache = ActivationCache::new(subject.model(), subject.ln(), &ids, stream)?;
        let layers = cache.lens_summary(true)?;
        // The last one is the model's own prediction.
        if let Some(last) = layers.last() {
            lens.add(&layers, &last.top)?;
        }
    }
    Ok(Found {
        notes: vec![
            note,
            "The stream of every place goes through ln_f as if it were the last: a real one divides by that \
             stream's own scale, a fake one by its constant."
                .into(),
        ],
        numbers: vec![mean_of("final loss", lens.losses.last().map_or(&[], Vec::as_slice), "nats")],
        curves: vec![
            lens.curve("loss", "nats", &lens.losses, 1.0),
            lens.curve("likeliest token is the final one", "%", &lens.agreed, 100.0),
        ],
        ..Found::default()
    })
}

/// What was found of every sequence at every place.
#[derive(Default)]
struct Lens {
    labels: Vec<String>,
    /// `[place][sequence]`.
    losses: Vec<Vec<f64>>,
    /// Share of positions with the final likeliest token, `[place][sequence]`.
    agreed: Vec<Vec<f64>>,
}

impl Lens {
    /// More sequences, whose final likeliest tokens are `top`, `[batch, pos]`.
    fn add(&mut self, layers: &[LensLayer], top: &Tensor) -> Result<()> {
        self.labels = layers.iter().map(|layer| layer.label.clone()).collect();
        self.losses.resize(layers.len(), Vec::new());
        self.agreed.resize(layers.len(), Vec::new());
        for (place, layer) in layers.iter().enumerate() {
            self.losses[place].extend(by_sequence(&layer.loss)?);
            self.agreed[place].extend(by_sequence(&layer.top.f_eq_tensor(top)?)?);
        }
        Ok(())
    }

    fn curve(&self, name: &str, unit: &str, values: &[Vec<f64>], times: f64) -> Curve {
        Curve {
            name: name.into(),
            unit: unit.into(),
            at: Axis { title: "residual stream".into(), labels: self.labels.clone() },
            values: values.iter().map(|values| finite(times * average(values))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::model::Compute;
    use crate::model::hook::NoHook;

    #[test]
    fn the_last_place_is_the_models_own_prediction() {
        let subject = Subject::load("original", "nano", None, None, Device::Cpu).unwrap();
        let sample = Sample { data: "nano-addresses".into(), sequences: 3, positions: 16 };
        let found = find(&subject, &sample).unwrap();
        let (ids, note) = subject.ids(&sample).unwrap();
        let logits = subject.model().forward(&ids, subject.ln(), Compute::default(), &mut NoHook).unwrap();
        let logp = logits.narrow(1, 0, 15).to_kind(Kind::Double).log_softmax(-1, Kind::Double);
        let loss = -logp.gather(-1, &ids.narrow(1, 1, 15).unsqueeze(-1), false).mean(Kind::Double);
        let final_loss = found.numbers[0].value.unwrap();
        assert!((final_loss - loss.double_value(&[])).abs() < 1e-4, "{final_loss}");
        let [losses, agreed] = &found.curves[..] else { panic!("{found:?}") };
        assert_eq!(losses.at.labels.first().map(String::as_str), Some("0_pre"));
        assert_eq!(losses.at.labels.last().map(String::as_str), Some("final_post"));
        assert_eq!((losses.values.len(), losses.values[6]), (7, Some(final_loss)));
        assert!(losses.values[0].unwrap() > final_loss + 0.3, "an embedding predicts badly: {losses:?}");
        assert_eq!(agreed.values[6], Some(100.0));
        assert!(agreed.values[0].unwrap() < 50.0);
        assert_eq!(found.notes[0], note);
    }
}
