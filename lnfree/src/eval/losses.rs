//! Per-token losses as an Arrow file.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::ipc::writer::FileWriter;

use crate::atomic::write_atomic;
use crate::{Error, Result};

/// Writes `losses` as an Arrow IPC file with one float32 column `loss`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_losses(path: &Path, losses: &[f32]) -> Result<()> {
    let error = |e: arrow::error::ArrowError| Error::file(path, e);
    let column: ArrayRef = Arc::new(Float32Array::from(losses.to_vec()));
    let batch = RecordBatch::try_from_iter([("loss", column)]).map_err(error)?;
    write_atomic(path, |file| {
        let mut writer = FileWriter::try_new(file, &batch.schema()).map_err(error)?;
        writer.write(&batch).map_err(error)?;
        writer.finish().map_err(error)
    })
}
