//! Whether weights and a config belong together.

use std::collections::BTreeMap;

use super::weights::Weights;
use crate::config::hf_config::{Gpt2Config, expected};
use crate::{Error, Result};

/// Checks that `weights` has every parameter of `config` in its shape, and returns the names of the tensors
/// that are none (LN buffers of a checkpoint, say). A stored `lm_head.weight` is checked even where it is
/// tied.
///
/// # Errors
/// [`Error::Invalid`] naming the first parameter that is missing or has another shape, with both shapes.
pub fn check_shapes(weights: &Weights, config: &Gpt2Config) -> Result<Vec<String>> {
    let mut expected: BTreeMap<String, Vec<i64>> = expected(config).into_iter().collect();
    if weights.contains_key("lm_head.weight") {
        expected.insert("lm_head.weight".into(), vec![config.vocab_size, config.n_embd]);
    }
    for (name, shape) in &expected {
        let Some(tensor) = weights.get(name) else {
            let there = weights.keys().find(|name| !expected.contains_key(*name)).or(weights.keys().next());
            let there = there.map_or(String::new(), |name| format!("; there is `{}`", printable(name)));
            return Err(Error::invalid(format!(
                "the weights lack `{name}` of shape {shape:?}, which config.json implies{there}"
            )));
        };
        if tensor.size() != *shape {
            let found = tensor.size();
            let advice = match found.as_slice() {
                [rows, width] if name == "wte.weight" && *width == config.n_embd => {
                    format!("set vocab_size to {rows} if they belong together")
                }
                _ => "weights and config do not belong together".to_string(),
            };
            return Err(Error::invalid(format!(
                "`{name}` has the shape {found:?}, config.json implies {shape:?}: {advice}"
            )));
        }
    }
    Ok(weights.keys().filter(|name| !expected.contains_key(*name)).cloned().collect())
}

/// A name out of a file, for a message of one line.
fn printable(name: &str) -> String {
    name.chars().take(100).collect::<String>().escape_debug().to_string()
}
