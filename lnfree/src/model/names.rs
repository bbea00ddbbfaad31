//! The names that Hugging Face's GPT2LMHeadModel stores its tensors under.

use std::collections::BTreeMap;

use super::weights::Weights;

/// `transformer.` before everything but the unembedding.
pub fn hf_names(weights: Weights) -> Weights {
    weights
        .into_iter()
        .map(|(name, tensor)| {
            let head = name.starts_with("lm_head.");
            (if head { name } else { format!("transformer.{name}") }, tensor)
        })
        .collect()
}

/// What transformers wants to find in the header of a safetensors file.
pub fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into())])
}
