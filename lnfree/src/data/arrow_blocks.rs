//! A check before arrow's own reader: it takes memory by the lengths that a file's footer says, before it has
//! read anything.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::array::RecordBatchReader;
use arrow::buffer::Buffer;
use arrow::ipc::reader::{FileReader, StreamReader, read_footer_length};
use arrow::ipc::root_as_footer;
use memmap2::Mmap;

use super::arrow_buffers::{check_block, check_stream};
use super::{first_line, guarded};
use crate::{Error, Result};

/// How the file format starts and ends; a stream has no mark.
pub(super) const MAGIC: &[u8] = b"ARROW1";
/// Footer length and closing mark.
const TRAILER: usize = 10;

/// Opens an Arrow IPC file or stream, by what it begins with, after [`check_arrow`].
///
/// # Errors
/// [`Error::File`] naming `path` when it cannot be read, or is neither.
pub(crate) fn open_arrow(path: &Path) -> Result<Box<dyn RecordBatchReader + Send>> {
    check_arrow(path)?;
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let is_file = file.fill_buf().map_err(Error::io(path))?.starts_with(MAGIC);
    guarded(path, || {
        let reader = match is_file {
            true => FileReader::try_new(file, None).map(|reader| Box::new(reader) as _),
            false => StreamReader::try_new(file, None).map(|reader| Box::new(reader) as _),
        };
        reader.map_err(|e| damaged(path, e))
    })
}

/// What a library says of an Arrow file that it cannot read.
pub(crate) fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::file(path, format!("the Arrow file is damaged or not readable: {}", first_line(error)))
}

/// Checks that the footer of the Arrow IPC file `path`, and every block that it lists, lies inside the file,
/// and that no message or compressed buffer, of a file or a stream, announces more than it can hold. What
/// begins as neither is left to the reader.
///
/// # Errors
/// [`Error::File`] naming `path` when one does not.
pub(crate) fn check_arrow(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.len() == 0 {
        return Ok(());
    }
    // SAFETY: as in `arrow_file::open`.
    let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
    check_bytes(path, &bytes)
}

/// [`check_arrow`] of what is in memory.
///
/// # Errors
/// As [`check_arrow`].
pub(super) fn check_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    if !bytes.starts_with(MAGIC) {
        return check_stream(bytes).map_err(|why| {
            Error::file(path, format!("the Arrow stream is truncated or damaged: {why}; write it again"))
        });
    }
    let footer = footer_of(path, bytes)?;
    let footer = root_as_footer(&footer).map_err(|e| damaged(path, e))?;
    for block in footer.dictionaries().iter().flatten().chain(footer.recordBatches().iter().flatten()) {
        check_block(bytes, block).map_err(|why| damaged(path, why))?;
    }
    Ok(())
}

/// The footer of an Arrow file: a copy, which is aligned as flatbuffers ask.
///
/// # Errors
/// [`Error::File`] naming `path` when the end is missing.
pub(super) fn footer_of(path: &Path, bytes: &[u8]) -> Result<Buffer> {
    let cut_off = || Error::file(path, "the Arrow file is truncated: its end is missing; write it again");
    let end = bytes.len().checked_sub(TRAILER).ok_or_else(cut_off)?;
    let trailer = bytes[end..].try_into().map_err(|_| cut_off())?;
    let length = read_footer_length(trailer).map_err(|_| cut_off())?;
    let start = end.checked_sub(length).ok_or_else(cut_off)?;
    Ok(Buffer::from(&bytes[start..end]))
}
