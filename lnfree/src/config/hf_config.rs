//! `config.json` of a GPT-2, as Hugging Face transformers writes and reads it.

mod json;
mod output;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::json::{token_ids, whole, within};
use crate::base::atomic::write_atomic;
use crate::base::console::warn_once;
use crate::{Error, Result};

/// A message that the caller puts the file's name before.
type Why<T> = std::result::Result<T, String>;

/// The name of the file.
pub const CONFIG: &str = "config.json";

/// Key that says how a model stores what became of its LNs.
pub const FORMAT_KEY: &str = "lnfree_format";
/// The value of [`FORMAT_KEY`] of a model without LN.
pub const FOLDED: &str = "folded";
/// The value of [`FORMAT_KEY`] of a model whose LNs are the identity. For people: programs see it by ε and γ.
pub const IDENTITY: &str = "identity";
/// What LN adds to the variance in a GPT-2 as released.
pub const PLAIN_EPSILON: f64 = 1e-5;

/// Somebody will name the weights instead of their folder.
const MAX_CONFIG: u64 = 1 << 20;

/// The shape of a GPT-2 and how it was trained, with the keys of this crate. Defaults for missing keys are
/// those of transformers' `GPT2Config`; the five sizes must be there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Gpt2Config {
    /// Number of blocks.
    pub n_layer: i64,
    /// Attention heads in each block; divides `n_embd`.
    pub n_head: i64,
    /// Width of the residual stream.
    pub n_embd: i64,
    /// Longest sequence, in tokens (`n_positions` in the file).
    pub block_size: i64,
    /// Number of token ids.
    pub vocab_size: i64,
    /// Width of the MLP when it is not 4 · `n_embd`.
    pub n_inner: Option<i64>,
    /// What LN adds to the variance. Models exported with a hidden LN have 1e12 here.
    pub layer_norm_epsilon: f64,
    /// Dropout on the residual branches, in [0, 1).
    pub resid_pdrop: f64,
    /// Dropout on the embeddings, in [0, 1).
    pub embd_pdrop: f64,
    /// Dropout on the attention pattern, in [0, 1).
    pub attn_pdrop: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The token that stands before a text.
    pub bos_token_id: Option<i64>,
    /// The tokens that end a text; GPT-2 has one.
    pub eos_token_ids: Vec<i64>,
    /// True when the unembedding is `wte` itself; false when the weights hold an `lm_head.weight` of its own.
    pub tie_word_embeddings: bool,
    /// Keys that mean nothing to this crate, kept for [`Gpt2Config::write`].
    pub other: BTreeMap<String, Value>,
}

impl Gpt2Config {
    /// Reads and checks `path`, a `config.json` or the folder that has one. Special tokens outside the
    /// vocabulary, which transformers' defaults put into configs of small models, are told of and left out.
    ///
    /// # Errors
    /// One line naming the file, and the key where there is one: not a GPT-2, a variant whose forward is
    /// another one, or a value that cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let path: PathBuf = if path.is_dir() { path.join(CONFIG) } else { path.to_path_buf() };
        let mut text = Vec::new();
        let file = std::fs::File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound if path.ends_with(CONFIG) => {
                Error::file(&path, "is not there, and without it this is no model's folder")
            }
            std::io::ErrorKind::NotFound => Error::file(&path, "there is no such folder"),
            _ => Error::io(&path)(e),
        })?;
        file.take(MAX_CONFIG + 1).read_to_end(&mut text).map_err(Error::io(&path))?;
        if text.len() as u64 > MAX_CONFIG {
            return Err(Error::file(&path, "is too large for a config.json"));
        }
        let map: Map<String, Value> = crate::base::json::from_slice(&text)
            .map_err(|e| Error::file(&path, format!("is not a JSON object: {e}")))?;
        let (config, warnings) = json::parse(map).map_err(|message| Error::file(&path, message))?;
        for warning in warnings {
            warn_once(&Error::file(&path, warning).to_string());
        }
        Ok(config)
    }

    /// Writes `config.json` into the folder `dir`, all or nothing, so that transformers loads it as a
    /// `GPT2LMHeadModel`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the values do not pass the checks of [`Gpt2Config::read`]; what
    /// [`write_atomic`] reports.
    pub fn write(&self, dir: &Path) -> Result<()> {
        self.check().map_err(Error::invalid)?;
        let path = dir.join(CONFIG);
        // Sorted, like transformers' own, so that a diff shows what changed.
        let sorted: BTreeMap<String, Value> = Map::from(self.clone()).into_iter().collect();
        let sorted = Value::Object(sorted.into_iter().collect());
        let text = crate::base::json::to_string_pretty(&sorted).map_err(|e| Error::file(&path, e))?;
        write_atomic(&path, |file| writeln!(file, "{text}").map_err(Error::io(&path)))
    }

    /// A new model's config: tied unembedding, no dropout, the last token of the vocabulary is end-of-text.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the sizes contradict each other.
    pub fn new(n_layer: i64, n_head: i64, n_embd: i64, block_size: i64, vocab_size: i64) -> Result<Self> {
        let map = serde_json::json!({
            "model_type": "gpt2", "activation_function": "gelu_new", "n_layer": n_layer, "n_head": n_head,
            "n_embd": n_embd, "n_positions": block_size, "vocab_size": vocab_size, "bos_token_id": vocab_size - 1,
            "eos_token_id": vocab_size - 1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        });
        let map = map.as_object().cloned().unwrap_or_default();
        Self::try_from(map).map_err(Error::Invalid)
    }

    /// The token that ends a document: the first of [`Gpt2Config::eos_token_ids`].
    pub fn eot_token_id(&self) -> Option<i64> {
        self.eos_token_ids.first().copied()
    }

    /// `eos_token_id` as files have it: an id, a list of ids, or null.
    pub(crate) fn eos_token_value(&self) -> Value {
        match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [id] => Value::from(*id),
            ids => Value::from(ids),
        }
    }

    /// Whether the LNs are folded into the matrices, so that there are none among the weights.
    pub fn is_folded(&self) -> bool {
        self.other.get(FORMAT_KEY).and_then(Value::as_str) == Some(FOLDED)
    }

    /// Width of the MLP.
    pub fn mlp_width(&self) -> i64 {
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }

    /// What every constructor of a model relies on.
    fn check(&self) -> Why<()> {
        let sizes = [
            ("n_layer", self.n_layer, 1 << 10),
            ("n_head", self.n_head, 1 << 10),
            ("n_embd", self.n_embd, 1 << 16),
            ("n_positions", self.block_size, 1 << 20),
            ("vocab_size", self.vocab_size, 1 << 24),
            ("n_inner", self.mlp_width(), 1 << 20),
        ];
        if let Some((key, value, most)) = sizes.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            return Err(format!("{key} = {value}, must be between 1 and {most}"));
        }
        if self.n_embd % self.n_head != 0 {
            return Err(format!("n_embd = {} is not divisible by n_head = {}", self.n_embd, self.n_head));
        }
        let dropouts = [self.resid_pdrop, self.embd_pdrop, self.attn_pdrop];
        for (key, value) in ["resid_pdrop", "embd_pdrop", "attn_pdrop"].iter().zip(dropouts) {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("{key} = {value}, must be at least 0 and below 1"));
            }
        }
        for (key, value) in
            [("layer_norm_epsilon", self.layer_norm_epsilon), ("initializer_range", self.initializer_range)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("{key} = {value}, must be a number that is not negative"));
            }
        }
        let tokens = self.bos_token_id.iter().map(|id| ("bos_token_id", *id));
        let mut tokens = tokens.chain(self.eos_token_ids.iter().map(|id| ("eos_token_id", *id)));
        match tokens.find(|(_, id)| !(0..self.vocab_size).contains(id)) {
            Some((key, id)) => {
                Err(format!("{key} = {id} lies outside the vocabulary of {}", self.vocab_size))
            }
            None => Ok(()),
        }
    }
}

/// Every parameter of the model of `config`: name without prefix and shape. Linear layers are Conv1D,
/// `[in, out]`; `lm_head.weight` is there only when it is not tied to `wte.weight`, and a folded model has no
/// LN.
pub fn expected(config: &Gpt2Config) -> Vec<(String, Vec<i64>)> {
    let (e, m, v) = (config.n_embd, config.mlp_width(), config.vocab_size);
    let mut all =
        vec![("wte.weight".to_string(), vec![v, e]), ("wpe.weight".to_string(), vec![config.block_size, e])];
    for i in 0..config.n_layer {
        let block = [
            ("ln_1.weight", vec![e]),
            ("ln_1.bias", vec![e]),
            ("attn.c_attn.weight", vec![e, 3 * e]),
            ("attn.c_attn.bias", vec![3 * e]),
            ("attn.c_proj.weight", vec![e, e]),
            ("attn.c_proj.bias", vec![e]),
            ("ln_2.weight", vec![e]),
            ("ln_2.bias", vec![e]),
            ("mlp.c_fc.weight", vec![e, m]),
            ("mlp.c_fc.bias", vec![m]),
            ("mlp.c_proj.weight", vec![m, e]),
            ("mlp.c_proj.bias", vec![e]),
        ];
        all.extend(block.map(|(name, shape)| (format!("h.{i}.{name}"), shape)));
    }
    all.extend([("ln_f.weight".to_string(), vec![e]), ("ln_f.bias".to_string(), vec![e])]);
    if config.is_folded() {
        all.retain(|(name, _)| !name.contains("ln_"));
    }
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".to_string(), vec![v, e]));
    }
    all
}
