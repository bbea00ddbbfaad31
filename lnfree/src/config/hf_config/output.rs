//! A config for weights that are written anew: what it says of a file has to be true of the new one.

use serde_json::{Value, json};
use tch::Kind;

use super::Gpt2Config;
use crate::base::console::warn_once;

/// Keys about the files or the place that a config came from.
const OF_THE_SOURCE: [&str; 4] = ["_name_or_path", "_commit_hash", "transformers.js_config", "auto_map"];

impl Gpt2Config {
    /// The config of this model when its weights are stored in `kind`: `dtype` (and `torch_dtype`, which
    /// transformers before 4.56 reads) say so, for `from_pretrained(dtype="auto")` converts to what they
    /// name. Keys that tell of the files that the config came with are left out.
    pub fn stored_as(&self, kind: Kind) -> Gpt2Config {
        let mut config = self.clone();
        for key in OF_THE_SOURCE {
            let there = config.other.remove(key);
            // Code that nobody copies along: what is written is a plain GPT2LMHeadModel.
            if key == "auto_map" && there.is_some_and(|value| !value.is_null()) {
                warn_once("config.json: auto_map, which names a model's own code, is not carried along");
            }
        }
        let name = match kind {
            Kind::Float => Some("float32"),
            Kind::BFloat16 => Some("bfloat16"),
            Kind::Half => Some("float16"),
            Kind::Double => Some("float64"),
            _ => None,
        };
        for key in ["dtype", "torch_dtype"] {
            config.other.insert(key.into(), name.map_or(Value::Null, |name| json!(name)));
        }
        config
    }
}
