//! Which positions are looked at.

use tch::Tensor;

use crate::{Error, Result};

/// Which positions of every sequence an analysis is of. The axis stays, of length 1 for a single position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Positions {
    /// All of them.
    #[default]
    All,
    /// The last one.
    Last,
    /// This one, counted from 0.
    At(usize),
}

impl Positions {
    /// The first of them and how many they are, of `n`.
    ///
    /// # Errors
    /// When there is no such position.
    pub(super) fn range(self, n: i64) -> Result<(i64, i64)> {
        match self {
            Positions::All => Ok((0, n)),
            Positions::Last if n > 0 => Ok((n - 1, 1)),
            Positions::At(at) if (at as i64) < n => Ok((at as i64, 1)),
            Positions::Last | Positions::At(_) => {
                Err(Error::invalid(format!("{self:?} is no position of sequences of {n} tokens")))
            }
        }
    }

    /// What `x`, `[batch, pos, ..]`, has there.
    ///
    /// # Errors
    /// When there is no such position.
    pub(super) fn of(self, x: &Tensor) -> Result<Tensor> {
        let (start, n) = self.range(x.size().get(1).copied().unwrap_or(0))?;
        Ok(x.f_narrow(1, start, n)?)
    }
}
