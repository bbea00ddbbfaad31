//! Losses that are no finite numbers: how many, where, and what that makes of everything computed from them.
//!
//! A NaN or an infinity leaves nothing that is said of all tokens: means, quantiles and shares are then NaN,
//! which JSON writes as null.

use serde::{Deserialize, Deserializer, Serialize};

/// Tokens without a finite loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotFinite {
    /// How many.
    pub n_tokens: usize,
    /// The sequence of the first, its number in the token file, from 0.
    pub sequence: usize,
    /// The position that it was predicted from, from 0.
    pub position: usize,
}

/// Whether all are finite.
pub(super) fn all_finite(values: impl IntoIterator<Item = f64>) -> bool {
    values.into_iter().all(f64::is_finite)
}

/// A number of a JSON file; NaN where it is null.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Likewise two of them.
pub(crate) fn pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 2], D::Error> {
    let pair = Option::<[Option<f64>; 2]>::deserialize(deserializer)?.unwrap_or_default();
    Ok(pair.map(|end| end.unwrap_or(f64::NAN)))
}

/// Two of them that may be missing; missing too where one is null.
pub(crate) fn some_pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[f64; 2]>, D::Error> {
    Ok(Some(pair(deserializer)?).filter(|pair| all_finite(*pair)))
}

/// Pairs by their names.
pub(crate) fn pairs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<std::collections::BTreeMap<String, [f64; 2]>, D::Error> {
    #[derive(Deserialize)]
    struct Pair(#[serde(deserialize_with = "pair")] [f64; 2]);
    let pairs = std::collections::BTreeMap::<String, Pair>::deserialize(deserializer)?;
    Ok(pairs.into_iter().map(|(name, Pair(pair))| (name, pair)).collect())
}
