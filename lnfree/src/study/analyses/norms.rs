//! How long the residual stream is along the forward, at position 0 and elsewhere.

use super::samples::{average, mean_of};
use super::{Sample, Subject};
use crate::Result;
use crate::interp::{Growth, NormAt, ResidualNorms};
use crate::model::hook::Activation;
use crate::study::found::{Axis, Curve, Found, finite};

/// [`ResidualNorms`] of one sequence at a time, so that memory does not grow with the sample: all its numbers
/// are means over sequences, and the largest norms get intervals over them.
pub(super) fn find(subject: &Subject, sample: &Sample) -> Result<Found> {
    let (ids, note) = subject.ids(sample)?;
    let sequences = (0..ids.size()[0])
        .map(|row| ResidualNorms::of(subject.model(), subject.ln(), &ids.f_narrow(0, row, 1)?))
        .collect::<Result<Vec<_>>>()?;
    let norms = |of: fn(&NormAt) -> f64| collected(&sequences, |found| &found.norms, of);
    let growth = |of: fn(&Growth) -> f64| collected(&sequences, |found| &found.growth, of);
    let (first, others) = (norms(|at| at.first.mean), norms(|at| at.others.mean));

    let places: Vec<Activation> =
        sequences.first().map_or_else(Vec::new, |found| found.norms.iter().map(|norm| norm.at).collect());
    let along = Axis { title: "activation".into(), labels: places.iter().map(|at| label(*at)).collect() };
    let to = Axis { title: "up to".into(), labels: along.labels.iter().skip(1).cloned().collect() };
    let curves = vec![
        curve("norm at position 0", &along, &first),
        curve("norm at other positions", &along, &others),
        curve("growth at position 0", &to, &growth(|step| step.first)),
        curve("growth at other positions", &to, &growth(|step| step.others)),
        curve("cosine with the place before, position 0", &to, &growth(|step| step.cosine_first)),
        curve("cosine with the place before, other positions", &to, &growth(|step| step.cosine_others)),
    ];

    let (mut numbers, mut where_longest) = (Vec::new(), Vec::new());
    for (what, norms) in [("position 0", &first), ("other positions", &others)] {
        if let Some(place) = longest(&places, norms) {
            numbers.push(mean_of(&format!("largest norm at {what}"), &norms[place], ""));
            where_longest.push(format!("at {} ({what})", along.labels[place]));
        }
    }
    Ok(Found {
        notes: vec![
            note,
            "Norms are L2, of the stream without its mean over n_embd; embed and pos_embed are its two \
             first summands, not one stream after the other. ln_final.normalized is divided by a real ln_f, \
             and the stream itself where ln_f is fake or gone."
                .into(),
            format!("The stream within the blocks is longest {}.", where_longest.join(" and ")),
        ],
        numbers,
        curves,
        ..Found::default()
    })
}

/// What `of` reads of the `parts` of every sequence: `[place][sequence]`.
fn collected<T>(
    sequences: &[ResidualNorms],
    parts: fn(&ResidualNorms) -> &Vec<T>,
    of: fn(&T) -> f64,
) -> Vec<Vec<f64>> {
    let places = sequences.first().map_or(0, |found| parts(found).len());
    (0..places).map(|at| sequences.iter().map(|found| of(&parts(found)[at])).collect()).collect()
}

/// The place within the blocks with the largest mean.
fn longest(places: &[Activation], norms: &[Vec<f64>]) -> Option<usize> {
    let streams = (0..places.len()).filter(|&at| places[at].layer().is_some());
    streams.max_by(|&a, &b| average(&norms[a]).total_cmp(&average(&norms[b])))
}

/// `blocks.0.hook_resid_mid` as `0.mid`.
fn label(at: Activation) -> String {
    at.to_string().replace("blocks.", "").replace("hook_resid_", "").replace("hook_", "")
}

fn curve(name: &str, at: &Axis, values: &[Vec<f64>]) -> Curve {
    let means = values.iter().map(|values| finite(average(values)));
    Curve { name: name.into(), unit: String::new(), at: at.clone(), values: means.collect() }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn sequences_one_by_one_give_the_means_of_all() {
        let subject = Subject::load("original", "nano", None, None, Device::Cpu).unwrap();
        let sample = Sample { data: "nano-addresses".into(), sequences: 4, positions: 16 };
        let found = find(&subject, &sample).unwrap();
        let (ids, note) = subject.ids(&sample).unwrap();
        let whole = ResidualNorms::of(subject.model(), subject.ln(), &ids).unwrap();
        let expected = [
            whole.norms.iter().map(|n| n.first.mean).collect::<Vec<_>>(),
            whole.norms.iter().map(|n| n.others.mean).collect(),
            whole.growth.iter().map(|g| g.first).collect(),
            whole.growth.iter().map(|g| g.others).collect(),
            whole.growth.iter().map(|g| g.cosine_first).collect(),
            whole.growth.iter().map(|g| g.cosine_others).collect(),
        ];
        for (curve, expected) in found.curves.iter().zip(&expected) {
            assert_eq!((curve.values.len(), curve.at.labels.len()), (expected.len(), expected.len()));
            for (value, expected) in curve.values.iter().zip(expected) {
                assert!((value.unwrap() - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{curve:?}");
            }
        }
        let labels = &found.curves[0].at.labels;
        assert_eq!(labels[..4], ["embed", "pos_embed", "0.mid", "0.post"].map(String::from));
        let longest = expected[1][2..14].iter().copied().fold(0.0, f64::max);
        assert!((found.numbers[1].value.unwrap() - longest).abs() < 1e-4 * longest);
        assert_eq!(found.notes[0], note);
    }
}
