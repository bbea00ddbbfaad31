//! From text to token files.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::chunker::Chunker;
use super::parts::holds_ids;
use super::progress::{Progress, Unit};
use super::rows::Document;
use super::text::{Meter, size_of, streamed};
use super::write::{Layout, write_tokens};
use super::{TokenFile, Tokenizer};
use crate::{Error, Result};

/// How documents, each followed by end-of-text, are put together before they are cut into sequences.
///
/// What is left at the end of each batch is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkScheme {
    /// Contiguous shards of nearly equal counts of documents, as `datasets` splits its work among processes; a batch
    /// never goes beyond its shard.
    pub shards: usize,
    /// Documents put together at a time; none for the whole shard.
    pub documents_per_batch: Option<usize>,
}

impl ChunkScheme {
    /// The peer's for OpenWebText: batches of 512 documents of 32 shards.
    pub const PEER: Self = Self { shards: 32, documents_per_batch: Some(512) };

    /// The documents of a shard, of `n_documents` in all: the first `n_documents % shards` shards have one more than the
    /// others.
    pub fn shard(&self, index: usize, n_documents: usize) -> Range<usize> {
        let (size, larger) = (n_documents / self.shards, n_documents % self.shards);
        let start = |index: usize| index * size + index.min(larger);
        start(index)..start(index + 1)
    }

    /// Whether a batch starts at a document, of `n_documents` in all.
    pub(super) fn starts_batch(&self, document: usize, n_documents: usize) -> bool {
        let offset = match self.shards {
            1 => document,
            shards => {
                let (size, larger) = (n_documents / shards, n_documents % shards);
                let in_larger = larger * (size + 1);
                let shard = match document < in_larger {
                    true => document / (size + 1),
                    false => larger + (document - in_larger) / size.max(1),
                };
                document - self.shard(shard, n_documents).start
            }
        };
        self.documents_per_batch.map_or(offset == 0, |batch| offset.is_multiple_of(batch))
    }
}

impl Default for ChunkScheme {
    /// All documents as one stream.
    fn default() -> Self {
        Self { shards: 1, documents_per_batch: None }
    }
}

/// What [`prepare`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Documents read.
    pub documents: usize,
    /// Sequences written.
    pub sequences: usize,
    /// Tokens written, end-of-text included.
    pub tokens: u64,
    /// Tokens dropped because they did not fill a sequence.
    pub dropped: u64,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { documents, sequences, tokens, dropped } = self;
        write!(f, "{documents} documents, {sequences} sequences, {tokens} tokens ({dropped} left over)")
    }
}

/// Tokenizes the documents of `text` (see [`super::text::documents`]) into a token file of sequences of
/// `block_size` tokens.
///
/// Every document is followed by end-of-text; sequences run on from one document into the next. Long
/// documents are encoded in pieces, so that memory does not grow with them. A token file is cut anew, its
/// rows as they are.
///
/// # Errors
/// If the text cannot be read, has no tokens to fill one sequence, or `out` cannot be written; `out` is then as it
/// was before.
pub fn prepare(
    text: &Path,
    tokenizer: &Tokenizer,
    block_size: usize,
    out: &Path,
    scheme: ChunkScheme,
) -> Result<Prepared> {
    if holds_ids(text) {
        return prepare_ids(text, tokenizer, block_size, out, scheme);
    }
    let n_documents = match scheme.shards {
        1 => 0,
        _ => streamed(text, &Meter::default())?
            .try_fold(0, |n, part| part.map(|part| n + usize::from(!matches!(part, Document::Part(_)))))?,
    };
    let meter = Meter::default();
    let documents = Box::new(streamed(text, &meter)?);
    let source = Source { origin: text, documents, n_documents };
    let cut = Cut { block_size, scheme, max_sequences: None, vocab_size: tokenizer.vocab_size() };
    let size = size_of(text);
    let mut progress = match size {
        Some(size) => Progress::new(name_of(text), Unit::Bytes, Some(size)),
        None => Progress::new(name_of(text), Unit::Sequences, None),
    };
    let done = |made: usize, waiting: u64| match size {
        Some(_) => meter.read().saturating_sub(waiting),
        None => made as u64,
    };
    cut_into(out, source, Some(tokenizer), cut, |made, waiting| progress.set(done(made, waiting)))
}

/// Sequences of another length out of a token file's, which run on from one into the next as they are.
fn prepare_ids(
    tokens: &Path,
    tokenizer: &Tokenizer,
    block_size: usize,
    out: &Path,
    scheme: ChunkScheme,
) -> Result<Prepared> {
    let file = TokenFile::open(tokens)?;
    file.check_vocab(tokenizer.vocab_size())?;
    let n_documents = file.n_sequences();
    let documents = (0..n_documents).map(|i| {
        Ok(Document::Ids(file.row(i)?.into_iter().filter_map(|id| u32::try_from(id).ok()).collect()))
    });
    let source = Source { origin: tokens, documents: Box::new(documents), n_documents };
    let cut = Cut { block_size, scheme, max_sequences: None, vocab_size: tokenizer.vocab_size() };
    let mut progress = Progress::new(name_of(tokens), Unit::Sequences, None);
    cut_into(out, source, None, cut, |made, _| progress.set(made as u64))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Documents to be cut.
pub(super) struct Source<'a> {
    /// What messages call them.
    pub origin: &'a Path,
    pub documents: Box<dyn Iterator<Item = Result<Document>> + 'a>,
    /// Needed only where there are several shards.
    pub n_documents: usize,
}

impl Source<'_> {
    /// An error of the tokenizer, which does not know where its text is from.
    pub(super) fn named(&self, error: Error) -> Error {
        match error {
            Error::Invalid(message) => Error::file(self.origin, message),
            other => other,
        }
    }
}

/// How documents are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub block_size: usize,
    pub scheme: ChunkScheme,
    /// Sequences after which no more documents are read.
    pub max_sequences: Option<usize>,
    pub vocab_size: usize,
}

/// Cuts documents into the sequences of the token file `out`; `progress` hears how many there are, and how
/// many bytes of text wait. Only text needs a tokenizer.
///
/// # Errors
/// As [`prepare`].
pub(super) fn cut_into(
    out: &Path,
    source: Source<'_>,
    tokenizer: Option<&Tokenizer>,
    cut: Cut,
    mut progress: impl FnMut(usize, u64),
) -> Result<Prepared> {
    let Cut { block_size, scheme, vocab_size, .. } = cut;
    if block_size == 0 || scheme.shards == 0 || scheme.documents_per_batch == Some(0) {
        return Err(Error::invalid("block size, shards and documents per batch have to be at least 1"));
    }
    let mut chunker = Chunker::new(source, tokenizer, cut);
    let rows = std::iter::from_fn(|| {
        let row = chunker.next_row();
        progress(chunker.made(), chunker.pending() as u64);
        row.transpose()
    });
    let written = write_tokens(out, rows, Layout::Fixed(block_size), vocab_size)?;
    let (documents, dropped) = chunker.counts();
    Ok(Prepared { documents, sequences: written.sequences, tokens: written.tokens, dropped })
}
