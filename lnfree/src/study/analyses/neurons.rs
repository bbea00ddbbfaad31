//! Entropy neurons of the last MLP: which they are, and what the model says without them.

use tch::{Kind, Tensor};

use super::samples::mean;
use super::{Sample, Subject};
use crate::interp::{EntropyNeurons, MeanAblation};
use crate::study::found::{Axis, Curve, Found, Ranking, finite};
use crate::{Error, Result};

/// Columns of the ranking; changes are in nats, means over predictions.
const COLUMNS: [&str; 6] = [
    "norm / variance",
    "output norm",
    "logit variance",
    "share in the 10% least read directions",
    "change of loss",
    "change of entropy",
];

/// The `neurons` with the largest ratio of [`EntropyNeurons`], replaced by their means alone and together
/// ([`MeanAblation`]).
///
/// The means are over the whole sample, so all of it goes through the model at once. `4 · (n_embd + n_inner)`
/// bytes a token are kept: 15 KiB of GPT-2 small, 7.3 GiB of 1000 sequences of 512 tokens.
pub(super) fn find(
    subject: &Subject,
    sample: &Sample,
    neurons: usize,
    progress: &mut impl FnMut(f64),
) -> Result<Found> {
    let (ids, note) = subject.ids(sample)?;
    let weights = EntropyNeurons::of(subject.model())?;
    let mut ranked = weights.ranked();
    if neurons == 0 || neurons > ranked.len() {
        return Err(Error::invalid(format!(
            "{neurons} neurons: the last MLP of {} has {}, and one is needed",
            subject.name,
            ranked.len()
        )));
    }
    ranked.truncate(neurons);
    let ablation = MeanAblation::new(subject.model(), subject.ln(), &ids)?;
    let own = ablation.of(&[])?;
    let (mut done, runs) = (1.0, (2 * neurons + 1) as f64);
    progress(done / runs);
    let mut changes = |replaced: &[usize]| -> Result<[Tensor; 2]> {
        let outcome = ablation.of(replaced)?;
        done += 1.0;
        progress(done / runs);
        Ok([outcome.loss.f_sub(&own.loss)?, outcome.entropy.f_sub(&own.entropy)?])
    };
    let alone = ranked.iter().map(|neuron| changes(&[*neuron])).collect::<Result<Vec<_>>>()?;
    let together = (1..=neurons).map(|n| changes(&ranked[..n])).collect::<Result<Vec<_>>>()?;

    let smallest = weights.singular_values.len().div_ceil(10) as i64;
    let last = subject.model().h.len().saturating_sub(1);
    let rows = ranked.iter().zip(&alone).map(|(&neuron, [loss, entropy])| {
        let numbers = [
            weights.ratio(neuron),
            weights.norms[neuron],
            weights.logit_variances[neuron],
            weights.in_smallest(neuron, smallest),
            average(loss)?,
            average(entropy)?,
        ];
        Ok((format!("L{last}N{neuron}"), numbers.into_iter().map(finite).collect()))
    });
    let ranking = Ranking {
        name: "entropy neurons".into(),
        what: "neuron".into(),
        columns: COLUMNS.map(String::from).into(),
        rows: rows.collect::<Result<Vec<_>>>()?,
        total: None,
    };
    let mut numbers = vec![mean("loss", &own.loss, "nats")?, mean("entropy", &own.entropy, "nats")?];
    if let Some([loss, entropy]) = together.last() {
        numbers.push(mean("change of loss, all replaced", loss, "nats")?);
        numbers.push(mean("change of entropy, all replaced", entropy, "nats")?);
    }
    Ok(Found {
        notes: vec![
            note,
            format!(
                "{neurons} of the {} neurons of the last MLP, those with the largest norm over variance, are \
                 replaced by their means over the predictions of the sample; another model has others. \
                 Changes are signed means.",
                weights.norms.len()
            ),
        ],
        numbers,
        curves: vec![
            curve("change of loss, together", &together, 0)?,
            curve("change of entropy, together", &together, 1)?,
        ],
        rankings: vec![ranking],
        ..Found::default()
    })
}

/// The mean of all.
fn average(x: &Tensor) -> Result<f64> {
    Ok(x.f_mean(Kind::Double)?.f_double_value(&[])?)
}

/// Loss (0) or entropy (1) with ever more neurons replaced.
fn curve(name: &str, together: &[[Tensor; 2]], which: usize) -> Result<Curve> {
    let values = together.iter().map(|changes| Ok(finite(average(&changes[which])?)));
    let labels = (1..=together.len()).map(|n| n.to_string()).collect();
    Ok(Curve {
        name: name.into(),
        unit: "nats".into(),
        at: Axis { title: "neurons replaced".into(), labels },
        values: values.collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn changes_are_those_of_the_ablation() {
        let subject = Subject::load("original", "nano", None, None, Device::Cpu).unwrap();
        let sample = Sample { data: "nano-addresses".into(), sequences: 3, positions: 16 };
        let mut seen = Vec::new();
        let found = find(&subject, &sample, 3, &mut |done| seen.push(done)).unwrap();
        assert!(seen.len() == 7 && seen.windows(2).all(|pair| pair[0] < pair[1]) && seen[6] == 1.0);

        let (ids, note) = subject.ids(&sample).unwrap();
        let ranked = EntropyNeurons::of(subject.model()).unwrap().ranked();
        let ablation = MeanAblation::new(subject.model(), subject.ln(), &ids).unwrap();
        let entropy = |neurons: &[usize]| average(&ablation.of(neurons).unwrap().entropy).unwrap();
        let own = entropy(&[]);
        let rows = &found.rankings[0].rows;
        for (n, (row, &neuron)) in rows.iter().zip(&ranked).enumerate() {
            assert_eq!((row.0.clone(), row.1.len()), (format!("L5N{neuron}"), COLUMNS.len()));
            assert!((row.1[5].unwrap() - (entropy(&[neuron]) - own)).abs() < 2e-6, "{row:?}");
            let together = found.curves[1].values[n].unwrap();
            assert!((together - (entropy(&ranked[..=n]) - own)).abs() < 2e-6, "{together}");
        }
        assert_eq!((rows.len(), rows[0].1[4]), (3, found.curves[0].values[0]));
        assert_eq!(found.notes[0], note);
        assert!(found.numbers.iter().all(|number| number.interval.is_some()));
    }

    #[test]
    fn more_neurons_than_there_are_are_refused() {
        let subject = Subject::load("original", "nano", None, None, Device::Cpu).unwrap();
        let sample = Sample { data: "nano-addresses".into(), sequences: 1, positions: 4 };
        for neurons in [0, 513] {
            let refused = find(&subject, &sample, neurons, &mut |_| ()).unwrap_err().to_string();
            assert!(refused.contains("the last MLP of nano has 512"), "{refused}");
        }
    }
}
