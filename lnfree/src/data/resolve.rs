//! From the name of a data set to a token file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::openwebtext::{training, validation};
use super::prepare::{ChunkScheme, Cut, Source, cut_into, prepare};
use super::prepared::{MadeWith, Provenance, Request, cache_dir, find, lock};
use super::progress::{Progress, Unit};
use super::recipes::{Order, Recipe, documents, recipe};
use super::rows::Document;
use super::{TokenFile, Tokenizer, hex, text};
use crate::atomic::digest_file;
use crate::hub::{self, DatasetRepo};
use crate::{Error, Result};

/// The data sets that come with the repository, and their texts.
const EMBEDDED: [(&str, &str); 3] = [
    ("nano-train", "sotu-train.parquet"),
    ("nano-owt", "sotu-val.parquet"),
    ("nano-pile", "moby-dick.parquet"),
];
/// The names of data sets on the Hugging Face hub: the peer's, and one for each part of OpenWebText.
const HUB: [&str; 7] = [
    "openwebtext",
    "openwebtext-val",
    "openwebtext-train",
    "pile-apollo",
    "pile-apollo-luca",
    "pile-10k",
    "pile-uncopyrighted",
];
/// The folder of the embedded tokenizer, whose presence tells the data folder.
const TOKENIZER: &str = "nano";
/// The tokenizer of data sets on the hub.
const GPT2: &str = "gpt2";
/// The bound of ids that others made, where no tokenizer can be asked: all that a token file can hold.
const ANY_VOCAB: usize = i32::MAX as usize;

/// Which part of a data set that has several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Split {
    /// What is trained on.
    Train,
    /// What is evaluated on; the peer's `-d openwebtext`.
    #[default]
    Validation,
}

/// How a data set is prepared where that is not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetOptions {
    /// Tokens in a sequence.
    pub block_size: usize,
    /// Sequences at most, of data sets on the hub; of the Pile's also the rows that are read, the peer's `num_samples`. The
    /// validation split of OpenWebText is always whole.
    pub max_sequences: usize,
    /// Tokenizer for text, a folder or a name on the hub; `gpt2` where there is none. Embedded data sets have their own, token
    /// data sets need none.
    pub tokenizer: Option<String>,
    /// What `openwebtext` stands for; `openwebtext-val` and `openwebtext-train` say it themselves.
    pub split: Split,
}

impl DatasetOptions {
    /// For evaluation as the peer does it: sequences of `block_size` tokens, 10,000 at most, GPT-2's tokenizer.
    pub fn new(block_size: usize) -> Self {
        Self { block_size, max_sequences: 10_000, tokenizer: None, split: Split::default() }
    }
}

/// [`resolve_with`], for evaluation.
///
/// # Errors
/// As [`resolve_with`].
pub fn resolve(name_or_path: &str, block_size: usize) -> Result<PathBuf> {
    resolve_with(name_or_path, &DatasetOptions::new(block_size))
}

/// The token file of a data set or path.
///
/// - A token file, or a folder of them, is taken as it is; a text file (see [`text::documents`]) is tokenized.
/// - `nano-train`, `nano-owt` and `nano-pile` are the texts in the repository's `data/`.
/// - `openwebtext`, `openwebtext-val`, `openwebtext-train`, `pile-apollo`, `pile-apollo-luca`, `pile-10k`,
///   `pile-uncopyrighted` and every `ORG/NAME` come from the Hugging Face hub.
///
/// What is made is kept in `$XDG_CACHE_HOME/lnfree/tokens` (`~/.cache` without that variable), with a JSON file
/// beside it that says what it stands for ([`Provenance`]), and found there later without a network.
///
/// # Errors
/// If it is neither a path nor a name; if the hub, the data set or its tokenizer is out of reach, or has not what is needed; if
/// there are too few tokens for one sequence; if the cache cannot be written.
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
    if let Some((_, text)) = EMBEDDED.iter().find(|(embedded, _)| *embedded == name) {
        let data = data_dir()?;
        let tokenizer = data.join(TOKENIZER);
        return local_text(name, &data.join(text), &tokenizer.to_string_lossy(), options.block_size);
    }
    let path = Path::new(name);
    if path.exists() {
        return match TokenFile::open(path) {
            Ok(file) => Ok((path.into(), file)),
            Err(_) if is_text(path) => {
                let path = std::path::absolute(path).map_err(Error::io(path))?;
                let name = path.file_name().map_or("text".into(), |name| name.to_string_lossy());
                local_text(&name, &path, options.tokenizer.as_deref().unwrap_or(GPT2), options.block_size)
            }
            Err(error) => Err(error),
        };
    }
    match recipe(name) {
        Some(recipe) => from_hub(name, &recipe, options),
        None => Err(Error::invalid(format!(
            "{name}: no such file, and no such data set; the data sets are {}, {} and ORG/NAME on the hub",
            EMBEDDED.map(|(name, _)| name).join(", "),
            HUB.join(", ")
        ))),
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

fn is_text(path: &Path) -> bool {
    text::documents(path).is_ok_and(|mut documents| documents.next().is_some_and(|first| first.is_ok()))
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
    let mut made = Provenance::new(request.clone(), &content, Some(fingerprint.clone()));
    made.recipe = "all documents as one stream".into();
    let out = made.path()?;
    let counts = prepare(text, &tokenizer, block_size, &out, ChunkScheme::default())?;
    made.write(&out, counts)?;
    let file = TokenFile::open(&out)?;
    Ok((out, file))
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

fn from_hub(name: &str, recipe: &Recipe, options: &DatasetOptions) -> Result<(PathBuf, TokenFile)> {
    let split = match name {
        "openwebtext-val" => Split::Validation,
        "openwebtext-train" => Split::Train,
        _ => options.split,
    };
    let tokenizer = options.tokenizer.as_deref().unwrap_or(GPT2);
    let mut request = Request::new(&recipe.name, &recipe.repository, options.block_size, tokenizer);
    let whole = recipe.order == Order::OpenWebText && split == Split::Validation;
    request.max_sequences = (!whole).then_some(options.max_sequences);
    if recipe.order == Order::OpenWebText {
        request.split = Some(if whole { "validation" } else { "train" }.into());
    }
    // Prepared once, it needs neither the hub nor the tokenizer.
    from_hub_now(recipe, &request).or_else(|error| match find(&request, None, MadeWith::Name) {
        Some(found) => {
            eprintln!("{name}: using what was prepared before, {} ({error})", found.0.display());
            Ok(found)
        }
        None => Err(error),
    })
}

fn from_hub_now(recipe: &Recipe, request: &Request) -> Result<(PathBuf, TokenFile)> {
    let repo = hub::dataset(&recipe.repository)?;
    let mut maker = Maker { recipe, request, repo, tokenizer: None };
    if let Some(found) = maker.ready()? {
        return Ok(found);
    }
    let _turn = lock(&recipe.name)?;
    match maker.ready()? {
        Some(found) => Ok(found),
        None => maker.make(),
    }
}

/// What a token file of a repository is made with.
struct Maker<'a> {
    recipe: &'a Recipe,
    request: &'a Request,
    repo: DatasetRepo,
    /// Loaded when there turns out to be text.
    tokenizer: Option<Tokenizer>,
}

impl Maker<'_> {
    /// The file, if it has been made of this commit and with this tokenizer, whose files may have changed under its name.
    fn ready(&mut self) -> Result<Option<(PathBuf, TokenFile)>> {
        let commit = self.repo.commit().to_string();
        let request = self.request;
        let Some(found) = find(request, Some(&commit), MadeWith::Any) else { return Ok(None) };
        if Provenance::of(&found.0).is_some_and(|made| made.tokenizer_sha256.is_none()) {
            return Ok(Some(found));
        }
        let fingerprint = self.tokenizer()?.fingerprint();
        Ok(find(request, Some(&commit), MadeWith::Content(&fingerprint)))
    }

    fn tokenizer(&mut self) -> Result<&Tokenizer> {
        if self.tokenizer.is_none() {
            let folder = hub::locate_tokenizer(&self.request.tokenizer)?;
            self.tokenizer = Some(Tokenizer::from_dir(folder)?);
        }
        self.tokenizer.as_ref().ok_or_else(|| Error::invalid("no tokenizer"))
    }

    fn make(mut self) -> Result<(PathBuf, TokenFile)> {
        let Request { block_size, max_sequences, .. } = *self.request;
        let Chosen { documents, files, scheme, n_documents } = self.choose()?;
        let mut documents = documents.peekable();
        let is_text = matches!(documents.peek(), Some(Ok(Document::Text(_))));
        if is_text {
            self.tokenizer()?;
        }
        let tokenizer = self.tokenizer.take().filter(|_| is_text);
        let fingerprint = tokenizer.as_ref().map(Tokenizer::fingerprint);
        let mut made = Provenance::new(self.request.clone(), self.repo.commit(), fingerprint);
        (made.recipe, made.files) = (self.recipe.says().into(), files);
        let out = made.path()?;
        let vocab_size = tokenizer.as_ref().map_or(ANY_VOCAB, Tokenizer::vocab_size);
        let cut = Cut { block_size, scheme, max_sequences, vocab_size };
        let origin = PathBuf::from(self.repo.id());
        let source = Source { origin: &origin, documents: Box::new(documents), n_documents };
        let total = max_sequences.map(|n| n as u64);
        let mut progress = Progress::new(self.recipe.name.clone(), Unit::Sequences, total);
        let counts = cut_into(&out, source, tokenizer.as_ref(), cut, |n| progress.set(n as u64))?;
        made.write(&out, counts)?;
        let file = TokenFile::open(&out)?;
        Ok((out, file))
    }

    fn choose(&self) -> Result<Chosen> {
        let Self { recipe, request, repo, .. } = self;
        let chosen =
            |documents, files| Chosen { documents, files, scheme: ChunkScheme::default(), n_documents: 0 };
        match (recipe.order, request.max_sequences) {
            (Order::OpenWebText, None) => {
                let folder = cache_dir()?.join("openwebtext").join(repo.commit());
                let (texts, files) = validation(repo, &folder)?;
                let (n_documents, scheme) = (texts.len(), ChunkScheme::PEER);
                let documents = Box::new(texts.into_iter().map(|text| Ok(Document::Text(text))));
                Ok(Chosen { documents, files, scheme, n_documents })
            }
            (Order::OpenWebText, Some(_)) => {
                let (documents, files) = training(repo)?;
                Ok(chosen(Box::new(documents), files))
            }
            (order, n) => {
                let (documents, files) = documents(repo, order, n.unwrap_or(usize::MAX))?;
                Ok(chosen(Box::new(documents), files))
            }
        }
    }
}

/// The documents that a token file is made of.
struct Chosen {
    documents: Box<dyn Iterator<Item = Result<Document>>>,
    /// The source files that they are from.
    files: Vec<String>,
    scheme: ChunkScheme,
    /// Where the scheme has several shards.
    n_documents: usize,
}
