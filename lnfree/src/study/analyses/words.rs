//! Tokens as text.

use tch::Tensor;

use crate::Result;
use crate::data::Tokenizer;

/// Each of ids `[n]` as the tokenizer writes it alone, spaces and all.
///
/// # Errors
/// If one is no token.
pub(super) fn words(tokenizer: &Tokenizer, ids: &Tensor) -> Result<Vec<String>> {
    let ids = Vec::<i64>::try_from(ids.f_to_device(tch::Device::Cpu)?)?;
    ids.into_iter().map(|id| word(tokenizer, id)).collect()
}

/// One token.
///
/// # Errors
/// If there is no such token.
pub(super) fn word(tokenizer: &Tokenizer, id: i64) -> Result<String> {
    let known = u32::try_from(id).ok().filter(|id| tokenizer.has_id(*id));
    let id = known.ok_or_else(|| crate::Error::invalid(format!("token {id} is not the tokenizer's")))?;
    tokenizer.decode(&[id])
}
