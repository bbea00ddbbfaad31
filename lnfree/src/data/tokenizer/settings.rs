//! The files beside a vocabulary that change what becomes of a text: `tokenizer_config.json`,
//! `special_tokens_map.json` and `added_tokens.json`, read in transformers' order (4.57, `_from_pretrained`).

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::{ADDED, CONFIG, END_OF_TEXT, SPECIAL_MAP, TokenizerFile};
use crate::base::json;
use crate::{Error, Result};

/// In the order in which they get ids, where the vocabulary lacks them.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const ADDITIONAL: &str = "additional_special_tokens";
/// What a GPT-2 tokenizer without files calls its tokens.
const IMPLIED: [&str; 3] = ["bos_token", "eos_token", "unk_token"];
/// Those for which the slow GPT-2 tokenizer, of which transformers makes the fast one, has a way of its own.
const OF_GPT2: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

/// The classes of Hugging Face that are understood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Class {
    #[default]
    Gpt2,
    /// Whatever `tokenizer.json` says.
    Fast,
}

/// A token with a role.
#[derive(Debug, Clone)]
pub(super) struct Special {
    pub name: &'static str,
    pub token: AddedToken,
    /// Written as a string: known by its text alone.
    pub plain: bool,
    /// Named by no file.
    pub implied: bool,
}

/// What the files say.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub class: Class,
    pub add_prefix_space: bool,
    pub add_bos_token: bool,
    pub split_special_tokens: bool,
    /// Added tokens and the ids that they are listed with, by id.
    pub listed: Vec<(u32, AddedToken)>,
    /// The file that lists them.
    pub listed_in: &'static str,
    pub special: Vec<Special>,
}

impl Settings {
    /// Reads them; `whole` says that there is a `tokenizer.json`.
    ///
    /// # Errors
    /// If a file is not what it has to be, or asks for what is not supported, naming the key.
    pub(super) fn read(origin: &Path, files: &[TokenizerFile], whole: bool) -> Result<Self> {
        let object = |name: &'static str| -> Result<Option<Map<String, Value>>> {
            let Some(file) = files.iter().find(|file| file.name == name) else { return Ok(None) };
            let object = json::from_slice(&file.bytes);
            object.map(Some).map_err(|e| Error::file(origin.join(name), format!("not a JSON object: {e}")))
        };
        let mut config = object(CONFIG)?.unwrap_or_default();
        let class = class(origin, &config, whole)?;
        refuse(origin, &config)?;
        let mut settings = Self { class, ..Self::default() };
        for (key, place) in [
            ("add_prefix_space", &mut settings.add_prefix_space),
            ("add_bos_token", &mut settings.add_bos_token),
            ("split_special_tokens", &mut settings.split_special_tokens),
        ] {
            *place = flag(&config, key).map_err(|e| Error::file(origin.join(CONFIG), e))?.unwrap_or(false);
        }
        if let Some(decoder) = config.get("added_tokens_decoder").cloned() {
            settings.listed_in = CONFIG;
            settings.listed = listed_in_config(&decoder).map_err(|e| Error::file(origin.join(CONFIG), e))?;
        } else {
            // Older files, which count only where the newer key is missing.
            merge(&mut config, object(SPECIAL_MAP)?.unwrap_or_default());
            if let Some(added) = object(ADDED)? {
                settings.listed_in = ADDED;
                let names = special_names(&config);
                settings.listed =
                    listed_in_added(&added, &names).map_err(|e| Error::file(origin.join(ADDED), e))?;
            }
        }
        settings.listed.sort_by_key(|(id, _)| *id);
        settings.special =
            specials(&config, &settings, whole).map_err(|e| Error::file(origin.join(CONFIG), e))?;
        Ok(settings)
    }
}

type Said<T> = std::result::Result<T, String>;

fn class(origin: &Path, config: &Map<String, Value>, whole: bool) -> Result<Class> {
    let refused = |message: String| Err(Error::file(origin.join(CONFIG), message));
    if config.get("auto_map").is_some_and(|map| !map.is_null()) {
        return refused(
            "`auto_map` names code of its own, which cannot be run; save it as a PreTrainedTokenizerFast"
                .into(),
        );
    }
    match config.get("tokenizer_class") {
        None | Some(Value::Null) => Ok(Class::Gpt2),
        Some(Value::String(name)) => match name.as_str() {
            "GPT2Tokenizer" | "GPT2TokenizerFast" => Ok(Class::Gpt2),
            "PreTrainedTokenizerFast" | "TokenizersBackend" if whole => Ok(Class::Fast),
            "PreTrainedTokenizerFast" | "TokenizersBackend" => {
                refused(format!("`tokenizer_class` is {name}, but there is no tokenizer.json"))
            }
            other => refused(format!(
                "`tokenizer_class` is {other}; supported are GPT2Tokenizer, GPT2TokenizerFast and, with a \
                tokenizer.json, \
                 PreTrainedTokenizerFast: save it as one of them"
            )),
        },
        Some(other) => refused(format!("`tokenizer_class` is {other}, not a name")),
    }
}

/// Settings that change a result and are not supported.
fn refuse(origin: &Path, config: &Map<String, Value>) -> Result<()> {
    match config.get("errors") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(errors)) if errors == "replace" => Ok(()),
        Some(other) => Err(Error::file(
            origin.join(CONFIG),
            format!(
                "`errors` is {other}; only \"replace\" is supported: bytes that are not UTF-8 become U+FFFD"
            ),
        )),
    }
}

fn flag(object: &Map<String, Value>, key: &str) -> Said<Option<bool>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(format!("`{key}` is {other}, not true or false")),
    }
}

/// Lays `special_tokens_map.json` over the config, whose additional tokens stay.
fn merge(config: &mut Map<String, Value>, map: Map<String, Value>) {
    for (key, mut value) in map {
        if let Value::Object(token) = &mut value {
            token.insert("special".into(), true.into());
        }
        if let (ADDITIONAL, Value::Array(more)) = (key.as_str(), &value) {
            let mut all = config.get(ADDITIONAL).and_then(Value::as_array).cloned().unwrap_or_default();
            for token in more {
                let mut token = token.clone();
                if let Value::Object(token) = &mut token {
                    token.insert("special".into(), true.into());
                }
                if !all.contains(&token) {
                    all.push(token);
                }
            }
            value = Value::Array(all);
        }
        config.insert(key, value);
    }
}

/// The texts of all special tokens that the files name.
fn special_names(config: &Map<String, Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().or_else(|| value["content"].as_str()).map(String::from);
    let additional = config.get(ADDITIONAL).and_then(Value::as_array).into_iter().flatten();
    SPECIAL.iter().filter_map(|key| config.get(*key)).chain(additional).filter_map(text).collect()
}

fn listed_in_config(decoder: &Value) -> Said<Vec<(u32, AddedToken)>> {
    let key = "added_tokens_decoder";
    let object = decoder.as_object().ok_or_else(|| format!("`{key}` is not an object"))?;
    object
        .iter()
        .map(|(id, token)| {
            let id = id.parse().map_err(|_| format!("`{key}`: {id:?} is not a token id"))?;
            let token = token.as_object().ok_or_else(|| format!("`{key}`: {id} is not an object"))?;
            Ok((id, added_token(key, token)?))
        })
        .collect()
}

fn listed_in_added(added: &Map<String, Value>, special: &[String]) -> Said<Vec<(u32, AddedToken)>> {
    let id_of = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    added
        .iter()
        .map(|(content, id)| {
            let id = id_of(id).ok_or_else(|| format!("{content:?}: {id} is not a token id"))?;
            Ok((id, AddedToken::from(content.clone(), special.contains(content))))
        })
        .collect()
}

fn added_token(key: &str, token: &Map<String, Value>) -> Said<AddedToken> {
    let content = token.get("content").and_then(Value::as_str);
    let content = content.ok_or_else(|| format!("`{key}` has a token without `content`"))?;
    let get = |name: &str| flag(token, name).map_err(|e| format!("`{key}`: {content:?}: {e}"));
    let special = get("special")?.unwrap_or(false);
    Ok(AddedToken::from(content, special)
        .single_word(get("single_word")?.unwrap_or(false))
        .lstrip(get("lstrip")?.unwrap_or(false))
        .rstrip(get("rstrip")?.unwrap_or(false))
        .normalized(get("normalized")?.unwrap_or(!special)))
}

/// The tokens with a role, those that the class implies too.
fn specials(config: &Map<String, Value>, settings: &Settings, whole: bool) -> Said<Vec<Special>> {
    let mut all = Vec::new();
    for name in SPECIAL {
        let implied = settings.class == Class::Gpt2 && IMPLIED.contains(&name) && !config.contains_key(name);
        let value =
            if implied { Value::from(END_OF_TEXT) } else { config.get(name).cloned().unwrap_or_default() };
        let Some(mut special) = special(name, &value, implied)? else { continue };
        if let Some((_, listed)) =
            settings.listed.iter().find(|(_, token)| token.content == special.token.content)
        {
            (special.token, special.plain) = (listed.clone(), false);
        } else if special.plain && !whole && OF_GPT2.contains(&name) {
            (special.token, special.plain) = (special.token.normalized(true), false);
        }
        special.token.special = true;
        all.push(special);
    }
    match config.get(ADDITIONAL) {
        None | Some(Value::Null) => {}
        Some(Value::Array(tokens)) => {
            for token in tokens {
                let token = special(ADDITIONAL, token, false)?;
                all.push(token.ok_or_else(|| format!("`{ADDITIONAL}` has null in it"))?);
            }
        }
        Some(other) => return Err(format!("`{ADDITIONAL}` is {other}, not a list")),
    }
    Ok(all)
}

fn special(name: &'static str, value: &Value, implied: bool) -> Said<Option<Special>> {
    let (token, plain) = match value {
        Value::Null => return Ok(None),
        Value::String(text) => (AddedToken::from(text.clone(), true), true),
        Value::Object(token) => (added_token(name, token)?, false),
        other => return Err(format!("`{name}` is {other}, not a token")),
    };
    Ok(Some(Special { name, token, plain, implied }))
}
