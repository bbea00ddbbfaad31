//! Whether weights are numbers: one pass over their memory, by libtorch, without a copy.

use std::path::Path;

use tch::{Kind, Tensor};

use super::{Weights, file_error};
use crate::Result;

/// Checks that every floating-point value is finite.
///
/// # Errors
/// [`crate::Error::File`] naming `path`, the first tensor with a NaN or an infinity, how many it has, and
/// where.
pub fn check_finite(weights: &Weights, path: &Path) -> Result<()> {
    match not_finite(weights, None)? {
        Some(what) => Err(file_error(
            path,
            format!("{what}; the file is damaged or the run that wrote it had diverged"),
        )),
        None => Ok(()),
    }
}

/// What is wrong with the first tensor, by name, that has a value that is not finite, or would have one in
/// the type `kind` that it is going to be converted to: its name, how many there are, and where the first is.
///
/// # Errors
/// When libtorch fails.
pub fn not_finite<'a>(
    weights: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    kind: Option<Kind>,
) -> Result<Option<String>> {
    for (name, tensor) in weights {
        let Some(own) = largest(tensor.kind()) else { continue };
        if tensor.numel() == 0 {
            continue;
        }
        let limit = kind.and_then(largest).map_or(own, |target| target.min(own));
        // NaN and both infinities show in the minimum or the maximum.
        let (low, high) = tensor.f_aminmax(None, false)?;
        let (low, high) = (f64::try_from(low)?, f64::try_from(high)?);
        let fits = |x: f64| x.abs() <= limit;
        if !(fits(low) && fits(high)) {
            let too_large = low.is_finite() && high.is_finite();
            let what = if too_large { "too large for the type computed in" } else { "NaN or infinite" };
            return describe(name, tensor, limit, what).map(Some);
        }
    }
    Ok(None)
}

/// The largest number of a floating-point type; none for other types.
fn largest(kind: Kind) -> Option<f64> {
    match kind {
        Kind::Half => Some(65504.0),
        Kind::BFloat16 => Some(f64::from(f32::from_bits(0x7F7F_0000))),
        Kind::Float => Some(f64::from(f32::MAX)),
        Kind::Double => Some(f64::MAX),
        _ => None,
    }
}

fn describe(name: &str, tensor: &Tensor, limit: f64, what: &str) -> Result<String> {
    let good = tensor.f_to_kind(Kind::Double)?.f_abs()?.f_le(limit)?;
    let bad = good.f_logical_not()?.f_nonzero()?;
    let first = Vec::<i64>::try_from(bad.f_get(0)?)?;
    let (count, total) = (bad.size().first().copied().unwrap_or(0), tensor.numel());
    Ok(format!("`{name}`: {count} of {total} values are {what}, the first at {first:?}"))
}
