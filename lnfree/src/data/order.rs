//! The order in which training sees its sequences, so that the data position of a checkpoint is one number.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::TokenFile;
use crate::{Error, Result};

/// Which sequence comes when: every epoch is a permutation that depends on seed and epoch alone.
#[derive(Debug, Clone)]
pub struct DataOrder {
    seed: u64,
    n_sequences: usize,
    shuffle: bool,
    /// The permutation in use, with its epoch.
    epoch: Option<(u64, Vec<u32>)>,
}

impl DataOrder {
    /// The order over `n_sequences` sequences; without `shuffle`, that of the file, over and over.
    pub fn new(seed: u64, n_sequences: usize, shuffle: bool) -> DataOrder {
        DataOrder { seed, n_sequences, shuffle, epoch: None }
    }

    /// The sequence at `position`, the number of sequences consumed before it since the start of the run.
    ///
    /// # Panics
    /// When there are no sequences.
    pub fn index(&mut self, position: u64) -> usize {
        let n = self.n_sequences as u64;
        let (epoch, offset) = (position / n, (position % n) as usize);
        if !self.shuffle {
            return offset;
        }
        match &self.epoch {
            Some((cached, order)) if *cached == epoch => order[offset] as usize,
            _ => {
                // The seed fills half of ChaCha's key and the epoch picks its stream, so that no two epochs share numbers.
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(epoch);
                let mut order: Vec<u32> = (0..self.n_sequences as u32).collect();
                order.shuffle(&mut rng);
                let index = order[offset] as usize;
                self.epoch = Some((epoch, order));
                index
            }
        }
    }
}

/// Batches of a token file in a [`DataOrder`]. A batch may span the end of an epoch.
#[derive(Debug)]
pub struct Batches {
    tokens: TokenFile,
    order: DataOrder,
    position: u64,
}

impl Batches {
    /// Batches from the first position on.
    ///
    /// # Errors
    /// When the file has no sequences, or more than fit 32 bits.
    pub fn new(tokens: TokenFile, order: DataOrder) -> Result<Batches> {
        if tokens.n_sequences() == 0 || tokens.n_sequences() > u32::MAX as usize {
            let n = tokens.n_sequences();
            return Err(Error::file(tokens.path(), format!("{n} sequences cannot be trained on")));
        }
        Ok(Batches { tokens, order, position: 0 })
    }

    /// The next `batch_size` sequences, int64 `[batch, pos]` on the CPU.
    ///
    /// # Errors
    /// When a sequence cannot be read or they are not equally long.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<Tensor> {
        let rows: Vec<usize> = (0..batch_size as u64).map(|i| self.order.index(self.position + i)).collect();
        self.position += batch_size as u64;
        self.tokens.batch(&rows)
    }

    /// Sequences consumed so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on from a saved position.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// The file the batches come from.
    pub fn tokens(&self) -> &TokenFile {
        &self.tokens
    }
}
