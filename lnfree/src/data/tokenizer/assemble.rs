//! A tokenizer out of its files, as transformers' fast tokenizer is made of them.

use std::collections::BTreeMap;
use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use super::settings::{Class, Settings};
use super::{CONFIG, END_OF_TEXT, MERGES, VOCAB};
use crate::base::console::say;
use crate::base::json;
use crate::{Error, Result};

/// A vocabulary and its merges, with no token added.
pub(super) fn from_vocab_and_merges(origin: &Path, vocab: &[u8], merges: &[u8]) -> Result<HfTokenizer> {
    let vocab: BTreeMap<String, u32> = json::from_slice(vocab)
        .map_err(|e| Error::file(origin.join(VOCAB), format!("not a map from token to id: {e}")))?;
    let path = origin.join(MERGES);
    let merges = std::str::from_utf8(json::without_bom(merges))
        .map_err(|_| Error::file(&path, "the text is not UTF-8"))?;
    if !merges.starts_with("#version") && !merges.is_empty() {
        say(&format!(
            "{}: no #version line; its first line is read as a merge, which transformers 4 skips",
            path.display()
        ));
    }
    let mut pairs = Vec::new();
    for (number, line) in merges.lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        let pair = line
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
        let (left, right) = pair.ok_or_else(|| {
            Error::file(&path, format!("line {}: expected two tokens and a space between", number + 1))
        })?;
        pairs.push((left.to_owned(), right.to_owned()));
    }
    bare(vocab, pairs).map_err(|e| Error::file(&path, format!("does not fit {VOCAB}: {e}")))
}

/// A GPT-2 tokenizer around a vocabulary and its merges, in order of rank, with no token added.
pub(super) fn bare(
    vocab: BTreeMap<String, u32>,
    merges: Vec<(String, String)>,
) -> tokenizers::Result<HfTokenizer> {
    let model = BPE::builder().vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges).build()?;
    let mut tokenizer = HfTokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(byte_level()));
    tokenizer.with_post_processor(Some(byte_level().trim_offsets(false)));
    tokenizer.with_decoder(Some(byte_level()));
    Ok(tokenizer)
}

/// GPT-2's pre-tokenizer, post-processor and decoder.
pub(super) fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// Changes what the settings of the other files change: added tokens, and the space in front of texts.
///
/// # Errors
/// If a setting cannot be honoured, naming it; if a token would get another id than its file lists.
pub(super) fn apply(origin: &Path, inner: &mut HfTokenizer, settings: &Settings, whole: bool) -> Result<()> {
    prefix_space(origin, inner, settings)?;
    inner.set_encode_special_tokens(settings.split_special_tokens);
    let tokens = tokens_to_add(inner, settings, whole);
    let before = inner.get_vocab_size(true);
    let known: Vec<Option<u32>> = tokens.iter().map(|token| inner.token_to_id(&token.content)).collect();
    // A vocabulary with gaps: the next id may be taken.
    if known.iter().any(Option::is_none)
        && let Some(taken) = (before..before + tokens.len()).find_map(|id| inner.id_to_token(id as u32))
    {
        return Err(Error::file(
            origin,
            format!(
                "added tokens would get the id of {taken:?}: the ids of the vocabulary are not contiguous"
            ),
        ));
    }
    inner.add_tokens(tokens).map_err(|e| Error::file(origin, e))?;
    for (id, token) in &settings.listed {
        let content = &token.content;
        match inner.token_to_id(content) {
            Some(found) if found == *id => {}
            found => {
                let found = found.map_or("none".into(), |id| id.to_string());
                return Err(Error::file(
                    origin.join(settings.listed_in),
                    format!(
                        "{content:?} is listed with id {id} and gets {found}: Hugging Face's two tokenizers \
                        differ here; save it as \
                         tokenizer.json with the id that the model was trained with"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// In the order in which transformers adds them: `PreTrainedTokenizerFast.__init__`, 4.57.
fn tokens_to_add(inner: &HfTokenizer, settings: &Settings, whole: bool) -> Vec<AddedToken> {
    let there = inner.get_added_tokens_decoder();
    let mut tokens: Vec<AddedToken> = settings
        .listed
        .iter()
        .map(|(_, token)| token.clone())
        .filter(|token| !there.values().any(|known| known == token))
        .collect();
    let known = |tokens: &[AddedToken], content: &str| {
        there.values().chain(tokens).any(|token| token.content == content)
    };
    let listed = tokens.clone();
    let mut seen = Vec::new();
    for special in &settings.special {
        let content = &special.token.content;
        if seen.contains(content) {
            continue;
        }
        seen.push(content.clone());
        // What the class adds by itself is not forced upon a tokenizer.json that lacks it.
        let forced = whole && special.implied && inner.token_to_id(content).is_none();
        let there = special.plain && known(&listed, content) || tokens.contains(&special.token);
        if !forced && !there {
            tokens.push(special.token.clone());
        }
    }
    for token in &mut tokens {
        token.special |= settings.special.iter().any(|special| special.token.content == token.content);
    }
    tokens
}

/// `add_prefix_space`, where the pre-tokenizer has it.
fn prefix_space(origin: &Path, inner: &mut HfTokenizer, settings: &Settings) -> Result<()> {
    let wanted = settings.add_prefix_space;
    match inner.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(level)) if level.add_prefix_space != wanted => {
            let level = level.add_prefix_space(wanted);
            inner.with_pre_tokenizer(Some(level));
            Ok(())
        }
        Some(PreTokenizerWrapper::ByteLevel(_)) => Ok(()),
        _ if wanted => Err(Error::file(
            origin.join(CONFIG),
            "`add_prefix_space` is true, but the pre-tokenizer of tokenizer.json is not ByteLevel; set it \
            there",
        )),
        _ => Ok(()),
    }
}

/// The token that ends documents: end-of-text, or what the settings call `eos_token`.
pub(super) fn end_token(inner: &HfTokenizer, settings: &Settings) -> Option<u32> {
    let eos = settings.special.iter().find(|special| special.name == "eos_token");
    let names = [Some(END_OF_TEXT), eos.map(|special| special.token.content.as_str())];
    names.into_iter().flatten().find_map(|name| inner.token_to_id(name))
}

/// Ids that go before and after every text: the post-processor's, or the begin token that `add_bos_token`
/// asks for.
///
/// # Errors
/// If the post-processor does more than that, or not what `add_bos_token` asks for.
pub(super) fn surroundings(
    origin: &Path,
    inner: &HfTokenizer,
    settings: &Settings,
    whole: bool,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let bos = settings.special.iter().find(|special| special.name == "bos_token");
    let bos = bos.and_then(|special| inner.token_to_id(&special.token.content));
    if !whole {
        return match (settings.add_bos_token, bos) {
            (false, _) => Ok((Vec::new(), Vec::new())),
            (true, Some(bos)) => Ok((vec![bos], Vec::new())),
            (true, None) => {
                Err(Error::file(origin.join(CONFIG), "`add_bos_token` is true without a `bos_token`"))
            }
        };
    }
    let ids = |special: bool| -> Result<Vec<u32>> {
        let encoding = inner.encode_fast("a b", special).map_err(super::refused)?;
        Ok(encoding.get_ids().to_vec())
    };
    let (text, all) = (ids(false)?, ids(true)?);
    let start = (0..=all.len().saturating_sub(text.len())).find(|start| all[*start..].starts_with(&text));
    let Some(start) = start.filter(|_| !text.is_empty() || all.is_empty()) else {
        return Err(Error::file(
            origin,
            "its post_processor does more than to put tokens around a text; remove it",
        ));
    };
    let (before, after) = (all[..start].to_vec(), all[start + text.len()..].to_vec());
    if settings.add_bos_token && settings.class == Class::Gpt2 && bos.is_none_or(|bos| before != [bos]) {
        return Err(Error::file(
            origin.join(CONFIG),
            "`add_bos_token` is true, but the post_processor of tokenizer.json adds none, and Hugging Face's \
            two tokenizers differ; \
             set it to false, or add a TemplateProcessing there",
        ));
    }
    Ok((before, after))
}

/// Bytes that a text may have and the vocabulary lacks: without an unknown token they would vanish.
pub(super) fn missing_bytes(inner: &HfTokenizer) -> Vec<u8> {
    let byte_level = matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::ByteLevel(_)));
    let tokenizers::models::ModelWrapper::BPE(model) = inner.get_model() else { return Vec::new() };
    if !byte_level || model.unk_token.is_some() || model.byte_fallback {
        return Vec::new();
    }
    (0..=u8::MAX).filter(|byte| inner.token_to_id(&character_of(*byte).to_string()).is_none()).collect()
}

/// The character that stands for a byte in GPT-2's vocabulary.
fn character_of(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match printable(byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|other| !printable(*other)).count() as u32;
            char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    }
}
