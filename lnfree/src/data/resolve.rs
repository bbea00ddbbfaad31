//! From the name of a data set to a token file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::prepare::{ChunkScheme, prepare};
use super::{TokenFile, Tokenizer, hex};
use crate::{Error, Result};

/// The data sets that come with the repository, and their texts.
const EMBEDDED: [(&str, &str); 3] = [
    ("nano-train", "sotu-train.parquet"),
    ("nano-owt", "sotu-val.parquet"),
    ("nano-pile", "moby-dick.parquet"),
];
/// The peer's names of data sets on the Hugging Face hub.
const HUB: [&str; 5] = ["openwebtext", "pile-apollo", "pile-apollo-luca", "pile-10k", "pile-uncopyrighted"];
/// The folder of the embedded tokenizer, whose presence tells the data folder.
const TOKENIZER: &str = "nano";
/// To be raised when the same text and tokenizer come to give another token file.
const SCHEME_VERSION: u32 = 1;

/// The token file of a data set or path.
///
/// A path is taken as it is. `nano-train`, `nano-owt` and `nano-pile` are the texts in the repository's `data/`: on
/// first use they are cut into sequences of `block_size` tokens with the tokenizer in `data/nano`, and kept in
/// `$XDG_CACHE_HOME/lnfree/tokens` (`~/.cache` without that variable).
///
/// # Errors
/// If it is neither a path nor a known name, a hub data set, or the embedded texts or the cache are out of reach.
pub fn resolve(name_or_path: &str, block_size: usize) -> Result<PathBuf> {
    if let Some((_, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) {
        return Ok(embedded(name_or_path, text, block_size)?.0);
    }
    if Path::new(name_or_path).exists() {
        return Ok(name_or_path.into());
    }
    let names = EMBEDDED.map(|(name, _)| name).join(", ");
    Err(Error::invalid(match HUB.contains(&name_or_path) {
        true => format!(
            "data set {name_or_path}: data sets of the hub are not available yet; give the path of a token file, or \
             one of {names}"
        ),
        false => format!("{name_or_path}: no such file, and no such data set; the data sets are {names}"),
    }))
}

/// [`resolve`], opened.
///
/// # Errors
/// As [`resolve`] and [`TokenFile::open`].
pub fn open_dataset(name_or_path: &str, block_size: usize) -> Result<TokenFile> {
    match EMBEDDED.iter().find(|(name, _)| *name == name_or_path) {
        Some((name, text)) => Ok(embedded(name, text, block_size)?.1),
        None => TokenFile::open(resolve(name_or_path, block_size)?),
    }
}

/// The repository's `data/`: the one above the current folder, else the one that this crate was built beside.
///
/// # Errors
/// If there is none.
pub fn data_dir() -> Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(""));
    here.ancestors()
        .chain([built])
        .map(|folder| folder.join("data"))
        .find(|data| data.join(TOKENIZER).join("tokenizer.json").is_file())
        .ok_or_else(|| {
            Error::invalid(
                "the folder data/ of lnfree's repository is not here; run this inside the repository",
            )
        })
}

fn embedded(name: &str, text: &str, block_size: usize) -> Result<(PathBuf, TokenFile)> {
    let data = data_dir()?;
    let text = data.join(text);
    let tokenizer = Tokenizer::from_dir(data.join(TOKENIZER))?;
    let mut hash = Sha256::new();
    hash.update(std::fs::read(&text).map_err(Error::io(&text))?);
    hash.update(tokenizer.fingerprint());
    hash.update(format!("{block_size} {SCHEME_VERSION}"));
    let key = &hex(&hash.finalize())[..16];
    let out = cache_dir()?.join("tokens").join(format!("{name}-{block_size}-{key}.arrow"));
    // A file that does not open was damaged after it was written: make it again.
    if let Ok(file) = TokenFile::open(&out) {
        return Ok((out, file));
    }
    prepare(&text, &tokenizer, block_size, &out, ChunkScheme::default())?;
    let file = TokenFile::open(&out)?;
    Ok((out, file))
}

/// `$XDG_CACHE_HOME/lnfree`, or `~/.cache/lnfree`.
fn cache_dir() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    base.map(|base| base.join("lnfree"))
        .ok_or_else(|| Error::invalid("no cache folder: neither XDG_CACHE_HOME nor HOME is set"))
}
