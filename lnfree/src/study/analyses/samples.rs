//! Samples of sequences: portions that fit into memory, and means over them with intervals.

use tch::{Kind, Tensor};

use crate::Result;
use crate::eval::interval;
use crate::study::found::Number;

/// What goes through a model at once, which bounds memory: 4096 tokens of GPT-2 medium have 128 MiB of
/// attention patterns a block at 512 positions.
const TOKENS_AT_A_TIME: i64 = 4096;

/// The mean of `[sequences, n]`, with its interval over sequences.
pub(super) fn mean(name: &str, values: &Tensor, unit: &str) -> Result<Number> {
    Ok(mean_of(name, &by_sequence(values)?, unit))
}

/// The mean of every row of `[sequences, n]`.
pub(super) fn by_sequence(values: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(values.f_mean_dim(1i64, false, Kind::Double)?)?)
}

/// The mean of one number a sequence, with its 95% bootstrap interval, which a single one does not have.
pub(super) fn mean_of(name: &str, by_sequence: &[f64], unit: &str) -> Number {
    let number = Number::new(name, average(by_sequence), unit);
    if by_sequence.len() < 2 {
        return number;
    }
    let pairs: Vec<(f64, f64)> = by_sequence.iter().map(|value| (*value, 1.0)).collect();
    number.with_interval(interval(&pairs))
}

/// The mean; NaN of nothing.
pub(super) fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sequences of ids `[sequences, positions]`, some [`TOKENS_AT_A_TIME`] together and one at least.
pub(super) fn portions(ids: &Tensor) -> Result<Vec<Tensor>> {
    let (sequences, positions) = ids.size2()?;
    let rows = (TOKENS_AT_A_TIME / positions.max(1)).max(1);
    let starts = (0..sequences).step_by(rows as usize);
    starts.map(|start| Ok(ids.f_narrow(0, start, rows.min(sequences - start))?)).collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn portions_are_all_sequences_in_their_order() {
        let ids = Tensor::arange(9 * 1000, (Kind::Int64, Device::Cpu)).view([9, 1000]);
        let parts = portions(&ids).unwrap();
        assert_eq!(parts.iter().map(|part| part.size()[0]).collect::<Vec<_>>(), [4, 4, 1]);
        assert_eq!(Tensor::cat(&parts, 0), ids);
        let long = Tensor::zeros([2, 5000], (Kind::Int64, Device::Cpu));
        assert_eq!(portions(&long).unwrap().len(), 2);
        assert_eq!(mean_of("", &[1.0, 2.0, 6.0], "").value, Some(3.0));
        assert_eq!(mean_of("", &[1.0], "").interval, None);
    }
}
