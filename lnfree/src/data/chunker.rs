//! Documents become sequences: pieces of text are encoded on all cores, and what they give is cut.

use std::collections::VecDeque;

use super::Tokenizer;
use super::rows::Document;
use super::scheme::{ChunkScheme, Cut, Source};
use super::tokenizer::{Pieces, batch_bytes};
use crate::{Error, Result};

/// Documents that are tokenized at a time at most, on all cores.
const DOCUMENTS_AT_A_TIME: usize = 512;

/// Of the work that documents are.
enum Step {
    /// A text begins.
    Begin,
    /// Some of its text.
    Piece(String),
    /// It ends.
    End,
    /// A document that is tokenized already.
    Ids(Vec<u32>),
}

/// Cuts a stream of documents into sequences.
pub(super) struct Chunker<'a> {
    source: Source<'a>,
    tokenizer: Option<&'a Tokenizer>,
    /// The text that is being encoded.
    pieces: Option<Pieces<'a>>,
    /// Whether a text has begun, and whether all of it has been read.
    within: bool,
    ended: bool,
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

impl<'a> Chunker<'a> {
    pub(super) fn new(source: Source<'a>, tokenizer: Option<&'a Tokenizer>, cut: Cut) -> Self {
        Self {
            source,
            tokenizer,
            pieces: tokenizer.map(Pieces::new),
            within: false,
            ended: false,
            block_size: cut.block_size,
            scheme: cut.scheme,
            left: cut.max_sequences.unwrap_or(usize::MAX),
            rest: Vec::new(),
            rows: VecDeque::new(),
            read: 0,
            dropped: 0,
            made: 0,
        }
    }

    /// Sequences handed out.
    pub(super) fn made(&self) -> usize {
        self.made
    }

    /// Bytes of text that have been read and not encoded yet.
    pub(super) fn pending(&self) -> usize {
        self.pieces.as_ref().map_or(0, Pieces::pending)
    }

    /// Documents read, and tokens dropped.
    pub(super) fn counts(self) -> (usize, u64) {
        (self.read, self.dropped)
    }

    /// The next sequence; none at the end.
    ///
    /// # Errors
    /// If a document cannot be read or encoded, or there are too few tokens for one sequence.
    pub(super) fn next_row(&mut self) -> Result<Option<Vec<u32>>> {
        if self.left == 0 {
            self.drop_rest();
            self.dropped += (std::mem::take(&mut self.rows).len() * self.block_size) as u64;
            return Ok(None);
        }
        while self.rows.is_empty() {
            let steps = self.steps()?;
            if steps.is_empty() {
                self.drop_rest();
                return if self.made > 0 { Ok(None) } else { Err(self.too_short()) };
            }
            self.take(steps)?;
        }
        self.left -= 1;
        self.made += 1;
        Ok(self.rows.pop_front())
    }

    /// What comes next, so much that all cores have work; nothing at the end.
    fn steps(&mut self) -> Result<Vec<Step>> {
        let (mut steps, mut bytes, mut documents) = (Vec::new(), 0, 0);
        while bytes < batch_bytes() && documents < DOCUMENTS_AT_A_TIME {
            if let Some(pieces) = &mut self.pieces
                && let Some(piece) = pieces.next(self.ended).map_err(|e| self.source.named(e))?
            {
                bytes += piece.len();
                steps.push(Step::Piece(piece));
                continue;
            }
            if std::mem::take(&mut self.ended) {
                self.within = false;
                documents += 1;
                steps.push(Step::End);
            }
            let Some(document) = self.source.documents.next().transpose()? else { break };
            self.begin(document, &mut steps)?;
        }
        Ok(steps)
    }

    /// A document, or more of the text that has begun.
    fn begin(&mut self, document: Document, steps: &mut Vec<Step>) -> Result<()> {
        let unlike = |what: &str| Error::file(self.source.origin, what);
        let (text, ended) = match document {
            Document::Text(text) => (text, true),
            Document::Part(text) => (text, false),
            Document::Ids(_) if self.tokenizer.is_some() => return Err(unlike("ids where text is due")),
            Document::Ids(ids) => {
                steps.push(Step::Ids(ids));
                return Ok(());
            }
        };
        let pieces = self.pieces.as_mut().ok_or_else(|| unlike("text where ids are due"))?;
        pieces.push(text);
        self.ended = ended;
        if !std::mem::replace(&mut self.within, true) {
            steps.push(Step::Begin);
        }
        Ok(())
    }

    /// Encodes pieces, and puts all into sequences; end-of-text follows text.
    fn take(&mut self, mut steps: Vec<Step>) -> Result<()> {
        let texts: Vec<String> = steps
            .iter_mut()
            .filter_map(|step| match step {
                Step::Piece(text) => Some(std::mem::take(text)),
                _ => None,
            })
            .collect();
        let Some(tokenizer) = self.tokenizer else {
            for step in steps {
                if let Step::Ids(ids) = step {
                    self.next_document();
                    self.add(&ids);
                }
            }
            return Ok(());
        };
        let (before, after) = tokenizer.around();
        let mut encoded = tokenizer.encode_pieces(&texts).map_err(|e| self.source.named(e))?.into_iter();
        for step in steps {
            match step {
                Step::Begin => {
                    self.next_document();
                    self.add(before);
                }
                Step::Piece(_) => self.add(&encoded.next().unwrap_or_default()),
                Step::End => {
                    self.add(after);
                    self.add(&[tokenizer.eot_id()]);
                }
                Step::Ids(ids) => self.add(&ids),
            }
        }
        Ok(())
    }

    fn next_document(&mut self) {
        if self.scheme.starts_batch(self.read, self.source.n_documents) {
            self.drop_rest();
        }
        self.read += 1;
    }

    fn add(&mut self, ids: &[u32]) {
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
