//! Names that say that a tensor is not a weight of GPT-2 but what something else made of one.

/// Why a tensor with this name cannot be read as a weight, and what to do.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let parts = || name.split('.');
    let any = |is: &dyn Fn(&str) -> bool| parts().any(is);
    if any(&|part| ADAPTERS.iter().any(|start| part.starts_with(start))) {
        return Some("belongs to an adapter: merge it into the model (PEFT: merge_and_unload) and save that");
    }
    if any(&|part| QUANTIZED.contains(&part)) {
        return Some("belongs to quantized weights: dequantize the model and save it in float32 or bfloat16");
    }
    if any(&|part| part.ends_with("_flat_param") || part == "flat_param") {
        return Some("is FSDP's own flattened form: save the model with a full state dict");
    }
    let changed = |part: &str| REPARAMETRIZED.contains(&part);
    if any(&|part| part == "parametrizations") || parts().next_back().is_some_and(changed) {
        return Some(
            "is a reparametrized weight: remove the pruning or normalization from the model and save it",
        );
    }
    None
}

/// How PEFT's parts of a layer begin, and the layers that it puts its own in the place of.
const ADAPTERS: [&str; 11] = [
    "lora_",
    "base_layer",
    "modules_to_save",
    "original_module",
    "ia3_",
    "hada_",
    "lokr_",
    "oft_",
    "vera_",
    "boft_",
    "prompt_encoder",
];

/// What GPTQ, AWQ, bitsandbytes and compressed-tensors call theirs.
const QUANTIZED: [&str; 16] = [
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "SCB",
    "CB",
    "weight_format",
    "absmax",
    "nested_absmax",
    "quant_map",
    "quant_state",
    "weight_scale",
    "weight_scale_inv",
    "weight_zero_point",
    "weight_packed",
    "_packed_params",
];

/// What torch.nn.utils' prune and weight_norm leave in place of a weight.
const REPARAMETRIZED: [&str; 6] =
    ["weight_orig", "weight_mask", "weight_g", "weight_v", "bias_orig", "bias_mask"];

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn each_says_what_to_do() {
        for (name, word) in [
            ("base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight", "merge_and_unload"),
            ("transformer.h.0.attn.c_attn.base_layer.weight", "merge_and_unload"),
            ("transformer.wte.modules_to_save.default.weight", "merge_and_unload"),
            ("h.0.mlp.c_fc.qweight", "dequantize"),
            ("h.0.mlp.c_fc.weight.quant_state.bitsandbytes__nf4", "dequantize"),
            ("h.0.mlp.c_fc.SCB", "dequantize"),
            ("_fsdp_wrapped_module._flat_param", "full state dict"),
            ("h.0.mlp.c_fc.weight_orig", "pruning"),
            ("h.0.mlp.c_fc.parametrizations.weight.original0", "normalization"),
        ] {
            assert!(reason(name).is_some_and(|why| why.contains(word)), "{name}");
        }
    }

    #[test]
    fn weights_and_the_state_of_lns_are_none_of_them() {
        for name in ["transformer.wte.weight", "h.0.attn.c_attn.bias", "ln_f.is_fake", "h.3.ln_2.momentum"] {
            assert_eq!(reason(name), None, "{name}");
        }
    }
}
