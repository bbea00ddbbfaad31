//! A check before arrow's own reader: it takes memory by the lengths that a file's footer says, before it has read anything.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use arrow::ipc::reader::read_footer_length;
use arrow::ipc::root_as_footer;

use crate::{Error, Result};

/// Footer length and closing mark.
const TRAILER: u64 = 10;

/// Checks that the footer of the Arrow IPC file `path`, and every block that it lists, lies inside the file.
///
/// # Errors
/// [`Error::File`] naming `path` when one does not.
pub(crate) fn check_blocks(path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let cut_off = || Error::file(path, "the Arrow file is truncated: its end is missing; write it again");
    let mut part = |start: u64, length: u64| -> std::io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut file).take(length).read_to_end(&mut bytes).map(|_| bytes)
    };
    let end = length.checked_sub(TRAILER).ok_or_else(cut_off)?;
    let trailer = part(end, TRAILER).map_err(Error::io(path))?;
    let trailer = trailer.try_into().map_err(|_| cut_off())?;
    let footer_length = read_footer_length(trailer).map_err(|_| cut_off())? as u64;
    let start = end.checked_sub(footer_length).ok_or_else(cut_off)?;
    let footer = part(start, footer_length).map_err(Error::io(path))?;
    let damaged =
        |why: &dyn std::fmt::Display| Error::file(path, format!("the Arrow file is damaged: {why}"));
    let footer = root_as_footer(&footer).map_err(|e| damaged(&e))?;
    for block in footer.dictionaries().iter().flatten().chain(footer.recordBatches().iter().flatten()) {
        let parts = [block.offset(), block.metaDataLength().into(), block.bodyLength()];
        let end = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(u64::try_from(*part).ok()?));
        if end.is_none_or(|end| end > length) {
            return Err(damaged(&"a batch lies outside the file"));
        }
    }
    Ok(())
}
