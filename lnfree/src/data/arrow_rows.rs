//! Rows of text or ids in Arrow files and streams.

use std::path::Path;

use super::arrow_blocks::{damaged, open_arrow};
use super::rows::{Rows, columns_of, rows_of_batches};
use crate::Result;

/// The rows of an Arrow file or stream.
///
/// # Errors
/// If it cannot be read; for what comes later, as an item.
pub(super) fn arrow_rows(path: &Path) -> Result<Rows> {
    let batches = open_arrow(path)?;
    columns_of(path, &batches.schema())?;
    Ok(rows_of_batches(path, batches, damaged))
}
