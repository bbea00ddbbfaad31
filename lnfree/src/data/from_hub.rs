//! From a repository of the hub to a token file: found in the cache, or made.

use std::path::PathBuf;

use super::names::{DatasetOptions, GPT2, Split};
use super::openwebtext::{training, validation};
use super::prepare::cut_into;
use super::prepared::{MadeWith, Provenance, Request, cache_dir, find, lock};
use super::progress::{Progress, Unit};
use super::recipes::{Order, Recipe, documents};
use super::rows::Document;
use super::scheme::{ChunkScheme, Cut, Source};
use super::{TokenFile, Tokenizer};
use crate::base::console::say;
use crate::hub::{self, DatasetRepo};
use crate::{Error, Result};

/// The bound of ids that others made, where no tokenizer can be asked: all that a token file can hold.
const ANY_VOCAB: usize = i32::MAX as usize;

/// The token file of a data set on the hub; `name` is what was asked for.
///
/// # Errors
/// If it was not prepared before and cannot be now.
pub(super) fn from_hub(
    name: &str,
    recipe: &Recipe,
    options: &DatasetOptions,
) -> Result<(PathBuf, TokenFile)> {
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
            say(&format!("{name}: using what was prepared before, {} ({error})", found.0.display()));
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
    /// The file, if it has been made of this commit and with this tokenizer, whose files may have changed
    /// under its name.
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
        let counts = cut_into(&out, source, tokenizer.as_ref(), cut, |n, _| progress.set(n as u64))?;
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
