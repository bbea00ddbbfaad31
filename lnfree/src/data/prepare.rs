//! From text to token files.

use std::fmt;
use std::path::Path;

use super::chunker::Chunker;
use super::parts::holds_ids;
use super::progress::{Progress, Unit};
use super::rows::Document;
use super::scheme::{ChunkScheme, Cut, Source};
use super::text::{Meter, size_of, streamed};
use super::write::{Layout, write_tokens};
use super::{TokenFile, Tokenizer};
use crate::{Error, Result};

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
/// If the text cannot be read, has no tokens to fill one sequence, or `out` cannot be written; `out` is then
/// as it was before.
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
