//! `generation_config.json` of an exported model.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::model::{GENERATION, Gpt2Config};
use crate::{Error, Result};

/// Writes the file into `dir`. One that the source brought lies there already and stays what it is, but for
/// tokens that the vocabulary does not have; without one it says what the config says.
pub(super) fn write(config: &Gpt2Config, dir: &Path) -> Result<()> {
    let path = dir.join(GENERATION);
    let map = match path.is_file() {
        true => {
            let text = std::fs::read(&path).map_err(Error::io(&path))?;
            let map = crate::base::json::from_slice(&text)
                .map_err(|e| Error::file(&path, format!("is not a JSON object: {e}")))?;
            within_vocabulary(map, config.vocab_size)
        }
        false => of_config(config),
    };
    let text = crate::base::json::to_string_pretty(&Value::Object(map)).map_err(|e| Error::file(&path, e))?;
    std::fs::write(&path, text + "\n").map_err(Error::io(&path))
}

fn of_config(config: &Gpt2Config) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("_from_model_config".into(), json!(true));
    map.insert("bos_token_id".into(), json!(config.bos_token_id));
    map.insert("eos_token_id".into(), config.eos_token_value());
    map
}

/// The same without ids that are none.
fn within_vocabulary(mut map: Map<String, Value>, vocab_size: i64) -> Map<String, Value> {
    let is_token = |id: &Value| id.as_f64().is_none_or(|id| (0.0..vocab_size as f64).contains(&id));
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        match map.get_mut(key) {
            Some(Value::Array(ids)) => ids.retain(is_token),
            Some(id) if !is_token(id) => *id = Value::Null,
            _ => {}
        }
        if map.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty) {
            map.insert(key.into(), Value::Null);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_the_vocabulary_go_and_all_else_stays() {
        let map = json!({
            "bos_token_id": 64, "eos_token_id": [63, 64, -1, 2], "pad_token_id": -1, "temperature": 0.5, "top_k": null
        });
        let map = within_vocabulary(map.as_object().unwrap().clone(), 64);
        let expected = json!({
            "bos_token_id": null, "eos_token_id": [63, 2], "pad_token_id": null, "temperature": 0.5, "top_k": null
        });
        assert_eq!(Value::Object(map), expected);
        let map = json!({"eos_token_id": [64]});
        assert_eq!(within_vocabulary(map.as_object().unwrap().clone(), 64)["eos_token_id"], Value::Null);
    }
}
