//! Prepared token files in the cache: what each stands for, in a JSON file beside it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TokenFile;
use super::names::is_named;
use super::prepare::Prepared;
use crate::base::atomic;
use crate::base::console::say;
use crate::base::hex;
use crate::base::places::cache_folder;
use crate::{Error, Result};

/// To be raised when the same source and tokenizer come to give another token file.
const SCHEME_VERSION: u32 = 3;
/// Of the data sets with names, whose token files are what they were.
const SCHEME_OF_NAMED: u32 = 2;

/// What a prepared token file was made of, and what came out: the JSON beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// What was asked for, and decides which file is the one.
    #[serde(flatten)]
    pub request: Request,
    /// Commit of the repository, or SHA-256 of a local text.
    pub commit: String,
    /// SHA-256 of the tokenizer's files; none where the source has token ids.
    pub tokenizer_sha256: Option<String>,
    /// How documents were chosen, ordered and put together.
    pub recipe: String,
    /// Files of the repository that hold the data.
    pub files: Vec<String>,
    /// Documents read.
    pub documents: usize,
    /// Sequences written.
    pub sequences: usize,
    /// Tokens written, end-of-text included.
    pub tokens: u64,
    /// Tokens left over.
    pub dropped: u64,
    /// Version of this program that wrote it.
    pub lnfree: String,
}

/// What is asked for when a data set is prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Name of the data set.
    pub dataset: String,
    /// Repository on the hub, or path of a local text.
    pub source: String,
    /// `train` or `validation`, where the data set has splits.
    pub split: Option<String>,
    /// Sequences at most, where that decides what is read.
    pub max_sequences: Option<usize>,
    /// Tokens in a sequence.
    pub block_size: usize,
    /// Name or folder of the tokenizer that text is tokenized with.
    pub tokenizer: String,
    /// Version of the way in which token files are made.
    pub scheme: u32,
}

impl Request {
    pub(super) fn new(dataset: &str, source: &str, block_size: usize, tokenizer: &str) -> Self {
        let (split, max_sequences) = (None, None);
        let scheme = if is_named(dataset) { SCHEME_OF_NAMED } else { SCHEME_VERSION };
        let (dataset, source, tokenizer) = (dataset.into(), source.into(), tokenizer.into());
        Self { dataset, source, split, max_sequences, block_size, tokenizer, scheme }
    }

    /// Whether `other` asks for the same, the tokenizer's name apart.
    fn same_but_tokenizer(&self, other: &Self) -> bool {
        let tokenizer = self.tokenizer.clone();
        *self == Self { tokenizer, ..other.clone() }
    }
}

impl Provenance {
    /// That of a file which is being made.
    pub(super) fn new(request: Request, commit: &str, tokenizer_sha256: Option<String>) -> Self {
        Self {
            request,
            commit: commit.into(),
            tokenizer_sha256,
            recipe: String::new(),
            files: Vec::new(),
            documents: 0,
            sequences: 0,
            tokens: 0,
            dropped: 0,
            lnfree: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// That of a token file; none if there is no JSON of ours beside it.
    pub fn of(token_file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(beside(token_file)).ok()?).ok()
    }

    /// The file's place in the cache: its name carries a hash of all that decides its content.
    pub(super) fn path(&self) -> Result<PathBuf> {
        let Request { dataset, source, split, max_sequences, block_size, scheme, .. } = &self.request;
        let decides =
            (dataset, source, split, max_sequences, block_size, scheme, &self.commit, &self.tokenizer_sha256);
        let key = hex(&Sha256::digest(serde_json::to_vec(&decides).map_err(Error::invalid)?));
        let name = dataset.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "--");
        Ok(tokens_dir()?.join(format!("{name}-{block_size}-{}.arrow", &key[..16])))
    }

    /// Writes the JSON beside the finished token file.
    pub(super) fn write(&mut self, token_file: &Path, made: Prepared) -> Result<()> {
        (self.documents, self.sequences) = (made.documents, made.sequences);
        (self.tokens, self.dropped) = (made.tokens, made.dropped);
        let mut text = serde_json::to_vec_pretty(self).map_err(Error::invalid)?;
        text.push(b'\n');
        atomic::write_bytes(&beside(token_file), &text)
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let split = self.request.split.as_ref().map_or(String::new(), |split| format!(", {split} split"));
        writeln!(f, "data set     {}{split}", self.request.dataset)?;
        writeln!(f, "source       {}", self.request.source)?;
        writeln!(f, "commit       {}", self.commit)?;
        writeln!(f, "recipe       {}", self.recipe)?;
        if let Some(n) = self.request.max_sequences {
            writeln!(f, "n            {n}")?;
        }
        match &self.tokenizer_sha256 {
            Some(sha256) => writeln!(f, "tokenizer    {} ({sha256})", self.request.tokenizer)?,
            None => writeln!(f, "tokenizer    none, the source has token ids")?,
        }
        write!(f, "made of      {} documents, {} tokens left over", self.documents, self.dropped)
    }
}

/// Copies a prepared token file, and the JSON beside it, to another place.
///
/// # Errors
/// If it cannot be read, or the place cannot be written; what was there before is untouched then.
pub fn copy_prepared(token_file: &Path, out: &Path) -> Result<()> {
    check_beside(out)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut source = File::open(token_file).map_err(Error::io(token_file))?;
    if let Ok(json) = fs::read(beside(token_file)) {
        atomic::write_bytes(&beside(out), &json)?;
    }
    atomic::write_atomic(out, |copy| std::io::copy(&mut source, copy).map(drop).map_err(Error::io(out)))
}

/// # Errors
/// If the JSON beside the token file `out` would take the place of a file that is not ours.
pub(super) fn check_beside(out: &Path) -> Result<()> {
    let json = beside(out);
    match json.exists() && Provenance::of(out).is_none() {
        true => Err(Error::file(
            json,
            format!(
                "describes no token file, and would be replaced by what describes {}: choose another place",
                out.display()
            ),
        )),
        false => Ok(()),
    }
}

/// The JSON beside a token file.
pub(super) fn beside(token_file: &Path) -> PathBuf {
    token_file.with_extension("json")
}

/// How the tokenizer of a prepared file is known. A file of ids that others made has none, and fits always.
#[derive(Debug, Clone, Copy)]
pub(super) enum MadeWith<'a> {
    Any,
    /// The name in the request.
    Name,
    /// SHA-256 of its files.
    Content(&'a str),
}

/// A prepared file for a request that still opens, the newest if there are several; of the commit, if one is
/// given.
pub(super) fn find(
    request: &Request,
    commit: Option<&str>,
    tokenizer: MadeWith,
) -> Option<(PathBuf, TokenFile)> {
    let fits = |found: &Provenance| {
        let tokenizer = match (&found.tokenizer_sha256, tokenizer) {
            (None, _) | (_, MadeWith::Any) => true,
            (Some(_), MadeWith::Name) => found.request.tokenizer == request.tokenizer,
            (Some(sha256), MadeWith::Content(wanted)) => sha256 == wanted,
        };
        tokenizer
            && found.request.same_but_tokenizer(request)
            && commit.is_none_or(|commit| commit == found.commit)
    };
    let entries = fs::read_dir(tokens_dir().ok()?).ok()?;
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "arrow"))
        .filter(|path| Provenance::of(path).as_ref().is_some_and(fits))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    found.into_iter().rev().find_map(|(_, path)| TokenFile::open(&path).ok().map(|file| (path, file)))
}

/// Waits until no other process prepares this data set; the lock ends with the value or with the process.
pub(super) fn lock(dataset: &str) -> Result<File> {
    let name = dataset.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "--");
    let path = tokens_dir()?.join(format!(".{name}.lock"));
    let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
    let mut told = false;
    while !atomic::lock(&file) {
        // Some network file systems lock nothing: better unlocked than not at all.
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock {
            break;
        }
        if !std::mem::replace(&mut told, true) {
            say(&format!("{dataset}: waiting for another process that prepares it"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(file)
}

/// The folder of prepared token files, made if it is missing.
fn tokens_dir() -> Result<PathBuf> {
    let folder = cache_dir()?.join("tokens");
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    Ok(folder)
}

/// [`cache_folder`], which has to be known.
pub(super) fn cache_dir() -> Result<PathBuf> {
    cache_folder().ok_or_else(|| Error::invalid("no cache folder: neither XDG_CACHE_HOME nor HOME is set"))
}
