//! Long texts in pieces: the same ids, in memory that does not grow with the text.

use super::Tokenizer;
use super::cut::Cutter;
use crate::{Error, Result};

/// Bytes of a piece, about.
const PIECE: usize = 1 << 16;
/// Texts up to this size are not cut.
pub(super) const WHOLE: usize = 2 * PIECE;
/// The longest text that is encoded in one go, where it cannot be cut: takes about 1 GB.
const LIMIT: usize = 8 << 20;
/// Pieces that are encoded at a time.
const AT_A_TIME: usize = 16;

/// A text that comes in parts and leaves in pieces.
#[derive(Debug)]
pub(in super::super) struct Pieces<'t> {
    cutter: Option<&'t Cutter>,
    size: usize,
    text: String,
    /// What is before has been handed out.
    start: usize,
}

impl<'t> Pieces<'t> {
    pub(in super::super) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { cutter: tokenizer.cutter.as_ref(), size: PIECE, text: String::new(), start: 0 }
    }

    /// The text goes on with `more`.
    pub(in super::super) fn push(&mut self, more: String) {
        if self.start == self.text.len() {
            (self.text, self.start) = (more, 0);
            return;
        }
        self.text.drain(..self.start);
        self.start = 0;
        self.text.push_str(&more);
    }

    /// Bytes that have come and not left.
    pub(in super::super) fn pending(&self) -> usize {
        self.text.len() - self.start
    }

    /// The next piece, or none where more has to come first; once the text has `ended`, none is the end.
    ///
    /// # Errors
    /// If the text cannot be cut, and is too long to be encoded whole.
    pub(in super::super) fn next(&mut self, ended: bool) -> Result<Option<String>> {
        let rest = &self.text[self.start..];
        let (mut after, mut target) = (0, self.size);
        while let Some(cutter) = self.cutter
            && rest.len() >= target + cutter.margin()
            && target <= LIMIT
        {
            if let Some(at) = cutter.last_cut(rest, after, target) {
                let piece = rest[..at].to_string();
                self.start += at;
                return Ok(Some(piece));
            }
            (after, target) = (target, 2 * target);
        }
        if rest.len() > LIMIT {
            return Err(Error::invalid(match self.cutter {
                Some(_) => {
                    format!("a text has {} MiB in which GPT-2's pre-tokenizer may not cut", LIMIT >> 20)
                }
                None => format!(
                    "a text is above {} MiB, and its tokenizer's pre-tokenizer or normalizer is not GPT-2's, \
                    so that it cannot be \
                     encoded in pieces; split it into documents",
                    LIMIT >> 20
                ),
            }));
        }
        if !ended || rest.is_empty() {
            return Ok(None);
        }
        let piece = rest.to_string();
        self.start = self.text.len();
        Ok(Some(piece))
    }
}

/// The ids of texts, pieces of which are encoded on all cores.
pub(super) fn encode_all<'a>(
    tokenizer: &Tokenizer,
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Vec<u32>>> {
    let mut all: Vec<Vec<u32>> = Vec::new();
    let (mut waiting, mut bytes) = (Vec::new(), 0);
    let (before, after) = tokenizer.around();
    for text in texts {
        all.push(before.to_vec());
        let mut pieces = Pieces::new(tokenizer);
        pieces.push(text.to_string());
        while let Some(piece) = pieces.next(true)? {
            bytes += piece.len();
            waiting.push((all.len() - 1, piece));
            if bytes >= batch_bytes() {
                encode_waiting(tokenizer, &mut waiting, &mut all)?;
                bytes = 0;
            }
        }
    }
    encode_waiting(tokenizer, &mut waiting, &mut all)?;
    all.iter_mut().for_each(|ids| ids.extend(after));
    Ok(all)
}

/// Appends the ids of each piece to those of its text.
fn encode_waiting(
    tokenizer: &Tokenizer,
    waiting: &mut Vec<(usize, String)>,
    all: &mut [Vec<u32>],
) -> Result<()> {
    let (texts, pieces): (Vec<usize>, Vec<String>) = waiting.drain(..).unzip();
    for (text, ids) in texts.into_iter().zip(tokenizer.encode_pieces(&pieces)?) {
        all[text].extend(ids);
    }
    Ok(())
}

/// Bytes of text that are encoded at a time: enough for all cores, and about 130 times as much memory.
pub(in super::super) fn batch_bytes() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    PIECE * AT_A_TIME.max(2 * cores)
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
