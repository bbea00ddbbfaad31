//! One name for each tensor, whoever wrote the file.

use tch::Tensor;

use super::{Weights, Why};

/// What other programs put before GPT-2's names: data-parallel wrappers, whole models, the head model's own prefix.
const PREFIXES: [&str; 3] = ["module.", "model.", "transformer."];

/// `name` without the prefixes of other programs: `transformer.h.0.ln_1.weight` → `h.0.ln_1.weight`.
pub(super) fn normalise(name: &str) -> &str {
    let mut rest = name;
    while let Some(shorter) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = shorter;
    }
    rest
}

/// True for the causal masks that older versions of transformers stored with the weights: constants, not weights.
pub(super) fn is_mask(name: &str) -> bool {
    [".attn.bias", ".attn.masked_bias"].iter().any(|end| name.ends_with(end))
}

/// Puts `(name as stored, tensor)` pairs under their normalised names.
pub(super) fn collect(tensors: Vec<(String, Tensor)>) -> Why<Weights> {
    let mut weights = Weights::new();
    for (stored, tensor) in tensors {
        let name = normalise(&stored).to_string();
        if weights.insert(name.clone(), tensor).is_some() {
            return Err(format!("holds `{name}` twice, with and without a prefix (`{stored}`)"));
        }
    }
    if weights.is_empty() {
        return Err("holds no tensors".into());
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_and_names_stay() {
        assert_eq!(normalise("transformer.h.0.ln_1.weight"), "h.0.ln_1.weight");
        assert_eq!(normalise("module.transformer.wte.weight"), "wte.weight");
        assert_eq!(normalise("model.h.0.mlp.c_fc.bias"), "h.0.mlp.c_fc.bias");
        assert_eq!(normalise("module.lm_head.weight"), "lm_head.weight");
        assert_eq!(normalise("h.0.transformer.x"), "h.0.transformer.x");
    }

    #[test]
    fn only_masks_are_masks() {
        assert!(is_mask("transformer.h.11.attn.bias"));
        assert!(is_mask("h.0.attn.masked_bias"));
        assert!(!is_mask("h.0.attn.c_attn.bias"));
        assert!(!is_mask("h.0.ln_1.bias"));
    }
}
