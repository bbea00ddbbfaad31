//! From text to token files.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::Tokenizer;
use super::rows::Document;
use super::text::documents;
use super::write::{Layout, write_tokens};
use crate::{Error, Result};

/// Documents that are tokenized at a time, on all cores.
const DOCUMENTS_AT_A_TIME: usize = 512;

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
    fn starts_batch(&self, document: usize, n_documents: usize) -> bool {
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

/// Tokenizes the documents of `text` (see [`documents`]) into a token file of sequences of `block_size` tokens.
///
/// Every document is followed by end-of-text; sequences run on from one document into the next.
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
    let n_documents = match scheme.shards {
        1 => 0,
        _ => documents(text)?.try_fold(0, |n, document| document.map(|_| n + 1))?,
    };
    let documents = documents(text)?.map(|text| text.map(Document::Text));
    let documents = Box::new(documents);
    let source = Source { origin: text, documents, n_documents };
    let cut = Cut { block_size, scheme, max_sequences: None, vocab_size: tokenizer.vocab_size() };
    cut_into(out, source, Some(tokenizer), cut, |_| {})
}

/// Documents to be cut.
pub(super) struct Source<'a> {
    /// What messages call them.
    pub origin: &'a Path,
    pub documents: Box<dyn Iterator<Item = Result<Document>> + 'a>,
    /// Needed only where there are several shards.
    pub n_documents: usize,
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

/// Cuts documents into the sequences of the token file `out`; `progress` hears how many there are. Only text needs a tokenizer.
///
/// # Errors
/// As [`prepare`].
pub(super) fn cut_into(
    out: &Path,
    source: Source<'_>,
    tokenizer: Option<&Tokenizer>,
    cut: Cut,
    mut progress: impl FnMut(usize),
) -> Result<Prepared> {
    let Cut { block_size, scheme, max_sequences, vocab_size } = cut;
    if block_size == 0 || scheme.shards == 0 || scheme.documents_per_batch == Some(0) {
        return Err(Error::invalid("block size, shards and documents per batch have to be at least 1"));
    }
    let mut chunker = Chunker {
        source,
        tokenizer,
        block_size,
        scheme,
        left: max_sequences.unwrap_or(usize::MAX),
        rest: Vec::new(),
        rows: VecDeque::new(),
        read: 0,
        dropped: 0,
        made: 0,
    };
    let rows = std::iter::from_fn(|| {
        let row = chunker.next_row();
        progress(chunker.made);
        row.transpose()
    });
    let written = write_tokens(out, rows, Layout::Fixed(block_size), vocab_size)?;
    let Chunker { read: documents, dropped, .. } = chunker;
    Ok(Prepared { documents, sequences: written.sequences, tokens: written.tokens, dropped })
}

/// Cuts a stream of documents into sequences.
struct Chunker<'a> {
    source: Source<'a>,
    tokenizer: Option<&'a Tokenizer>,
    block_size: usize,
    scheme: ChunkScheme,
    /// Sequences that are still to come at most.
    left: usize,
    /// Tokens of the batch that do not fill a sequence yet.
    rest: Vec<u32>,
    /// Sequences not handed out yet.
    rows: VecDeque<Vec<u32>>,
    /// Documents read.
    read: usize,
    /// Tokens dropped at ends of batches, and beyond the last sequence.
    dropped: u64,
    /// Sequences handed out.
    made: usize,
}

impl Chunker<'_> {
    fn next_row(&mut self) -> Result<Option<Vec<u32>>> {
        if self.left == 0 {
            self.drop_rest();
            self.dropped += (std::mem::take(&mut self.rows).len() * self.block_size) as u64;
            return Ok(None);
        }
        while self.rows.is_empty() {
            let next = self.source.documents.by_ref().take(DOCUMENTS_AT_A_TIME);
            let documents = next.collect::<Result<Vec<Document>>>()?;
            if documents.is_empty() {
                self.drop_rest();
                return if self.made > 0 { Ok(None) } else { Err(self.too_short()) };
            }
            for ids in self.ids(documents)? {
                self.add(&ids);
            }
        }
        self.left -= 1;
        self.made += 1;
        Ok(self.rows.pop_front())
    }

    /// The ids of documents, which are all text or all ids; end-of-text follows text.
    fn ids(&self, documents: Vec<Document>) -> Result<Vec<Vec<u32>>> {
        let (mut texts, mut all) = (Vec::new(), Vec::new());
        for document in documents {
            match document {
                Document::Text(text) => texts.push(text),
                Document::Ids(ids) => all.push(ids),
            }
        }
        if texts.is_empty() {
            return Ok(all);
        }
        let tokenizer = self.tokenizer.filter(|_| all.is_empty());
        let tokenizer = tokenizer.ok_or_else(|| Error::file(self.source.origin, "text where ids are due"))?;
        let mut all = tokenizer.encode_batch(&texts)?;
        all.iter_mut().for_each(|ids| ids.push(tokenizer.eot_id()));
        Ok(all)
    }

    fn add(&mut self, ids: &[u32]) {
        if self.scheme.starts_batch(self.read, self.source.n_documents) {
            self.drop_rest();
        }
        self.read += 1;
        self.rest.extend_from_slice(ids);
        let whole = self.rest.len() / self.block_size * self.block_size;
        self.rows.extend(self.rest[..whole].chunks_exact(self.block_size).map(<[u32]>::to_vec));
        self.rest.drain(..whole);
    }

    fn drop_rest(&mut self) {
        self.dropped += self.rest.len() as u64;
        self.rest.clear();
    }

    fn too_short(&self) -> Error {
        let (n, tokens, size) = (self.read, self.dropped, self.block_size);
        Error::file(
            self.source.origin,
            format!("{tokens} tokens in {n} documents do not fill one sequence of {size}"),
        )
    }
}
