//! Rows of text or ids in Arrow files and streams.

use std::path::Path;

use super::arrow_blocks::{damaged, open_arrow};
use super::guarded;
use super::rows::{Rows, columns_of, flattened, rows_of, stop_at_error};
use crate::Result;

/// The rows of an Arrow file or stream.
///
/// # Errors
/// If it cannot be read; for what comes later, as an item.
pub(super) fn arrow_rows(path: &Path) -> Result<Rows> {
    let mut batches = open_arrow(path)?;
    columns_of(path, &batches.schema())?;
    let path = path.to_path_buf();
    let mut first_row = 0;
    let groups = std::iter::from_fn(move || {
        let next = guarded(&path, || {
            let Some(batch) = batches.next() else { return Ok(None) };
            rows_of(&path, first_row, &batch.map_err(|e| damaged(&path, e))?).map(Some)
        });
        first_row += next.as_ref().ok().and_then(|rows| rows.as_ref()).map_or(0, Vec::len);
        next.transpose()
    });
    Ok(stop_at_error(flattened(groups)))
}
