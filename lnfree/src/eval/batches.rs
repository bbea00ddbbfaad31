//! Which sequences go together, read ahead of the computation on a thread of their own.

use tch::{Device, Tensor};

use super::evaluation::EvalOptions;
use crate::Result;
use crate::base::device::{pin, send};
use crate::base::ranks::Ranks;
use crate::data::TokenFile;
use crate::data::loader::{channel, feed};

/// Equally long sequences.
pub(super) struct Batch {
    /// Their numbers in the token file.
    pub rows: Vec<usize>,
    /// int64 `[batch, pos]` on the device.
    pub ids: Tensor,
}

/// Hands the batches of `tokens` that are this rank's to `work`, one after the other: every so many-th.
pub(super) fn for_each_batch(
    ranks: &Ranks,
    tokens: &TokenFile,
    options: EvalOptions,
    device: Device,
    mut work: impl FnMut(Batch) -> Result<()>,
) -> Result<()> {
    let (rank, size) = (ranks.rank(), ranks.size());
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        let read = move |rows: Result<Vec<usize>>| {
            let rows = rows?;
            Ok((tokens.batch(&rows).map(|ids| pin(ids, device))?, rows))
        };
        scope.spawn(move || feed(groups(tokens, options).skip(rank).step_by(size).map(read), &sender));
        // Leaving this loop early drops the receiver, which ends the thread.
        for message in receiver {
            let (ids, rows) = message?;
            work(Batch { rows, ids: send(&ids, device) })?;
        }
        Ok(())
    })
}

/// The rows of each batch, up to the first error.
pub(super) fn groups(tokens: &TokenFile, options: EvalOptions) -> impl Iterator<Item = Result<Vec<usize>>> {
    let n = tokens.n_sequences().min(options.max_sequences);
    let mut start = 0;
    std::iter::from_fn(move || {
        while start < n {
            let (end, keep) = match next_rows(tokens, options, start, n) {
                Ok(next) => next,
                Err(error) => return Some(Err(error)),
            };
            let rows = (start..end).collect();
            start = end;
            if keep {
                return Some(Ok(rows));
            }
        }
        None
    })
}

/// The end of the batch that begins at `start`, and whether it is evaluated. Only sequences of one length
/// share a batch; data cut into chunks has no others.
fn next_rows(tokens: &TokenFile, options: EvalOptions, start: usize, n: usize) -> Result<(usize, bool)> {
    let batch_size = options.batch_size.max(1);
    let len = tokens.sequence_len(start)?;
    let mut end = start + 1;
    while end < (start + batch_size).min(n) && tokens.sequence_len(end)? == len {
        end += 1;
    }
    let dropped = options.drop_last && end - start < batch_size;
    Ok((end, len >= 2 && !dropped))
}
