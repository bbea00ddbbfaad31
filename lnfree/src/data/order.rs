//! The order in which training sees its data: seeded, and described by one number.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::Tensor;

use super::TokenFile;
use crate::{Error, Result};

/// Which sequence comes at which position of an endless run over a data set.
///
/// A position counts the sequences consumed since the start. Every epoch goes through all sequences in an order that
/// depends on nothing but the seed, the epoch and the count of sequences, so that the position is all that a
/// checkpoint has to keep.
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
    /// An order over `n_sequences` sequences: a fresh permutation each epoch, or always as stored without `shuffle`.
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

/// Fisher-Yates over `0..n`, from the last place down, with ChaCha8 keyed by seed and epoch.
fn permutation(seed: u64, epoch: u64, n: usize) -> Vec<u32> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    let mut order: Vec<u32> = (0..n).map(|i| i as u32).collect();
    for last in (1..n).rev() {
        order.swap(last, below(&mut random, last as u64 + 1) as usize);
    }
    order
}

/// A uniform number in `0..bound`: the high half of a product, redrawn where that would favour some numbers (Lemire,
/// "Fast Random Integer Generation in an Interval", 2019). Written out because the order is part of what a checkpoint
/// means, and the library's own sampling may change between versions.
fn below(random: &mut impl RngCore, bound: u64) -> u64 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(bound);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// Training batches from a token file, in a [`DataOrder`].
#[derive(Debug)]
pub struct Batches {
    file: Arc<TokenFile>,
    order: DataOrder,
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
        Ok(Self { file, order, block_size, position: 0, ids: Vec::new() })
    }

    /// The next `batch_size` sequences as int64 `[batch, pos]` on the CPU. Batches run on into the next epoch.
    ///
    /// # Errors
    /// If a sequence cannot be read; the position is then as it was before.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<Tensor> {
        self.ids.clear();
        for i in 0..batch_size as u64 {
            let index = self.order.index(self.position + i);
            self.file.append(index, &mut self.ids)?;
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
                 {other}; cut them with `lnfree data prepare`"
            );
            return Ok(Error::file(file.path(), message));
        }
    }
    Ok(Error::file(file.path(), "training needs equally long sequences"))
}
