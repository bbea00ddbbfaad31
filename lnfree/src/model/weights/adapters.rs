//! The adapters of the paper's LoRA checkpoints, which keep each matrix in three parts.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::Why;

/// What the paper's code calls the parts of a matrix and its bias.
const FROZEN: &str = ".weight_frozen";
const PARTS: [&str; 3] = [".bias_frozen", ".lora_A", ".lora_B"];

/// `tensors` by the names that they are stored under, in which `X.weight_frozen`, `X.bias_frozen`, `X.lora_A`
/// `[in, rank]` and `X.lora_B` `[rank, out]` have become `X.weight` = frozen + A B and `X.bias`.
pub(super) fn merged(tensors: Vec<(String, Tensor)>) -> Why<Vec<(String, Tensor)>> {
    if !tensors.iter().any(|(name, _)| name.ends_with(FROZEN)) {
        return Ok(tensors);
    }
    let mut by_name: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let layers: Vec<String> =
        by_name.keys().filter_map(|name| name.strip_suffix(FROZEN)).map(str::to_string).collect();
    for layer in layers {
        let mut take = |part: &str| {
            let name = format!("{layer}{part}");
            by_name
                .remove(&name)
                .ok_or(format!("holds `{layer}{FROZEN}` of a LoRA checkpoint without `{name}`"))
        };
        let weight = take(FROZEN)?;
        let [bias, a, b] = PARTS.map(&mut take);
        let (bias, a, b) = (bias?, a?, b?);
        let (shape, a_shape, b_shape) = (weight.size(), a.size(), b.size());
        let fits = matches!((&shape[..], &a_shape[..], &b_shape[..]), ([m, n], [i, r], [s, o]) if m == i && n == o && r == s);
        if !fits {
            return Err(format!(
                "holds `{layer}{FROZEN}` of shape {shape:?}, to which adapters of {a_shape:?} and {b_shape:?} cannot be added"
            ));
        }
        let _guard = tch::no_grad_guard();
        let kind = weight.kind();
        let [frozen, a, b] = [&weight, &a, &b].map(|part| part.to_kind(Kind::Float));
        by_name.insert(format!("{layer}.weight"), frozen.addmm(&a, &b).to_kind(kind));
        by_name.insert(format!("{layer}.bias"), bias);
    }
    Ok(by_name.into_iter().collect())
}
