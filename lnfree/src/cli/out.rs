//! Standard output, which may be full or closed: neither ends the work of a command.
//!
//! Of several ranks, only the first prints. The first failure is remembered and [`ended`] makes an error of
//! it once the work is done. A reader that goes away (`| head`) has seen enough: nothing more is printed, and
//! nothing has failed.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// Why nothing more is printed.
#[derive(Clone, Copy)]
enum Closed {
    ByReader,
    ByFailure(ErrorKind, Option<i32>),
}

static CLOSED: Mutex<Option<Closed>> = Mutex::new(None);

/// Prints `text` at once.
pub(super) fn print(text: Arguments) {
    let mut closed = CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
    if closed.is_some() || lnfree::console::is_silent() {
        return;
    }
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        *closed = Some(match error.kind() {
            ErrorKind::BrokenPipe => Closed::ByReader,
            kind => Closed::ByFailure(kind, error.raw_os_error()),
        });
    }
}

/// Whether nobody reads any more.
pub(super) fn is_closed() -> bool {
    CLOSED.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Whether everything was printed that anybody wanted to read.
///
/// # Errors
/// Why standard output could not be written.
pub fn ended() -> anyhow::Result<()> {
    let closed = *CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Closed::ByFailure(kind, code)) = closed else { return Ok(()) };
    let error = code.map_or_else(|| kind.into(), std::io::Error::from_raw_os_error);
    anyhow::bail!("cannot write to standard output: {error}")
}

/// `print!`, without its panics.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::out::print(format_args!($($text)*)) };
}

/// `println!`, without its panics.
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::out::print(format_args!("{}\n", format_args!($($text)*))) };
}

pub(super) use {out, outln};
