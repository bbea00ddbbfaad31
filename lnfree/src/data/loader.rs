//! Batches read ahead of the computation, on a thread of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tch::{Device, Tensor};

use super::{Batches, Repeats, TokenFile};
use crate::base::device::{pin, send};
use crate::{Error, Result};

/// Batches that may wait for the computation.
const AHEAD: usize = 4;

/// What a thread that reads sends to the one that computes.
pub(crate) type Sender<T> = SyncSender<Result<T>>;

/// The two ends between them.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<Result<T>>) {
    sync_channel(AHEAD)
}

/// Sends what `items` gives until that is an error, or until nobody listens any more.
pub(crate) fn feed<T>(items: impl IntoIterator<Item = Result<T>>, sender: &Sender<T>) {
    for item in items {
        let failed = item.is_err();
        if sender.send(item).is_err() || failed {
            return;
        }
    }
}

/// [`Batches`] on a device, read while earlier ones are computed with.
///
/// The position counts batches that were handed out; what was read ahead is read again after a
/// [`Loader::seek`], by a resumed run, or where the size of the batches changes. An error in reading arrives
/// with the batch that it is in.
#[derive(Debug)]
pub struct Loader {
    /// Where the computation is.
    batches: Batches,
    device: Device,
    reader: Option<Reader>,
}

/// A thread that is somewhat ahead.
#[derive(Debug)]
struct Reader {
    batch_size: usize,
    receiver: Receiver<Result<Tensor>>,
    thread: JoinHandle<()>,
}

impl Loader {
    /// Batches for `device` from the start of the order.
    ///
    /// # Errors
    /// As [`Batches::new`].
    pub fn new(file: impl Into<Arc<TokenFile>>, seed: u64, shuffle: bool, device: Device) -> Result<Self> {
        Ok(Self { batches: Batches::new(file, seed, shuffle)?, device, reader: None })
    }

    /// The same with a part of the sequences repeating something.
    pub fn with_repeats(mut self, repeats: Repeats) -> Self {
        self.reader.take().into_iter().for_each(Reader::stop);
        self.batches = self.batches.clone().with_repeats(repeats);
        self
    }

    /// The next `batch_size` sequences, int64 `[batch, pos]` on the device; see [`Batches::next_batch`].
    ///
    /// # Errors
    /// If a sequence cannot be read; the position is then as it was before.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<Tensor> {
        Ok(send(&self.next_on_host(batch_size)?, self.device))
    }

    /// The same on this side, and on the device: what is counted of the ids is counted here, without waiting
    /// for a GPU.
    ///
    /// # Errors
    /// As [`Loader::next_batch`].
    pub fn next_on_both_sides(&mut self, batch_size: usize) -> Result<(Tensor, Tensor)> {
        let ids = self.next_on_host(batch_size)?;
        let sent = send(&ids, self.device);
        Ok((ids, sent))
    }

    fn next_on_host(&mut self, batch_size: usize) -> Result<Tensor> {
        let reader = match self.reader.take() {
            Some(reader) if reader.batch_size == batch_size => reader,
            other => {
                other.into_iter().for_each(Reader::stop);
                Reader::start(self.batches.clone(), batch_size, self.device)?
            }
        };
        match reader.receiver.recv() {
            Ok(Ok(ids)) => {
                self.reader = Some(reader);
                self.batches.seek(self.batches.position() + batch_size as u64);
                Ok(ids)
            }
            Ok(Err(error)) => {
                reader.stop();
                Err(error)
            }
            Err(_) => Err(Error::file(self.file().path(), "reading it failed; is the file damaged?")),
        }
    }

    /// Tokens in a sequence.
    pub fn block_size(&self) -> usize {
        self.batches.block_size()
    }

    /// The file that the batches come from.
    pub fn file(&self) -> &TokenFile {
        self.batches.file()
    }

    /// Sequences handed out since the start, over all epochs.
    pub fn position(&self) -> u64 {
        self.batches.position()
    }

    /// Goes on at a position that [`Loader::position`] gave.
    pub fn seek(&mut self, position: u64) {
        self.reader.take().into_iter().for_each(Reader::stop);
        self.batches.seek(position);
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.reader.take().into_iter().for_each(Reader::stop);
    }
}

impl Reader {
    fn start(mut batches: Batches, batch_size: usize, device: Device) -> Result<Reader> {
        let (sender, receiver) = channel();
        let read = move || {
            let read = || Some(batches.next_batch(batch_size).map(|ids| pin(ids, device)));
            feed(std::iter::from_fn(read), &sender);
        };
        let thread = std::thread::Builder::new().name("lnfree reader".into()).spawn(read);
        let thread = thread.map_err(|e| Error::invalid(format!("no thread to read data with: {e}")))?;
        Ok(Reader { batch_size, receiver, thread })
    }

    /// Hanging up ends the thread at its next batch.
    fn stop(self) {
        drop(self.receiver);
        let _ = self.thread.join();
    }
}
