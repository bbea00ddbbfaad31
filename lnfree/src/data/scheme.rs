//! What is cut into sequences, and how.

use std::ops::Range;
use std::path::Path;

use super::rows::Document;
use crate::{Error, Result};

/// How documents, each followed by end-of-text, are put together before they are cut into sequences.
///
/// What is left at the end of each batch is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkScheme {
    /// Contiguous shards of nearly equal counts of documents, as `datasets` splits its work among processes;
    /// a batch never goes beyond its shard.
    pub shards: usize,
    /// Documents put together at a time; none for the whole shard.
    pub documents_per_batch: Option<usize>,
}

impl ChunkScheme {
    /// The peer's for OpenWebText: batches of 512 documents of 32 shards.
    pub const PEER: Self = Self { shards: 32, documents_per_batch: Some(512) };

    /// The documents of a shard, of `n_documents` in all: the first `n_documents % shards` shards have one
    /// more than the others.
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
