//! A sparse autoencoder in the model.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::{Sample, Subject};
use crate::interp::{ActivationCache, Sae, SaeQuality};
use crate::model::hook::Activation;
use crate::study::found::{Found, Number, Ranking, finite};
use crate::{Error, Result};

/// Logits, or features, of the sequences of one forward: 128 MiB.
const AT_A_TIME: i64 = 1 << 25;
/// Features that are named.
const FEATURES: i64 = 10;

const VARIANCE: &str = "The explained variance is of all positions; where position 0 has a far longer stream \
                        than the others, as models with LN often have, it is mostly of that.";
const RECOVERED: &str = "Loss recovered is (zeros − SAE)/(zeros − model): 1 where the model predicts as well \
                         with the reconstruction, 0 where zeros in its place would do as well.";

/// What the SAE of the folder `dir` keeps of an activation and of the model's predictions, and the features
/// that are on most often.
///
/// # Errors
/// If the SAE cannot be loaded, is of another width than the model, or the sample cannot be had.
pub(super) fn find(subject: &Subject, dir: &Path, sample: &Sample) -> Result<Found> {
    let _guard = tch::no_grad_guard();
    let sae = Sae::load(dir, subject.model().device())?;
    let place = sae.place()?;
    let width = width(subject, place);
    if sae.d_in() != width {
        return Err(Error::invalid(format!(
            "{}: the SAE is of width {}, and {place} of {} of {width}: it is another model's",
            dir.display(),
            sae.d_in(),
            subject.name
        )));
    }
    let (ids, beginning) = subject.ids(sample)?;
    let Measured { quality, frequency, when_on } = Measured::of(subject, &sae, place, &ids)?;
    // Of truth values there is no mean.
    let never = frequency.f_eq(0.0)?.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?;
    Ok(Found {
        notes: vec![beginning, origin(subject, &sae, place), VARIANCE.into(), RECOVERED.into()],
        numbers: vec![
            Number::new("explained variance", quality.explained_variance, ""),
            Number::new("loss", quality.loss, "nats"),
            Number::new("loss with the SAE", quality.loss_with_sae, "nats"),
            Number::new("loss with zeros", quality.loss_with_zeros, "nats"),
            Number::new("loss recovered", quality.loss_recovered(), ""),
            Number::new("L0", quality.l0, ""),
            Number::new("features that are never on", 100.0 * never.f_double_value(&[])?, "%"),
        ],
        rankings: vec![most_frequent(&frequency, &when_on)?],
        ..Found::default()
    })
}

/// Of what it was trained on, and whether that is what it is tried on.
fn origin(subject: &Subject, sae: &Sae, place: Activation) -> String {
    let last = |name: &str| {
        let last = name.rsplit('/').find(|part| !part.is_empty()).unwrap_or(name).to_lowercase();
        // TransformerLens' name of GPT-2's smallest model.
        if last == "gpt2-small" { "gpt2".to_string() } else { last }
    };
    match &sae.config.model_name {
        None => format!("The SAE reads {place}; its files do not say of which model."),
        Some(name) if last(name) == last(&subject.name) => {
            format!("The SAE was trained on {place} of {name}, which is this model.")
        }
        Some(name) => {
            let tried = &subject.name;
            format!("The SAE was trained on {place} of {name}, and is tried on another model, {tried}.")
        }
    }
}

/// Of an activation.
fn width(subject: &Subject, place: Activation) -> i64 {
    let config = &subject.model().config;
    match place {
        Activation::MlpPre(_) | Activation::MlpPost(_) => config.mlp_width(),
        _ => config.n_embd,
    }
}

/// The features that are on most often.
fn most_frequent(frequency: &Tensor, when_on: &Tensor) -> Result<Ranking> {
    let (values, places) = frequency.f_topk(FEATURES.min(frequency.size()[0]), 0, true, true)?;
    let when_on = Vec::<f64>::try_from(when_on.f_index_select(0, &places)?)?;
    let (values, places) = (Vec::<f64>::try_from(values)?, Vec::<i64>::try_from(places)?);
    let rows = places.into_iter().zip(values).zip(when_on);
    let rows = rows.map(|((feature, often), size)| (feature.to_string(), vec![finite(often), finite(size)]));
    Ok(Ranking {
        name: "features that are on most often".into(),
        what: "feature".into(),
        columns: vec!["frequency".into(), "mean where it is on".into()],
        rows: rows.collect(),
        total: None,
    })
}

/// What was measured over all tokens.
struct Measured {
    quality: SaeQuality,
    /// How often each feature is on, `[d_sae]`, float64 on the CPU.
    frequency: Tensor,
    /// How large it then is on average, likewise; not a number where it never is.
    when_on: Tensor,
}

impl Measured {
    /// On ids `[sequence, pos]`, some sequences at a time. Sums of squares are float64, so that the variance
    /// is of all tokens and not of each part's.
    fn of(subject: &Subject, sae: &Sae, place: Activation, ids: &Tensor) -> Result<Measured> {
        let (model, ln) = (subject.model(), subject.ln());
        let (n, pos) = ids.size2()?;
        let per_sequence = pos * model.config.vocab_size.max(sae.d_sae());
        let each = (AT_A_TIME / per_sequence.max(1)).max(1);
        let zeros = |width: i64| Tensor::f_zeros([width], (Kind::Double, model.device()));
        let over_tokens = |x: &Tensor| x.f_sum_dim_intlist(0i64, false, Kind::Double);
        let (mut sum, mut on, mut size) = (zeros(sae.d_in())?, zeros(sae.d_sae())?, zeros(sae.d_sae())?);
        let (mut lost, mut square, mut losses) = (0.0, 0.0, [0.0; 3]);
        for start in (0..n).step_by(each as usize) {
            let some = ids.f_narrow(0, start, each.min(n - start))?;
            let cache = ActivationCache::new(model, ln, &some, |at| at == place)?;
            let part = sae.quality(model, ln, &some)?;
            let share = some.size()[0] as f64 / n as f64;
            for (all, loss) in losses.iter_mut().zip([part.loss, part.loss_with_sae, part.loss_with_zeros]) {
                *all += share * loss;
            }
            let x = cache.get(place)?.f_to_kind(Kind::Float)?.f_reshape([-1, sae.d_in()])?;
            let run = sae.run(&x)?;
            lost += squares(&x.f_sub(&run.reconstruction)?)?;
            square += squares(&x)?;
            sum = sum.f_add(&over_tokens(&x)?)?;
            on = on.f_add(&over_tokens(&run.features.f_gt(0.0)?)?)?;
            size = size.f_add(&over_tokens(&run.features)?)?;
        }
        let tokens = (n * pos) as f64;
        let [loss, loss_with_sae, loss_with_zeros] = losses;
        let quality = SaeQuality {
            explained_variance: 1.0 - lost / (square - squares(&sum)? / tokens),
            l0: on.f_sum(Kind::Double)?.f_double_value(&[])? / tokens,
            loss,
            loss_with_sae,
            loss_with_zeros,
        };
        let frequency = on.f_div_scalar(tokens)?.f_to_device(Device::Cpu)?;
        Ok(Measured { quality, frequency, when_on: size.f_div(&on)?.f_to_device(Device::Cpu)? })
    }
}

/// The sum of squares.
fn squares(x: &Tensor) -> Result<f64> {
    Ok(x.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp::{SaeTraining, train_small};

    const PLACE: &str = "blocks.3.hook_resid_pre";

    #[test]
    fn numbers_are_those_of_all_tokens_and_another_width_is_refused() {
        let subject = Subject::load("a model", "nano", None, None, Device::Cpu).unwrap();
        // More than go through the model at a time.
        let sample = Sample { data: "nano-addresses".into(), sequences: 70, positions: 128 };
        let (ids, _) = subject.ids(&sample).unwrap();
        let place: Activation = PLACE.parse().unwrap();
        let cache = ActivationCache::new(subject.model(), subject.ln(), &ids, |at| at == place).unwrap();
        let options = SaeTraining { d_sae: 64, steps: 20, ..SaeTraining::default() };
        let (sae, _) = train_small(cache.get(place).unwrap(), PLACE, options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        sae.save(folder.path()).unwrap();
        let found = find(&subject, folder.path(), &sample).unwrap();
        let number = |name: &str| {
            let found = found.numbers.iter().find(|number| number.name == name);
            found.unwrap().value.unwrap()
        };
        let expected = sae.quality(subject.model(), subject.ln(), &ids).unwrap();
        for (name, expected) in [
            ("explained variance", expected.explained_variance),
            ("loss", expected.loss),
            ("loss with the SAE", expected.loss_with_sae),
            ("loss with zeros", expected.loss_with_zeros),
            ("L0", expected.l0),
        ] {
            assert!((number(name) - expected).abs() < 1e-3, "{name}: {} {expected}", number(name));
        }
        let rows = &found.rankings[0].rows;
        assert!(rows.len() == 10 && rows[0].1[0] >= rows[9].1[0] && rows[0].1[0] <= Some(1.0), "{rows:?}");
        assert!(found.notes[1].contains("do not say of which model"), "{}", found.notes[1]);

        let narrow = cache.get(place).unwrap().narrow(-1, 0, 64);
        let (sae, _) = train_small(&narrow, PLACE, options).unwrap();
        let folder = folder.path().join("narrow");
        sae.save(&folder).unwrap();
        let refused = find(&subject, &folder, &sample).unwrap_err().to_string();
        assert!(refused.contains("width 64") && refused.lines().count() == 1, "{refused}");
    }
}
