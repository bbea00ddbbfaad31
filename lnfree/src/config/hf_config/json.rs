//! [`Gpt2Config`] from and to the JSON object of `config.json`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Gpt2Config, Why};
use crate::base::json::not_finite;

/// End-of-text of GPT-2's own vocabulary: what transformers assumes where a config does not say.
const END_OF_TEXT: i64 = 50256;

/// Takes keys out of a JSON object; what is left at the end is what nobody asked for.
struct Keys(BTreeMap<String, Value>);

impl Keys {
    /// `read` turns a value into what is wanted; null counts as missing.
    fn take<T>(&mut self, key: &str, wanted: &str, read: impl FnOnce(&Value) -> Option<T>) -> Why<Option<T>> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match (read(&value), not_finite(&value)) {
                (Some(value), _) => Ok(Some(value)),
                (None, Some(word)) => Err(format!("{key} = {word}, must be {wanted}")),
                (None, None) => Err(format!("{key} = {value}, must be {wanted}")),
            },
        }
    }

    fn size(&mut self, key: &str) -> Why<i64> {
        let size = self.take(key, "a positive whole number", whole)?;
        size.ok_or_else(|| format!("{key} is missing: not the config.json of a GPT-2"))
    }

    fn number(&mut self, key: &str, default: f64) -> Why<f64> {
        Ok(self.take(key, "a number", Value::as_f64)?.unwrap_or(default))
    }

    /// A switch that changes the forward and has only one supported position.
    fn only(&mut self, key: &str, supported: bool) -> Why<()> {
        match self.take(key, "true or false", switch)? {
            Some(value) if value != supported => {
                Err(format!("{key} = {value}: this variant of GPT-2 is not supported, only {supported}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes out what says which model this is, and refuses all whose forward is not GPT-2's.
    fn only_gpt2(&mut self) -> Why<()> {
        match self.take("model_type", "\"gpt2\"", text)?.as_deref() {
            Some("gpt2") => {}
            Some(other) => {
                return Err(format!("model_type = {other:?}: only GPT-2 models (\"gpt2\") are supported"));
            }
            // GPT2LMHeadModel loads it; the architecture must not say otherwise.
            None => self.gpt2_by_architecture()?,
        }
        self.only_tanh_gelu()?;
        self.only("scale_attn_weights", true)?;
        self.only("scale_attn_by_inverse_layer_idx", false)?;
        self.only("reorder_and_upcast_attn", false)?;
        self.only("add_cross_attention", false)?;
        self.only_whole()
    }

    fn gpt2_by_architecture(&self) -> Why<()> {
        let names = self.0.get("architectures").and_then(Value::as_array).into_iter().flatten();
        match names.filter_map(Value::as_str).find(|name| !name.contains("GPT2")) {
            Some(other) => {
                Err(format!("architectures = [{other:?}] and no model_type: not the config.json of a GPT-2"))
            }
            None => Ok(()),
        }
    }

    /// The names of transformers' ACT2FN for the tanh form of GELU.
    fn only_tanh_gelu(&mut self) -> Why<()> {
        let supported = ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh"];
        // Other models' key; transformers does not read it in a GPT-2, but where it is the only one, it was
        // meant.
        let other_key = self.0.contains_key("activation_function").then_some("activation_function");
        let key = other_key.unwrap_or("hidden_act");
        match self.take(key, "a name", text)?.as_deref() {
            Some(other) if !supported.contains(&other) => Err(format!(
                "{key} = {other:?}: only GPT-2's own, \"gelu_new\", and its other names ({}) are supported",
                supported[1..].join(", ")
            )),
            _ => Ok(()),
        }
    }

    /// Weights that are stored in another form, or without some heads.
    fn only_whole(&mut self) -> Why<()> {
        for (key, what) in [
            ("quantization_config", "quantized weights are not supported; dequantize the model and save it"),
            ("compression_config", "compressed weights are not supported; decompress the model and save it"),
            ("pruned_heads", "pruned heads are not supported"),
        ] {
            let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
            if self.0.remove(key).is_some_and(|value| !empty(&value)) {
                return Err(format!("{key}: {what}"));
            }
        }
        Ok(())
    }

    /// The names that transformers takes for GPT-2's own, too; they must not say something else.
    fn aliases(&mut self) -> Why<()> {
        for (alias, key) in [
            ("hidden_size", "n_embd"),
            ("max_position_embeddings", "n_positions"),
            ("num_attention_heads", "n_head"),
            ("num_hidden_layers", "n_layer"),
        ] {
            let Some(value) = self.0.remove(alias).filter(|value| !value.is_null()) else { continue };
            match self.0.get(key).filter(|own| !own.is_null()) {
                Some(own) if own.as_f64() == value.as_f64() && own.is_number() => {}
                Some(own) => return Err(format!("{alias} = {value} contradicts {key} = {own}")),
                None => drop(self.0.insert(key.into(), value)),
            }
        }
        Ok(())
    }

    /// An id, a list of ids, or nothing; GPT-2's own end-of-text when the key is missing and the vocabulary
    /// has it. Ids outside the vocabulary are left out, with a warning.
    fn tokens(&mut self, key: &str, vocab_size: i64, warnings: &mut Vec<String>) -> Why<Vec<i64>> {
        if !self.0.contains_key(key) {
            return Ok(if vocab_size > END_OF_TEXT { vec![END_OF_TEXT] } else { Vec::new() });
        }
        let ids = self.take(key, "a token id or a list of token ids", token_ids)?.unwrap_or_default();
        Ok(within(key, ids, vocab_size, warnings))
    }

    /// The unread `pad_token_id` stays where it is if there is such a token.
    fn pad(&mut self, vocab_size: i64, warnings: &mut Vec<String>) {
        let Some(id) = self.0.get("pad_token_id").and_then(whole) else { return };
        if within("pad_token_id", vec![id], vocab_size, warnings).is_empty() {
            self.0.remove("pad_token_id");
        }
    }
}

/// A whole number, which may be written as one with a point (`768.0`).
pub(crate) fn whole(value: &Value) -> Option<i64> {
    // Beyond 2^53 such a number may stand for another one.
    let as_float = || value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 9e15).map(|x| x as i64);
    value.as_i64().or_else(as_float)
}

/// An id, or a list of ids.
pub(crate) fn token_ids(value: &Value) -> Option<Vec<i64>> {
    match value {
        Value::Array(ids) => ids.iter().map(whole).collect(),
        id => whole(id).map(|id| vec![id]),
    }
}

/// The ids that a vocabulary has; of the others `warnings` tells.
pub(crate) fn within(key: &str, mut ids: Vec<i64>, vocab_size: i64, warnings: &mut Vec<String>) -> Vec<i64> {
    ids.retain(|id| {
        let there = (0..vocab_size).contains(id);
        if !there {
            warnings.push(format!(
                "{key} = {id} lies outside the vocabulary of {vocab_size} tokens: the model has no such token"
            ));
        }
        there
    });
    ids
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string)
}

/// true or false, or Python's 1 or 0.
fn switch(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| match whole(value) {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    })
}

/// The config that a JSON object says, and what in it is not as it should be.
pub(super) fn parse(map: Map<String, Value>) -> Why<(Gpt2Config, Vec<String>)> {
    let mut keys = Keys(map.into_iter().collect());
    let mut warnings = Vec::new();
    keys.only_gpt2()?;
    keys.aliases()?;
    // Both are written anew: the older name of n_positions, and the class that this is.
    keys.0.remove("n_ctx");
    keys.0.remove("architectures");
    // To Python null is false.
    let untied = keys.0.get("tie_word_embeddings").is_some_and(Value::is_null);
    let vocab_size = keys.size("vocab_size")?;
    keys.pad(vocab_size, &mut warnings);
    let config = Gpt2Config {
        n_layer: keys.size("n_layer")?,
        n_head: keys.size("n_head")?,
        n_embd: keys.size("n_embd")?,
        block_size: keys.size("n_positions")?,
        vocab_size,
        n_inner: keys.take("n_inner", "null or a positive whole number", whole)?,
        layer_norm_epsilon: keys.number("layer_norm_epsilon", 1e-5)?,
        resid_pdrop: keys.number("resid_pdrop", 0.1)?,
        embd_pdrop: keys.number("embd_pdrop", 0.1)?,
        attn_pdrop: keys.number("attn_pdrop", 0.1)?,
        initializer_range: keys.number("initializer_range", 0.02)?,
        bos_token_id: keys.tokens("bos_token_id", vocab_size, &mut warnings)?.first().copied(),
        eos_token_ids: keys.tokens("eos_token_id", vocab_size, &mut warnings)?,
        tie_word_embeddings: keys.take("tie_word_embeddings", "true or false", switch)?.unwrap_or(!untied),
        other: keys.0,
    };
    config.check()?;
    Ok((config, warnings))
}

impl TryFrom<Map<String, Value>> for Gpt2Config {
    type Error = String;

    fn try_from(map: Map<String, Value>) -> Why<Self> {
        parse(map).map(|(config, _)| config)
    }
}

impl From<Gpt2Config> for Map<String, Value> {
    fn from(config: Gpt2Config) -> Self {
        let eos = config.eos_token_value();
        let mut map: Self = config.other.into_iter().collect();
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
