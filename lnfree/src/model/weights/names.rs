//! One name for each tensor, whoever wrote the file.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{Weights, Why, refused};

/// Modules that stand around another one: torch.compile, DataParallel and DDP (also Lightning's and
/// DeepSpeed's), Opacus, FSDP, activation checkpointing. They may be around the whole model or any part of
/// it, in any nesting.
const WRAPPERS: [&str; 8] = [
    "_orig_mod",
    "module",
    "_module",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_wrapped_module",
];

/// Modules that hold the model: PEFT's, a trainer's, and the head model's own name for it. Only in front.
const HOLDERS: [&str; 3] = ["base_model", "model", "transformer"];

/// `name` without what other programs put around GPT-2's: `_orig_mod.transformer.h.0.module.ln_1.weight` →
/// `h.0.ln_1.weight`.
pub(super) fn normalise(name: &str) -> String {
    let own = name.split('.').filter(|part| !WRAPPERS.contains(part));
    own.skip_while(|part| HOLDERS.contains(part)).collect::<Vec<_>>().join(".")
}

/// True for the causal masks that older versions of transformers stored with the weights: constants, not
/// weights.
pub(super) fn is_mask(stored: &str) -> bool {
    let name = normalise(stored);
    [".attn.bias", ".attn.masked_bias"].iter().any(|end| name.ends_with(end))
}

/// True for what every GPT-2 has to have, whatever its config says; a tied `lm_head.weight` may be left out.
pub(super) fn is_needed(stored: &str) -> bool {
    let name = normalise(stored);
    let (module, _) = name.rsplit_once('.').unwrap_or((name.as_str(), ""));
    let (module, in_block) = match module.strip_prefix("h.").and_then(|rest| rest.split_once('.')) {
        Some((layer, rest)) => (rest, layer.bytes().all(|b| b.is_ascii_digit())),
        None => (module, false),
    };
    match in_block {
        true => {
            ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"].contains(&module)
                && !is_mask(stored)
        }
        false => ["wte", "wpe", "ln_f"].contains(&module),
    }
}

/// Puts `(name as stored, tensor)` pairs under their normalised names.
pub(super) fn collect(tensors: Vec<(String, Tensor)>) -> Why<Weights> {
    let mut weights = Weights::new();
    let mut stored_as = BTreeMap::new();
    for (stored, tensor) in tensors {
        if let Some(why) = refused::reason(&stored) {
            return Err(format!("holds `{stored}`, which {why}"));
        }
        let name = normalise(&stored);
        let name = if name.is_empty() { stored.clone() } else { name };
        if weights.insert(name.clone(), tensor).is_some() {
            let before = stored_as.remove(&name).unwrap_or_default();
            return Err(format!(
                "holds `{name}` twice, with and without a prefix (`{before}` and `{stored}`)"
            ));
        }
        stored_as.insert(name, stored);
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
    fn wrappers_go_in_any_nesting_and_names_stay() {
        for (stored, name) in [
            ("transformer.h.0.ln_1.weight", "h.0.ln_1.weight"),
            ("module.transformer.wte.weight", "wte.weight"),
            ("model.h.0.mlp.c_fc.bias", "h.0.mlp.c_fc.bias"),
            ("module.lm_head.weight", "lm_head.weight"),
            ("lm_head._orig_mod.weight", "lm_head.weight"),
            ("_orig_mod.transformer.wte.weight", "wte.weight"),
            ("module._orig_mod.model.transformer.wpe.weight", "wpe.weight"),
            ("_orig_mod.module.transformer.ln_f.bias", "ln_f.bias"),
            ("transformer.h.0._orig_mod.attn.c_attn.weight", "h.0.attn.c_attn.weight"),
            ("transformer._orig_mod.h.0.module._checkpoint_wrapped_module.ln_2.bias", "h.0.ln_2.bias"),
            ("_fsdp_wrapped_module.transformer.h.1._fsdp_wrapped_module.mlp.c_fc.bias", "h.1.mlp.c_fc.bias"),
            ("_module.transformer.h.0.ln_1.bias", "h.0.ln_1.bias"),
            ("base_model.model.transformer.h.0.ln_1.bias", "h.0.ln_1.bias"),
            ("_forward_module.module.model.wte.weight", "wte.weight"),
            ("h.0.transformer.x", "h.0.transformer.x"),
            ("net.transformer.wte.weight", "net.transformer.wte.weight"),
        ] {
            assert_eq!(normalise(stored), name);
        }
    }

    #[test]
    fn only_masks_are_masks() {
        for mask in ["transformer.h.11.attn.bias", "h.0.attn.masked_bias", "h.0.attn._orig_mod.bias"] {
            assert!(is_mask(mask) && !is_needed(mask), "{mask}");
        }
        for weight in ["h.0.attn.c_attn.bias", "h.0.ln_1.bias", "_orig_mod.wte.weight", "ln_f.bias"] {
            assert!(!is_mask(weight) && is_needed(weight), "{weight}");
        }
        for other in ["lm_head.weight", "score.weight", "h.x.ln_1.bias", "h.0.crossattention.bias", "wte"] {
            assert!(!is_needed(other) || other == "wte", "{other}");
        }
    }
}
