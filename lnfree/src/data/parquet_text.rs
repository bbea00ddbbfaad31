//! Text documents in Parquet files.

use std::fs::File;
use std::path::Path;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::parquet_check::{check_pages, read_footer};
use super::rows::{Rows, TEXT, rows_of_batches};
use super::{first_line, guarded};
use crate::{Error, Result};

/// Documents of a table that are decoded at a time: each may be long.
const BATCH_ROWS: usize = 32;

/// The rows of column `text`.
///
/// # Errors
/// If the file is damaged or has no such column.
pub(super) fn parquet_rows(path: &Path, file: File) -> Result<Rows> {
    let reader = guarded(path, || {
        let metadata = read_footer(&file).map_err(|why| damaged(path, why))?;
        for group in 0..metadata.metadata().num_row_groups() {
            check_pages(&file, metadata.metadata(), group, |root| root == TEXT)
                .map_err(|why| damaged(path, why))?;
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        let columns: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
        if !columns.iter().any(|name| name == TEXT) {
            return Err(Error::file(path, format!("no column `{TEXT}`; it has {}", columns.join(", "))));
        }
        let mask = ProjectionMask::columns(builder.parquet_schema(), [TEXT]);
        builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|e| damaged(path, e))
    })?;
    Ok(rows_of_batches(path, reader, damaged))
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::file(path, format!("cannot be read as Parquet: {}", first_line(error)))
}
