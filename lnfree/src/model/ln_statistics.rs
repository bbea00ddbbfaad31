//! Running and frozen standard deviations of every LN, as two small tensors on the model's device.

use tch::{Device, Kind, Tensor};

use crate::config::norm::SpecialAxis;

/// Columns of [`LnStatistics::frozen`]: the average elsewhere and at the special index; the same for
/// end-of-text tokens.
pub const STD_COLUMNS: [&str; 4] = ["average_rest", "average_first", "eot_rest", "eot_first"];

/// The standard deviations of all LNs; rows are in the order of [`crate::config::norm::ln_names`].
#[derive(Debug)]
pub struct LnStatistics {
    /// float32 `[n_ln, 2]`: running standard deviation over the averaged positions, and of position 0.
    pub running: Tensor,
    /// float32 `[n_ln, 4]`: what fake LNs divide by, see [`STD_COLUMNS`].
    pub frozen: Tensor,
}

impl LnStatistics {
    /// Starts from measured standard deviations, `(average, position 0)` per LN.
    pub fn new(initial: &[(f64, f64)], special: bool, device: Device) -> LnStatistics {
        let flat: Vec<f32> = initial.iter().flat_map(|&(a, b)| [a as f32, b as f32]).collect();
        let running = Tensor::from_slice(&flat).view([-1, 2]).to_device(device);
        let special = Tensor::full([initial.len() as i64, 1], i64::from(special), (Kind::Bool, device));
        let frozen = columns_from(&running, &special);
        LnStatistics { running, frozen }
    }

    /// A deep copy.
    pub fn copy(&self) -> LnStatistics {
        LnStatistics { running: self.running.copy(), frozen: self.frozen.copy() }
    }
}

/// What frozen columns become when they follow the running values: `running` `[n, 2]`, `special` bool
/// `[n, 1]`, result `[n, 4]`. Without the special treatment everything is the average.
pub(super) fn columns_from(running: &Tensor, special: &Tensor) -> Tensor {
    let average = running.narrow(1, 0, 1);
    let first = running.narrow(1, 1, 1).where_self(special, &average);
    Tensor::cat(&[&average, &first, &first, &first], 1)
}

/// What one site divides by in one forward.
#[derive(Debug)]
pub enum Divisor {
    /// One number for everything, 0-dim.
    Uniform(Tensor),
    /// One number at index 0 of an axis and one everywhere else, both 0-dim.
    Special {
        /// At index 0.
        first: Tensor,
        /// Everywhere else.
        rest: Tensor,
        /// Which axis.
        axis: SpecialAxis,
    },
}

impl Divisor {
    /// Takes the columns `(rest, first)` out of a row `[4]` of [`LnStatistics::frozen`].
    pub(super) fn from_row(row: &Tensor, eot: bool, special: Option<SpecialAxis>) -> Divisor {
        let base = if eot { 2 } else { 0 };
        let rest = row.get(base);
        match special {
            None => Divisor::Uniform(rest),
            Some(axis) => Divisor::Special { first: row.get(base + 1), rest, axis },
        }
    }

    /// As a tensor that broadcasts against `[batch, pos, n_embd]`, whose first token is at position `start`.
    pub fn broadcast(&self, start: i64, pos: i64, n_embd: i64) -> Tensor {
        match self {
            Divisor::Uniform(std) => std.shallow_clone(),
            Divisor::Special { rest, axis: SpecialAxis::Position, .. } if start > 0 => rest.shallow_clone(),
            Divisor::Special { first, rest, axis } => {
                let (len, shape) = match axis {
                    SpecialAxis::Position => (pos, [1, -1, 1]),
                    SpecialAxis::Feature => (n_embd, [1, 1, -1]),
                };
                Tensor::cat(&[first.view(1), rest.expand([len - 1], false)], 0).view(shape)
            }
        }
    }
}
