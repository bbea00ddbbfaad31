//! Which sequences go together, read ahead of the computation on a thread of their own.

use std::sync::mpsc::{SyncSender, sync_channel};

use tch::{Device, Tensor};

use super::EvalOptions;
use super::engine::send;
use crate::Result;
use crate::data::TokenFile;

/// Batches that may wait for the computation.
const AHEAD: usize = 4;

/// Equally long sequences.
pub(super) struct Batch {
    /// Their numbers in the token file.
    pub rows: Vec<usize>,
    /// int64 `[batch, pos]` on the device.
    pub ids: Tensor,
}

/// Hands the batches of `tokens` to `work`, one after the other.
pub(super) fn for_each_batch(
    tokens: &TokenFile,
    options: EvalOptions,
    device: Device,
    mut work: impl FnMut(Batch) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || read(tokens, options, &sender));
        // Leaving this loop early drops the receiver, which ends the thread.
        for message in receiver {
            let (rows, ids): (Vec<usize>, Tensor) = message?;
            work(Batch { rows, ids: send(ids, device) })?;
        }
        Ok(())
    })
}

fn read(tokens: &TokenFile, options: EvalOptions, sender: &SyncSender<Result<(Vec<usize>, Tensor)>>) {
    let n = tokens.n_sequences().min(options.max_sequences);
    let mut start = 0;
    while start < n {
        let message = match next_rows(tokens, options, start, n) {
            Err(error) => Err(error),
            Ok((end, keep)) => {
                let rows: Vec<usize> = (start..end).collect();
                start = end;
                if !keep {
                    continue;
                }
                tokens.batch(&rows).map(|ids| (rows, ids))
            }
        };
        let failed = message.is_err();
        if sender.send(message).is_err() || failed {
            return;
        }
    }
}

/// The end of the batch that begins at `start`, and whether it is evaluated. Only sequences of one length share a batch; data cut
/// into chunks has no others.
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
