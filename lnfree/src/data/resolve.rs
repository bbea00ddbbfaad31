//! From the name of a data set to a token file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

#[cfg(feature = "hub")]
use super::from_hub::from_hub;
use super::names::{DatasetOptions, Embedded, GPT2, HUB, NANO};
use super::parts::holds_ids;
use super::prepare::{Prepared, prepare};
use super::prepared::{MadeWith, Provenance, Request, check_beside, find, lock};
#[cfg(feature = "hub")]
use super::recipes::recipe;
use super::scheme::ChunkScheme;
use super::text::Meter;
use super::{TokenFile, Tokenizer, text};
use crate::base::atomic::digest_file;
use crate::base::closest::did_you_mean;
use crate::base::embedded_file;
use crate::base::hex;
use crate::hub;
use crate::{Error, Result};

/// [`resolve_with`], for evaluation.
///
/// # Errors
/// As [`resolve_with`].
pub fn resolve(name_or_path: &str, block_size: usize) -> Result<PathBuf> {
    resolve_with(name_or_path, &DatasetOptions::new(block_size))
}

/// The token file of a data set or path.
///
/// - A token file, or a folder of them, is taken as it is; a text file (see [`text::documents`]) is
///   tokenized.
/// - `nano-train`, `nano-val` and `nano-test`, `nano-addresses` (`nano-owt` before) and `nano-moby-dick`
///   (`nano-pile` before) are the texts in `data/`.
/// - `openwebtext`, `openwebtext-val`, `openwebtext-train`, `pile-apollo`, `pile-apollo-luca`, `pile-10k`,
///   `pile-uncopyrighted` and every `ORG/NAME` come from the Hugging Face hub.
///
/// What is made is kept in `$XDG_CACHE_HOME/lnfree/tokens` (`~/.cache` without that variable), with a JSON
/// file beside it that says what it stands for ([`Provenance`]), and found there later without a network.
///
/// # Errors
/// If it is neither a path nor a name; if the hub, the data set or its tokenizer is out of reach, or has not
/// what is needed; if there are too few tokens for one sequence; if the cache cannot be written.
pub fn resolve_with(name_or_path: &str, options: &DatasetOptions) -> Result<PathBuf> {
    Ok(find_or_make(name_or_path, options)?.0)
}

/// [`resolve`], opened.
///
/// # Errors
/// As [`resolve`] and [`TokenFile::open`].
pub fn open_dataset(name_or_path: &str, block_size: usize) -> Result<TokenFile> {
    open_dataset_with(name_or_path, &DatasetOptions::new(block_size))
}

/// [`resolve_with`], opened.
///
/// # Errors
/// As [`resolve_with`] and [`TokenFile::open`].
pub fn open_dataset_with(name_or_path: &str, options: &DatasetOptions) -> Result<TokenFile> {
    Ok(find_or_make(name_or_path, options)?.1)
}

fn find_or_make(name: &str, options: &DatasetOptions) -> Result<(PathBuf, TokenFile)> {
    if options.block_size == 0 || options.max_sequences == 0 {
        return Err(Error::invalid("block size and sequences have to be at least 1"));
    }
    if let Some(Embedded { name, text, .. }) = Embedded::find(name) {
        let (text, tokenizer) = (embedded_file(text)?, embedded_file(NANO)?);
        return local_text(name, &text, &tokenizer.to_string_lossy(), options.block_size);
    }
    let path = Path::new(name);
    if path.exists() {
        return local(path, options);
    }
    on_the_hub(name, options)
}

#[cfg(feature = "hub")]
fn on_the_hub(name: &str, options: &DatasetOptions) -> Result<(PathBuf, TokenFile)> {
    match recipe(name) {
        Some(recipe) => from_hub(name, &recipe, options),
        None => Err(Error::invalid(format!(
            "{name}: no such file, and no such data set; the data sets are {}, {} and ORG/NAME on the hub{}",
            Embedded::names().join(", "),
            HUB.join(", "),
            did_you_mean(name, Embedded::names().into_iter().chain(HUB))
        ))),
    }
}

#[cfg(not(feature = "hub"))]
fn on_the_hub(name: &str, _: &DatasetOptions) -> Result<(PathBuf, TokenFile)> {
    let known = Embedded::names();
    Err(Error::invalid(format!(
        "{name}: no such file, and no such data set; this build of lnfree has no hub (the feature `hub`), and carries {}{}",
        known.join(", "),
        did_you_mean(name, known.iter().copied())
    )))
}

/// A token file, or text: by name where that tells, else by what is in it.
fn local(path: &Path, options: &DatasetOptions) -> Result<(PathBuf, TokenFile)> {
    if !text::is_named_text(path) {
        match TokenFile::open(path) {
            Ok(file) => return Ok((path.into(), file)),
            // A table of ids that is refused is not read as text instead.
            Err(error) if holds_ids(path) || !is_text(path) => return Err(error),
            Err(_) => {}
        }
    }
    let path = std::path::absolute(path).map_err(Error::io(path))?;
    let name = path.file_name().map_or("text".into(), |name| name.to_string_lossy());
    local_text(&name, &path, options.tokenizer.as_deref().unwrap_or(GPT2), options.block_size)
}

fn is_text(path: &Path) -> bool {
    match text::streamed(path, &Meter::default()) {
        Err(_) => false,
        // What is wrong inside is better told by reading it.
        Ok(_) if path.is_dir() => true,
        Ok(mut parts) => parts.next().is_some_and(|first| first.is_ok()),
    }
}

/// A text on this machine, known by its content.
fn local_text(name: &str, text: &Path, tokenizer: &str, block_size: usize) -> Result<(PathBuf, TokenFile)> {
    let content = content_of(text)?;
    let request = Request::new(name, &text.to_string_lossy(), block_size, tokenizer);
    let tokenizer = Tokenizer::from_dir(hub::locate_tokenizer(tokenizer)?)?;
    let fingerprint = tokenizer.fingerprint();
    let ready = || find(&request, Some(&content), MadeWith::Content(&fingerprint));
    if let Some(found) = ready() {
        return Ok(found);
    }
    let _turn = lock(name)?;
    if let Some(found) = ready() {
        return Ok(found);
    }
    let made = provenance(request.clone(), &content, &tokenizer);
    let out = made.path()?;
    make(made, text, &tokenizer, &out)?;
    let file = TokenFile::open(&out)?;
    Ok((out, file))
}

/// The token file `out` of a text on this machine, with the JSON beside it that says what it was made of
/// ([`Provenance`]); `tokenizer` is a folder, an embedded one's name or one on the hub.
///
/// # Errors
/// As [`prepare`], if the tokenizer cannot be had, and if a JSON beside `out` is somebody else's.
pub fn prepare_text(text: &Path, tokenizer: &str, block_size: usize, out: &Path) -> Result<Prepared> {
    check_beside(out)?;
    let loaded = Tokenizer::from_dir(hub::locate_tokenizer(tokenizer)?)?;
    let absolute = std::path::absolute(text).map_err(Error::io(text))?;
    let name = text.file_name().map_or("text".into(), |name| name.to_string_lossy());
    let request = Request::new(&name, &absolute.to_string_lossy(), block_size, tokenizer);
    make(provenance(request, &content_of(text)?, &loaded), text, &loaded, out)
}

fn provenance(request: Request, content: &str, tokenizer: &Tokenizer) -> Provenance {
    let mut made = Provenance::new(request, content, Some(tokenizer.fingerprint()));
    made.recipe = "all documents as one stream".into();
    made
}

fn make(mut made: Provenance, text: &Path, tokenizer: &Tokenizer, out: &Path) -> Result<Prepared> {
    let counts = prepare(text, tokenizer, made.request.block_size, out, ChunkScheme::default())?;
    // A pipe or a terminal has nothing beside it.
    if out.is_file() && !out.starts_with("/dev") {
        made.write(out, counts)?;
    }
    Ok(counts)
}

/// SHA-256 over a file, or over the names and contents of a folder's files.
fn content_of(path: &Path) -> Result<String> {
    if path.is_file() {
        return digest_file(path, Sha256::new());
    }
    let mut all = Sha256::new();
    for file in super::files_in(path)? {
        all.update(file.as_os_str().as_encoded_bytes());
        all.update(digest_file(&file, Sha256::new())?);
    }
    Ok(hex(&all.finalize()))
}
