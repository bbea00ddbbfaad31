//! The keys of `generation_config.json`: those that are honoured, and those of which it has to be told that
//! they are not.

use serde_json::{Map, Value};

use super::GenerationConfig;
use crate::base::json::not_finite;
use crate::config::hf_config::{token_ids, whole, within};
use crate::model::Gpt2Config;

/// A message that the caller puts the file's name before.
type Why<T> = Result<T, String>;

/// Keys that a text depends on, with the value of each that changes nothing, as transformers 4.57 has them.
const NEUTRAL: [(&str, &str); 36] = [
    ("do_sample", "false"),
    ("temperature", "1"),
    ("top_k", "50"),
    ("top_p", "1"),
    ("repetition_penalty", "1"),
    ("max_length", "20"),
    ("max_new_tokens", "null"),
    ("min_length", "0"),
    ("min_new_tokens", "null"),
    ("num_beams", "1"),
    ("num_beam_groups", "1"),
    ("num_return_sequences", "1"),
    ("early_stopping", "false"),
    ("max_time", "null"),
    ("stop_strings", "null"),
    ("penalty_alpha", "null"),
    ("dola_layers", "null"),
    ("min_p", "null"),
    ("typical_p", "1"),
    ("epsilon_cutoff", "0"),
    ("eta_cutoff", "0"),
    ("diversity_penalty", "0"),
    ("encoder_repetition_penalty", "1"),
    ("length_penalty", "1"),
    ("no_repeat_ngram_size", "0"),
    ("encoder_no_repeat_ngram_size", "0"),
    ("bad_words_ids", "null"),
    ("force_words_ids", "null"),
    ("forced_bos_token_id", "null"),
    ("forced_eos_token_id", "null"),
    ("exponential_decay_length_penalty", "null"),
    ("suppress_tokens", "null"),
    ("begin_suppress_tokens", "null"),
    ("sequence_bias", "null"),
    ("guidance_scale", "null"),
    ("watermarking_config", "null"),
];

/// Keys of how it is computed or what is handed back, beginnings of them; no text depends on them.
const HARMLESS: [&str; 22] = [
    "_",
    "transformers_version",
    "pad_token_id",
    "decoder_start_token_id",
    "use_cache",
    "cache_",
    "return_",
    "output_",
    "remove_invalid_values",
    "renormalize_logits",
    "low_memory",
    "compile_config",
    "disable_compile",
    "num_assistant_tokens",
    "assistant_",
    "target_lookbehind",
    "prompt_lookup_num_tokens",
    "max_matching_ngram_size",
    "is_assistant",
    "generation_kwargs",
    "trust_remote_code",
    "prefill_chunk_size",
];

/// Takes keys out of a JSON object.
pub(super) struct Keys {
    map: Map<String, Value>,
    vocab_size: i64,
    /// What is not as it should be.
    pub(super) warnings: Vec<String>,
}

impl Keys {
    pub(super) fn new(map: Map<String, Value>, vocab_size: i64) -> Keys {
        Keys { map, vocab_size, warnings: Vec::new() }
    }

    /// Whether a `config.json` with this key speaks of texts.
    pub(super) fn speaks_of_texts(key: &str) -> bool {
        NEUTRAL.iter().any(|(known, _)| *known == key)
    }

    /// Whether a key with this value changes nothing.
    pub(super) fn is_neutral(key: &str, value: &Value) -> bool {
        let neutral = NEUTRAL.iter().find(|(known, _)| *known == key).map_or("null", |(_, neutral)| neutral);
        let same = match value.as_f64() {
            Some(number) => neutral.parse() == Ok(number),
            None => value.to_string().as_str() == neutral,
        };
        same || value.is_null() || value.as_array().is_some_and(Vec::is_empty)
    }

    /// What is honoured; special tokens come from `config` where there is one.
    pub(super) fn read(&mut self, config: Option<&Gpt2Config>) -> Why<GenerationConfig> {
        let (bos, eos) = match config {
            Some(config) => (config.bos_token_id, config.eos_token_ids.clone()),
            None => (self.tokens("bos_token_id")?.first().copied(), self.tokens("eos_token_id")?),
        };
        Ok(GenerationConfig {
            bos_token_id: bos,
            eos_token_ids: eos,
            do_sample: self.take("do_sample", "true or false", Value::as_bool)?,
            temperature: self.number("temperature", "0 or a positive number", |t| t >= 0.0)?,
            top_k: self.count("top_k")?,
            top_p: self.number("top_p", "a number from 0 to 1", |p| (0.0..=1.0).contains(&p))?,
            repetition_penalty: self.number("repetition_penalty", "a positive number", |p| p > 0.0)?,
            max_length: self.count("max_length")?,
            max_new_tokens: self.count("max_new_tokens")?,
            min_length: self.count("min_length")?,
            min_new_tokens: self.count("min_new_tokens")?,
            ..GenerationConfig::default()
        })
    }

    /// What is left and changes texts, as `key = value`.
    pub(super) fn unused(&self) -> Vec<String> {
        let harmless = |key: &str| HARMLESS.iter().any(|start| key.starts_with(start));
        let left = self.map.iter().filter(|(key, value)| !harmless(key) && !Self::is_neutral(key, value));
        left.map(|(key, value)| format!("{} = {}", key.escape_debug(), shortly(value))).collect()
    }

    /// `read` turns a value into what is wanted; null counts as missing.
    fn take<T>(&mut self, key: &str, wanted: &str, read: impl FnOnce(&Value) -> Option<T>) -> Why<Option<T>> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(format!("{key} = {}, must be {wanted}", shortly(&value))),
            },
        }
    }

    fn number(&mut self, key: &str, wanted: &str, good: impl Fn(f64) -> bool) -> Why<Option<f64>> {
        self.take(key, wanted, |value| value.as_f64().filter(|&x| x.is_finite() && good(x)))
    }

    fn count(&mut self, key: &str) -> Why<Option<usize>> {
        self.take(key, "a whole number that is not negative", |value| usize::try_from(whole(value)?).ok())
    }

    fn tokens(&mut self, key: &str) -> Why<Vec<i64>> {
        let ids = self.take(key, "a token id or a list of token ids", token_ids)?.unwrap_or_default();
        Ok(within(key, ids, self.vocab_size, &mut self.warnings))
    }
}

/// A value for a message.
fn shortly(value: &Value) -> String {
    let text = not_finite(value).map_or_else(|| value.to_string(), str::to_string);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
