//! Direct logit attribution of heads, held against what taking them away does.

use super::{Sample, Subject};
use crate::Result;
use crate::interp::{DirectEffects, EffectTarget};
use crate::study::found::{Found, Map, Number};

const TARGETS: &str = "The logit is that of the last token that the model reads, as in the paper's code; \
                       numbers with ‘next token’ are of the token after what it reads.";
const NMAE: &str = "NMAE is 100 · mean |attribution − direct effect| / mean |direct effect| at the last \
                    position: of each head and then its mean, as in the paper, or the ratio of means over \
                    all heads.";

/// NMAE of heads in percent with 95% intervals over heads and sequences, for both targets, and of each head
/// for the next token: see [`DirectEffects`].
///
/// # Errors
/// If the sample cannot be had, or is of single tokens.
pub(super) fn find(subject: &Subject, sample: &Sample) -> Result<Found> {
    let (ids, beginning) = subject.ids(sample)?;
    let model = subject.model();
    let notes = vec![beginning, TARGETS.into(), NMAE.into()];
    let mut found = Found { notes, ..Found::default() };
    for (target, of_next) in [(EffectTarget::LastInput, ""), (EffectTarget::Next, ", next token")] {
        let effects = DirectEffects::of(model, subject.ln(), &ids, target)?;
        let mean = Number::new(format!("NMAE, mean over heads{of_next}"), effects.mean_nmae(), "%");
        found.numbers.push(mean.with_interval(effects.mean_nmae_interval()?));
        let ratio = Number::new(format!("NMAE, ratio of means{of_next}"), effects.global_nmae, "%");
        found.numbers.push(ratio.with_interval(effects.global_nmae_interval()?));
        if target == EffectTarget::Next {
            let by_layer = effects.per_head_nmae.chunks(model.config.n_head as usize);
            let by_layer: Vec<Vec<f64>> = by_layer.map(<[f64]>::to_vec).collect();
            found.maps.push(Map::by_layer("NMAE of each head, next token", "%", "head", &by_layer, false));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn attribution_is_the_direct_effect_where_no_ln_is() {
        let sample = Sample { data: "nano-addresses".into(), sequences: 4, positions: 24 };
        for (name, exact) in [("nano", false), ("nano_LNFree200", true)] {
            let subject = Subject::load("a model", name, None, None, Device::Cpu).unwrap();
            let found = find(&subject, &sample).unwrap();
            let names: Vec<&str> = found.numbers.iter().map(|number| number.name.as_str()).collect();
            assert_eq!(
                names,
                [
                    "NMAE, mean over heads",
                    "NMAE, ratio of means",
                    "NMAE, mean over heads, next token",
                    "NMAE, ratio of means, next token"
                ]
            );
            for number in &found.numbers {
                let (value, [low, high]) = (number.value.unwrap(), number.interval.unwrap());
                assert!(if exact { value < 0.1 } else { value > 1.0 }, "{name}, {}: {value}", number.name);
                assert!(0.0 <= low && low <= high, "{name}, {}: [{low}, {high}]", number.name);
            }
            let map = &found.maps[0];
            assert_eq!((map.values.len(), map.values[0].len()), (6, 4));
            let mean = map.values.iter().flatten().map(|value| value.unwrap()).sum::<f64>() / 24.0;
            let number = found.numbers[2].value.unwrap();
            assert!((mean - number).abs() < 1e-9 * number.max(1.0), "{name}: {mean} {number}");
            assert!(found.notes[0].contains("osition 0"), "{}", found.notes[0]);
        }
    }
}
