//! The order in which training sees its data: seeded, and described by one number.

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::TokenFile;
use super::repeats::Repeats;
use crate::{Error, Result};

/// Which sequence comes at which position of an endless run over a data set.
///
/// A position counts the sequences consumed since the start. Every epoch goes through all sequences in an
/// order that depends on nothing but the seed, the epoch and the count of sequences, so that the position is
/// all that a checkpoint has to keep.
#[derive(Debug, Clone)]
pub struct DataOrder {
    seed: u64,
    n_sequences: usize,
    shuffle: bool,
    /// The epoch whose permutation is in `permutation`.
    epoch: Option<u64>,
    permutation: Vec<u32>,
}

impl DataOrder {
    /// An order over `n_sequences` sequences: a fresh permutation each epoch, or always as stored without
    /// `shuffle`.
    ///
    /// # Errors
    /// If there are no sequences, or more than 2^32.
    pub fn new(seed: u64, n_sequences: usize, shuffle: bool) -> Result<Self> {
        if n_sequences == 0 || u32::try_from(n_sequences - 1).is_err() {
            return Err(Error::invalid(format!(
                "cannot order {n_sequences} sequences: 1 to 2^32 are possible"
            )));
        }
        Ok(Self { seed, n_sequences, shuffle, epoch: None, permutation: Vec::new() })
    }

    /// The sequence at a position. Entering another epoch makes its permutation, which is then kept.
    pub fn index(&mut self, position: u64) -> usize {
        let n = self.n_sequences as u64;
        let (epoch, offset) = (position / n, (position % n) as usize);
        if !self.shuffle {
            return offset;
        }
        if self.epoch != Some(epoch) {
            self.permutation = permutation(self.seed, epoch, self.n_sequences);
            self.epoch = Some(epoch);
        }
        self.permutation[offset] as usize
    }
}

/// A permutation of `0..n`. Part of what a checkpoint means: the random numbers and the shuffle are those of
/// `rand_chacha` and `rand` 0.9, which promise the same values within that version.
fn permutation(seed: u64, epoch: u64, n: usize) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch);
    let mut order: Vec<u32> = (0..n).map(|i| i as u32).collect();
    order.shuffle(&mut random);
    order
}

/// Training batches from a token file, in a [`DataOrder`].
#[derive(Debug, Clone)]
pub struct Batches {
    file: Arc<TokenFile>,
    order: DataOrder,
    seed: u64,
    repeats: Repeats,
    block_size: usize,
    position: u64,
    /// Ids of the batch in the making.
    ids: Vec<i64>,
}

impl Batches {
    /// Batches from the start of the order.
    ///
    /// # Errors
    /// If the sequences are not equally long, or there are too many.
    pub fn new(file: impl Into<Arc<TokenFile>>, seed: u64, shuffle: bool) -> Result<Self> {
        let file = file.into();
        let Some(block_size) = file.block_size() else {
            return Err(unequal(&file)?);
        };
        let order = DataOrder::new(seed, file.n_sequences(), shuffle)?;
        Ok(Self { file, order, seed, repeats: Repeats::NONE, block_size, position: 0, ids: Vec::new() })
    }

    /// The same with a part of the sequences repeating something.
    pub fn with_repeats(self, repeats: Repeats) -> Self {
        Self { repeats, ..self }
    }

    /// The next `batch_size` sequences as int64 `[batch, pos]` on the CPU. Batches run on into the next
    /// epoch.
    ///
    /// # Errors
    /// If a sequence cannot be read; the position is then as it was before.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<Tensor> {
        self.ids.clear();
        for i in 0..batch_size as u64 {
            let (position, start) = (self.position + i, self.ids.len());
            let index = self.order.index(position);
            self.file.append(index, &mut self.ids)?;
            self.repeats.apply(self.seed, position, &mut self.ids[start..]);
        }
        let shape = [batch_size as i64, self.block_size as i64];
        let batch = Tensor::f_from_slice(&self.ids)?.f_view(shape)?;
        self.position += batch_size as u64;
        Ok(batch)
    }

    /// Tokens in a sequence.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The file that the batches come from.
    pub fn file(&self) -> &TokenFile {
        &self.file
    }

    /// Sequences consumed since the start, over all epochs.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at a position that [`Batches::position`] gave.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }
}

/// The error for a file whose sequences differ in length, naming the first two lengths.
fn unequal(file: &TokenFile) -> Result<Error> {
    let first = file.sequence_len(0)?;
    for i in 1..file.n_sequences() {
        let other = file.sequence_len(i)?;
        if other != first {
            let message = format!(
                "training needs equally long sequences, but sequence 0 has {first} tokens and sequence {i} has \
                 {other}; cut them with `lnfree data prepare FILE --out NEW`"
            );
            return Ok(Error::file(file.path(), message));
        }
    }
    Ok(Error::file(file.path(), "training needs equally long sequences"))
}
