//! Where a text can be cut so that its pieces have the same ids as the whole.
//!
//! GPT-2's pre-tokenizer goes from left to right, and what it takes next depends on nothing before:
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! No alternative goes from a character that is not white to a white one, so that it always cuts there; nor
//! from one class (letters, numbers, others) to another, apostrophes aside. Its only look ahead is from white
//! space. So a piece that ends in a character that is not white, before a white one or one of another class,
//! is taken apart as within the whole.
//!
//! Added tokens are found before that. A cut leaves them alone where none begins, ends or runs across: those
//! that strip white space or look at their neighbours see as much as before.

use std::cell::RefCell;
use std::collections::HashMap;

use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as HfTokenizer};

/// Knows where the texts of one tokenizer can be cut.
#[derive(Debug, Clone)]
pub(super) struct Cutter {
    /// The texts of added tokens.
    added: Vec<String>,
    /// The longest of them.
    longest: usize,
    /// Where texts get a space in front, so would pieces that do not begin with one.
    prefix_space: bool,
    level: PreTokenizerWrapper,
}

impl Cutter {
    /// That of a tokenizer with GPT-2's pre-tokenizer and no normalizer; none for others.
    pub(super) fn of(inner: &HfTokenizer) -> Option<Self> {
        let level = inner.get_pre_tokenizer()?.clone();
        let prefix_space = match &level {
            PreTokenizerWrapper::ByteLevel(level) if level.use_regex => level.add_prefix_space,
            _ => return None,
        };
        let ModelWrapper::BPE(model) = inner.get_model() else { return None };
        if inner.get_normalizer().is_some() || model.dropout.is_some() {
            return None;
        }
        let tokens = inner.get_added_tokens_decoder();
        let added: Vec<String> = tokens.values().map(|token| token.content.clone()).collect();
        let longest = added.iter().map(String::len).max().unwrap_or(0);
        Some(Self { added, longest, prefix_space, level })
    }

    /// Bytes that have to be known behind a cut, unless the text ends there.
    pub(super) fn margin(&self) -> usize {
        self.longest + char::MAX.len_utf8()
    }

    /// The last place behind `after` and up to `target` where `text` can be cut. The text goes on for
    /// [`Cutter::margin`] after `target`, or ends there.
    pub(super) fn last_cut(&self, text: &str, after: usize, target: usize) -> Option<usize> {
        let white = |next: char| if self.prefix_space { next == ' ' } else { next.is_whitespace() };
        // White space is the cheaper look, and nearly always there.
        let found = self.search(text, after, target, |_, next| white(next));
        if found.is_some() || self.prefix_space {
            return found;
        }
        let known = RefCell::new(HashMap::new());
        self.search(text, after, target, |last, next| {
            *known.borrow_mut().entry((last, next)).or_insert_with(|| self.differ(last, next))
        })
    }

    fn search(
        &self,
        text: &str,
        after: usize,
        target: usize,
        cuts: impl Fn(char, char) -> bool,
    ) -> Option<usize> {
        let mut at = target.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let mut next = text[at..].chars().next()?;
        for (start, last) in text[..at].char_indices().rev() {
            if at <= after {
                return None;
            }
            if !last.is_whitespace() && cuts(last, next) && !self.touches_added(text, at) {
                return Some(at);
            }
            (at, next) = (start, last);
        }
        None
    }

    /// Whether characters that are not white are of different classes: then they are two pre-tokens.
    fn differ(&self, last: char, next: char) -> bool {
        if last == '\'' || next.is_whitespace() {
            return false;
        }
        let mut pair = PreTokenizedString::from(format!("{last}{next}"));
        let taken = self.level.pre_tokenize(&mut pair);
        taken.is_ok() && pair.get_splits(OffsetReferential::Original, OffsetType::Byte).len() == 2
    }

    /// Whether an added token begins, ends or runs across `at`.
    fn touches_added(&self, text: &str, at: usize) -> bool {
        self.added.iter().any(|token| {
            let around = &text.as_bytes()[at.saturating_sub(token.len())..(at + token.len()).min(text.len())];
            !token.is_empty() && around.windows(token.len()).any(|window| window == token.as_bytes())
        })
    }
}
