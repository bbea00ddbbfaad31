//! [`Gpt2Config`] from and to the JSON object of `config.json`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Gpt2Config, Why};

/// End-of-text of GPT-2's own vocabulary: what transformers assumes where a config does not say.
const END_OF_TEXT: i64 = 50256;

/// Takes keys out of a JSON object; what is left at the end is what nobody asked for.
struct Keys(BTreeMap<String, Value>);

impl Keys {
    /// `read` turns a value into what is wanted; null counts as missing.
    fn take<T>(&mut self, key: &str, wanted: &str, read: impl FnOnce(&Value) -> Option<T>) -> Why<Option<T>> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(&value) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("{key} = {value}, must be {wanted}")),
            },
        }
    }

    fn size(&mut self, key: &str) -> Why<i64> {
        let size = self.take(key, "a positive whole number", Value::as_i64)?;
        size.ok_or_else(|| format!("{key} is missing: not the config.json of a GPT-2"))
    }

    fn number(&mut self, key: &str, default: f64) -> Why<f64> {
        Ok(self.take(key, "a number", Value::as_f64)?.unwrap_or(default))
    }

    /// A switch that changes the forward and has only one supported position.
    fn only(&mut self, key: &str, supported: bool) -> Why<()> {
        match self.take(key, "true or false", Value::as_bool)? {
            Some(value) if value != supported => {
                Err(format!("{key} = {value}: this variant of GPT-2 is not supported, only {supported}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes out what says which model this is, and refuses all whose forward is not GPT-2's.
    fn only_gpt2(&mut self) -> Why<()> {
        let text = |value: &Value| value.as_str().map(str::to_string);
        match self.take("model_type", "\"gpt2\"", text)?.as_deref() {
            Some("gpt2") => {}
            Some(other) => {
                return Err(format!("model_type = {other:?}: only GPT-2 models (\"gpt2\") are supported"));
            }
            None => return Err("model_type is missing: not the config.json of a GPT-2".into()),
        }
        // Both are the tanh form of GELU.
        match self.take("activation_function", "a name", text)?.as_deref() {
            None | Some("gelu_new" | "gelu_pytorch_tanh") => {}
            Some(other) => {
                return Err(format!(
                    "activation_function = {other:?}: only GPT-2's own, \"gelu_new\" or \"gelu_pytorch_tanh\", is supported"
                ));
            }
        }
        self.only("scale_attn_weights", true)?;
        self.only("scale_attn_by_inverse_layer_idx", false)?;
        self.only("reorder_and_upcast_attn", false)?;
        self.only("add_cross_attention", false)
    }

    /// An id, a list of ids, or nothing; GPT-2's own end-of-text when the key is missing and the vocabulary has it.
    fn tokens(&mut self, key: &str, vocab_size: i64) -> Why<Vec<i64>> {
        if !self.0.contains_key(key) {
            return Ok(if vocab_size > END_OF_TEXT { vec![END_OF_TEXT] } else { Vec::new() });
        }
        let ids = |value: &Value| match value {
            Value::Array(ids) => ids.iter().map(Value::as_i64).collect(),
            id => id.as_i64().map(|id| vec![id]),
        };
        Ok(self.take(key, "a token id or a list of token ids", ids)?.unwrap_or_default())
    }
}

impl TryFrom<Map<String, Value>> for Gpt2Config {
    type Error = String;

    fn try_from(map: Map<String, Value>) -> Why<Self> {
        let mut keys = Keys(map.into_iter().collect());
        keys.only_gpt2()?;
        // Both are written anew: the older name of n_positions, and the class that this is.
        keys.0.remove("n_ctx");
        keys.0.remove("architectures");
        let vocab_size = keys.size("vocab_size")?;
        let config = Self {
            n_layer: keys.size("n_layer")?,
            n_head: keys.size("n_head")?,
            n_embd: keys.size("n_embd")?,
            block_size: keys.size("n_positions")?,
            vocab_size,
            n_inner: keys.take("n_inner", "null or a positive whole number", Value::as_i64)?,
            layer_norm_epsilon: keys.number("layer_norm_epsilon", 1e-5)?,
            resid_pdrop: keys.number("resid_pdrop", 0.1)?,
            embd_pdrop: keys.number("embd_pdrop", 0.1)?,
            attn_pdrop: keys.number("attn_pdrop", 0.1)?,
            initializer_range: keys.number("initializer_range", 0.02)?,
            bos_token_id: keys.tokens("bos_token_id", vocab_size)?.first().copied(),
            eos_token_ids: keys.tokens("eos_token_id", vocab_size)?,
            tie_word_embeddings: keys
                .take("tie_word_embeddings", "true or false", Value::as_bool)?
                .unwrap_or(true),
            other: keys.0,
        };
        config.check()?;
        Ok(config)
    }
}

impl From<Gpt2Config> for Map<String, Value> {
    fn from(config: Gpt2Config) -> Self {
        let mut map: Self = config.other.into_iter().collect();
        let eos = match config.eos_token_ids.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        };
        let known = [
            ("model_type", json!("gpt2")),
            ("architectures", json!(["GPT2LMHeadModel"])),
            ("activation_function", json!("gelu_new")),
            ("scale_attn_weights", json!(true)),
            ("scale_attn_by_inverse_layer_idx", json!(false)),
            ("reorder_and_upcast_attn", json!(false)),
            ("n_layer", json!(config.n_layer)),
            ("n_head", json!(config.n_head)),
            ("n_embd", json!(config.n_embd)),
            ("n_positions", json!(config.block_size)),
            ("n_ctx", json!(config.block_size)),
            ("vocab_size", json!(config.vocab_size)),
            ("n_inner", json!(config.n_inner)),
            ("layer_norm_epsilon", json!(config.layer_norm_epsilon)),
            ("resid_pdrop", json!(config.resid_pdrop)),
            ("embd_pdrop", json!(config.embd_pdrop)),
            ("attn_pdrop", json!(config.attn_pdrop)),
            ("initializer_range", json!(config.initializer_range)),
            ("bos_token_id", json!(config.bos_token_id)),
            ("eos_token_id", eos),
            ("tie_word_embeddings", json!(config.tie_word_embeddings)),
        ];
        map.extend(known.map(|(key, value)| (key.to_string(), value)));
        map
    }
}
