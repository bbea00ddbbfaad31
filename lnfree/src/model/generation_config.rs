//! `generation_config.json`: how the authors of a model want its texts to be written.

mod keys;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::keys::Keys;
use super::Gpt2Config;
use crate::base::console::warn_once;
use crate::base::json;
use crate::{Error, Result};

/// The name of the file.
pub(crate) const GENERATION: &str = "generation_config.json";

/// More than any has.
const MAX_SIZE: u64 = 1 << 20;

/// What transformers' `generate` would take from a model's folder. `None`: it does not say.
///
/// As there, the file stands for all that `config.json` says of texts, end tokens too; without it
/// `config.json` speaks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// The token that a text without a prompt begins after.
    pub bos_token_id: Option<i64>,
    /// Each of them ends a text.
    pub eos_token_ids: Vec<i64>,
    /// False: always the most likely token.
    pub do_sample: Option<bool>,
    /// Logits are divided by it.
    pub temperature: Option<f64>,
    /// Only the k most likely tokens are drawn from; 0 draws from all.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together have this probability are drawn from.
    pub top_p: Option<f64>,
    /// Logits of tokens that the text has are divided by it, negative ones multiplied.
    pub repetition_penalty: Option<f64>,
    /// Tokens of prompt and text together, at most.
    pub max_length: Option<usize>,
    /// Tokens to add at most; goes before `max_length`.
    pub max_new_tokens: Option<usize>,
    /// Tokens of prompt and text together, before which no end token is drawn.
    pub min_length: Option<usize>,
    /// Tokens to add before an end token is drawn.
    pub min_new_tokens: Option<usize>,
    /// What changes texts and is not honoured here, as `key = value`.
    pub unused: Vec<String>,
    /// The file that says all this.
    pub path: PathBuf,
}

impl GenerationConfig {
    /// Reads it for the model in the folder `dir`, whose `config.json` says `config`. Tokens outside the
    /// vocabulary are told of and left out.
    ///
    /// # Errors
    /// One line naming the file, and the key where there is one.
    pub fn read(dir: &Path, config: &Gpt2Config) -> Result<GenerationConfig> {
        let path = dir.join(GENERATION);
        match read_map(&path)? {
            Some(map) if !is_stale(&map, config) => Self::of_file(&path, map, config),
            _ => Self::of_config(&dir.join("config.json"), config),
        }
    }

    fn of_file(path: &Path, map: Map<String, Value>, config: &Gpt2Config) -> Result<GenerationConfig> {
        let mut keys = Keys::new(map, config.vocab_size);
        let mut found = keys.read(None).map_err(|why| Error::file(path, why))?;
        found.unused = keys.unused();
        for warning in keys.warnings {
            warn_once(&Error::file(path, warning).to_string());
        }
        if found.eos_token_ids.is_empty() && !config.eos_token_ids.is_empty() {
            let what = "names no eos_token_id, so that no token ends a text, whatever config.json says";
            warn_once(&Error::file(path, what).to_string());
        }
        found.path = path.into();
        Ok(found)
    }

    /// Transformers wrote these keys to `config.json` before there was another file.
    fn of_config(path: &Path, config: &Gpt2Config) -> Result<GenerationConfig> {
        let map = config.other.iter().filter(|(key, _)| Keys::speaks_of_texts(key));
        let map = map.map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut keys = Keys::new(map, config.vocab_size);
        let mut found = keys.read(Some(config)).map_err(|why| Error::file(path, why))?;
        found.unused = keys.unused();
        found.path = path.into();
        Ok(found)
    }
}

/// Whether the file was derived from a `config.json` that speaks of texts itself: transformers then goes by
/// that.
fn is_stale(map: &Map<String, Value>, config: &Gpt2Config) -> bool {
    map.get("_from_model_config") == Some(&Value::Bool(true))
        && config.other.iter().any(|(key, value)| Keys::speaks_of_texts(key) && !Keys::is_neutral(key, value))
}

/// The object in the file; `None` where there is no file.
fn read_map(path: &Path) -> Result<Option<Map<String, Value>>> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path)(e)),
    };
    if size > MAX_SIZE {
        return Err(Error::file(path, "is too large for a generation_config.json"));
    }
    let text = std::fs::read(path).map_err(Error::io(path))?;
    json::from_slice(&text).map(Some).map_err(|e| Error::file(path, format!("is not a JSON object: {e}")))
}
