//! Token files: sequences of token ids, read in place.
//!
//! A token file is an Arrow IPC file or stream, or a Parquet file, with a column `input_ids`: a list, large
//! list or fixed-size list of any integer type. A folder of such files is read as one set (see `folder.rs`).
//! Columns beside it that say which ids count (`attention_mask`, `labels`, …) are honoured where they leave
//! out ids at the ends of rows, else refused (`side_columns.rs`).

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::guarded;
use super::parts::{Chunk, Part, check, open_part, token_files};
use super::sequences::{BadId, Sequences};
use crate::{Error, Result};

/// Parquet files whose decoded ids take at most this many bytes are held in memory whole.
pub const PARQUET_BUDGET: usize = 1 << 30;
/// [`TokenFile::fingerprint`] hashes this many ids, or all if there are fewer.
const FINGERPRINT_TOKENS: u64 = 1 << 22;
/// In a larger set, they are taken in this many places.
const FINGERPRINT_PLACES: usize = 64;

/// A set of token sequences, opened for reading at random; all methods can be called from several threads.
///
/// Uncompressed Arrow files are memory-mapped and never copied, whatever their size; compressed ones are held
/// in memory. Parquet has to be decoded: up to [`PARQUET_BUDGET`] it is decoded once, beyond that by row
/// group with as many kept. Reading a larger Parquet file in shuffled order decodes the same row groups again
/// and again: write it as Arrow for training.
///
/// ```
/// # fn main() -> lnfree::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("tokens.arrow");
/// use lnfree::data::{Layout, TokenFile, write_tokens};
///
/// let rows = [vec![3, 1, 4], vec![1, 5, 9]];
/// write_tokens(&path, rows.into_iter().map(Ok), Layout::Fixed(3), 10)?;
/// let file = TokenFile::open(&path)?;
/// assert_eq!((file.n_sequences(), file.block_size()), (2, Some(3)));
/// assert_eq!(file.row(1)?, [1, 5, 9]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    parts: Vec<Part>,
    chunks: Vec<Chunk>,
    /// First sequence of each chunk, and the count of sequences as the last entry.
    starts: Vec<usize>,
    n_tokens: u64,
    block_size: Option<usize>,
}

impl TokenFile {
    /// Opens a token file, or all `.arrow` or `.parquet` files in a folder as one set, those that its
    /// `state.json` lists if it has one. Columns that say which ids count are read whole here.
    ///
    /// # Errors
    /// If the path is missing, empty, truncated or damaged, has no column `input_ids` of integer lists, or
    /// holds nulls or no tokens; if another column says of the ids what cannot be honoured. Ids are looked at
    /// later: see [`TokenFile::check_vocab`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with_budget(path, PARQUET_BUDGET)
    }

    /// [`TokenFile::open`] with another limit than [`PARQUET_BUDGET`], in bytes for each Parquet file.
    ///
    /// # Errors
    /// As [`TokenFile::open`].
    pub fn open_with_budget(path: impl AsRef<Path>, budget: usize) -> Result<Self> {
        let path = path.as_ref();
        let files = match std::fs::metadata(path).map_err(Error::io(path))?.is_dir() {
            true => token_files(path)?,
            false => vec![path.to_path_buf()],
        };
        let (mut parts, mut chunks) = (Vec::new(), Vec::new());
        for file in files {
            let index = parts.len();
            let part = guarded(&file, || open_part(&file, index, budget, &mut chunks))?;
            parts.push(part);
        }
        let mut starts = vec![0];
        for chunk in &chunks {
            starts.push(starts[starts.len() - 1] + chunk.rows);
        }
        let n_tokens = chunks.iter().map(|chunk| chunk.tokens).sum();
        if n_tokens == 0 {
            return Err(Error::file(path, "no tokens in it"));
        }
        let first = chunks.first().and_then(|chunk| chunk.uniform);
        let block_size = first.filter(|_| chunks.iter().all(|chunk| chunk.uniform == first));
        Ok(Self { path: path.to_path_buf(), parts, chunks, starts, n_tokens, block_size })
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of sequences.
    pub fn n_sequences(&self) -> usize {
        self.starts[self.chunks.len()]
    }

    /// Number of tokens in all sequences.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// The length of every sequence, if all are equally long.
    pub fn block_size(&self) -> Option<usize> {
        self.block_size
    }

    /// Whether all ids are read from memory maps, with nothing decoded or copied at opening.
    pub fn is_mapped(&self) -> bool {
        self.parts.iter().all(|part| part.mapped)
    }

    /// Number of tokens in sequence `i`.
    ///
    /// # Errors
    /// If there is no such sequence, or it cannot be decoded.
    pub fn sequence_len(&self, i: usize) -> Result<usize> {
        let (chunk, row) = self.find(i)?;
        match chunk.uniform {
            Some(length) => Ok(length),
            None => Ok(self.load(chunk)?.range(row).len()),
        }
    }

    /// Replaces the content of `out` by the ids of sequence `i`.
    ///
    /// # Errors
    /// If there is no such sequence, it cannot be decoded, or an id is negative.
    pub fn read(&self, i: usize, out: &mut Vec<i64>) -> Result<()> {
        out.clear();
        self.append(i, out)
    }

    /// The ids of sequence `i`.
    ///
    /// # Errors
    /// As [`TokenFile::read`].
    pub fn row(&self, i: usize) -> Result<Vec<i64>> {
        let mut ids = Vec::new();
        self.append(i, &mut ids)?;
        Ok(ids)
    }

    /// Equally long sequences as int64 `[batch, pos]` on the CPU.
    ///
    /// # Errors
    /// As [`TokenFile::read`]; when the lengths differ.
    pub fn batch(&self, rows: &[usize]) -> Result<tch::Tensor> {
        let mut ids = Vec::new();
        for &row in rows {
            self.append(row, &mut ids)?;
        }
        Ok(tch::Tensor::f_from_slice(&ids)?.f_view([rows.len() as i64, -1])?)
    }

    /// Appends the ids of sequence `i` to `out`.
    pub(super) fn append(&self, i: usize, out: &mut Vec<i64>) -> Result<()> {
        let (chunk, row) = self.find(i)?;
        let sequences = self.load(chunk)?;
        sequences
            .copy(row, out)
            .map_err(|bad| self.bad_id(chunk, bad, "is not a token id (0 or more)".into()))
    }

    /// Reads everything once: every id has to be in `0..vocab_size`, and the checksums of files written by
    /// this crate have to match.
    ///
    /// # Errors
    /// Naming file, row, position and id, or the file that is damaged.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<()> {
        for chunk in &self.chunks {
            if let Some(bad) = self.load(chunk)?.find_outside(vocab_size) {
                let message = format!("is outside the vocabulary of {vocab_size} tokens");
                return Err(self.bad_id(chunk, bad, message));
            }
        }
        self.parts.iter().enumerate().try_for_each(|(index, part)| check(part, index, &self.chunks))
    }

    /// SHA-256 in hex that tells one set from another: of the counts of sequences and tokens and of the ids,
    /// all of them up to 4M tokens, else in 64 places. The same for the same sequences in Arrow and in
    /// Parquet.
    ///
    /// # Errors
    /// If a sequence cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update((self.n_sequences() as u64).to_le_bytes());
        hash.update(self.n_tokens.to_le_bytes());
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        for i in self.sample() {
            self.read(i, &mut ids)?;
            bytes.clear();
            bytes.extend_from_slice(&(ids.len() as u64).to_le_bytes());
            bytes.extend(ids.iter().flat_map(|id| (*id as u32).to_le_bytes()));
            hash.update(&bytes);
        }
        Ok(crate::base::hex(&hash.finalize()))
    }

    /// The sequences that the fingerprint covers.
    fn sample(&self) -> impl Iterator<Item = usize> + use<> {
        let n = self.n_sequences();
        let share = FINGERPRINT_TOKENS as f64 / self.n_tokens as f64;
        let (places, run) = match share {
            share if share >= 1.0 => (1, n),
            share => (FINGERPRINT_PLACES, (n as f64 * share / FINGERPRINT_PLACES as f64).ceil() as usize),
        };
        let last_start = n.saturating_sub(run);
        (0..places).flat_map(move |place| {
            let start = last_start * place / (places - 1).max(1);
            start..(start + run).min(n)
        })
    }

    /// The chunk of a sequence, and its row in there.
    fn find(&self, i: usize) -> Result<(&Chunk, usize)> {
        if i >= self.n_sequences() {
            let n = self.n_sequences();
            return Err(Error::file(&self.path, format!("no sequence {i}: there are {n}, counted from 0")));
        }
        let index = self.starts.partition_point(|start| *start <= i) - 1;
        Ok((&self.chunks[index], i - self.starts[index]))
    }

    fn load(&self, chunk: &Chunk) -> Result<Sequences> {
        chunk.load(&self.parts[chunk.part].path)
    }

    fn bad_id(&self, chunk: &Chunk, bad: BadId, message: String) -> Error {
        let row = chunk.first_row + bad.row;
        let place = format!("row {row}, position {}: id {} {message}", bad.position, bad.id);
        Error::file(&self.parts[chunk.part].path, place)
    }
}
