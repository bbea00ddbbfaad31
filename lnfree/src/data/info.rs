//! What a token file holds.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{TokenFile, Tokenizer};
use crate::Result;

/// Tokens of the first sequence that [`Info`] shows as text.
const SAMPLE_TOKENS: usize = 64;

/// What a token file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The file or folder.
    pub path: PathBuf,
    /// Number of sequences.
    pub sequences: usize,
    /// Number of tokens.
    pub tokens: u64,
    /// Tokens in the shortest and in the longest sequence; the block size where they are equal.
    pub lengths: (usize, usize),
    /// The smallest and the largest id.
    pub ids: (i64, i64),
    /// Whether ids are read in place.
    pub mapped: bool,
    /// With a tokenizer: how often end-of-text occurs.
    pub end_of_texts: Option<u64>,
    /// With a tokenizer: how the first sequence begins.
    pub sample: Option<String>,
}

/// Reads a whole token file and tells what it holds; with its tokenizer, also as text.
///
/// # Errors
/// If it cannot be read, or holds ids that the tokenizer does not have.
pub fn info(path: &Path, tokenizer: Option<&Tokenizer>) -> Result<Info> {
    let file = TokenFile::open(path)?;
    if let Some(tokenizer) = tokenizer {
        file.check_vocab(tokenizer.vocab_size())?;
    }
    let eot_id = tokenizer.map(|tokenizer| i64::from(tokenizer.eot_id()));
    let mut info = Info {
        path: path.to_path_buf(),
        sequences: file.n_sequences(),
        tokens: file.n_tokens(),
        lengths: (usize::MAX, 0),
        ids: (i64::MAX, i64::MIN),
        mapped: file.is_mapped(),
        end_of_texts: eot_id.map(|_| 0),
        sample: None,
    };
    let mut row = Vec::new();
    for i in 0..file.n_sequences() {
        file.read(i, &mut row)?;
        info.lengths = (info.lengths.0.min(row.len()), info.lengths.1.max(row.len()));
        for id in &row {
            info.ids = (info.ids.0.min(*id), info.ids.1.max(*id));
        }
        if let Some(count) = &mut info.end_of_texts {
            *count += row.iter().filter(|id| Some(**id) == eot_id).count() as u64;
        }
    }
    if let Some(tokenizer) = tokenizer {
        let ids: Vec<u32> = file.row(0)?.iter().take(SAMPLE_TOKENS).map(|id| *id as u32).collect();
        info.sample = Some(tokenizer.decode(&ids)?);
    }
    Ok(info)
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let lengths = match self.lengths {
            (shortest, longest) if shortest == longest => format!("{longest} tokens each"),
            (shortest, longest) => format!("{shortest} to {longest} tokens"),
        };
        let mapped = if self.mapped { "memory-mapped" } else { "decoded or copied when read" };
        writeln!(f, "file         {}", self.path.display())?;
        writeln!(f, "sequences    {}, {lengths}", self.sequences)?;
        writeln!(f, "tokens       {}", self.tokens)?;
        writeln!(f, "ids          {} to {}", self.ids.0, self.ids.1)?;
        write!(f, "storage      {mapped}")?;
        if let Some(count) = self.end_of_texts {
            write!(f, "\nend-of-text  {count}")?;
        }
        if let Some(sample) = &self.sample {
            write!(f, "\nbegins with  {sample:?}")?;
        }
        Ok(())
    }
}
