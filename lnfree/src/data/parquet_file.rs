//! Token sequences in Parquet files, decoded one row group at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};

use super::arrow_file::{column_indices, sequences_of};
use super::parquet_check::{check_pages, read_footer};
use super::sequences::{INPUT_IDS, Sequences};
use super::{first_line, guarded, side_columns};
use crate::{Error, Result};

/// Rows that the decoder makes at a time.
const BATCH_ROWS: usize = 4096;

/// A Parquet file of which some row groups are kept decoded.
#[derive(Debug)]
pub(super) struct ParquetFile {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    /// First row of each row group, and the count of rows as the last entry.
    starts: Vec<usize>,
    /// Bytes of decoded ids to keep.
    budget: usize,
    /// Row groups kept, the one decoded first in front.
    kept: Mutex<VecDeque<(usize, Sequences)>>,
}

impl ParquetFile {
    /// Reads the metadata; ids are read later.
    ///
    /// # Errors
    /// If the file is damaged or has no `input_ids` lists.
    pub(super) fn open(path: &Path, file: File, budget: usize) -> Result<Self> {
        let metadata = read_footer(&file).map_err(|why| damaged(path, why))?;
        column_indices(path, metadata.schema())?;
        let mut starts = vec![0];
        for group in metadata.metadata().row_groups() {
            let rows = usize::try_from(group.num_rows()).ok();
            let end = rows.and_then(|rows| rows.checked_add(*starts.last()?));
            starts.push(end.ok_or_else(|| damaged(path, "impossible count of rows"))?);
        }
        let kept = Mutex::new(VecDeque::new());
        Ok(Self { path: path.to_path_buf(), file, metadata, starts, budget, kept })
    }

    /// Number of row groups.
    pub(super) fn n_groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// Rows of a row group, as its metadata says.
    pub(super) fn rows_of(&self, group: usize) -> usize {
        self.starts[group + 1] - self.starts[group]
    }

    /// First row of a row group.
    pub(super) fn start_of(&self, group: usize) -> usize {
        self.starts[group]
    }

    /// Ids in a row group, as its metadata says: an empty list counts as one.
    pub(super) fn n_values(&self, group: usize) -> u64 {
        let columns = self.metadata.metadata().row_group(group).columns();
        let ids = columns.iter().find(|c| c.column_path().parts().first().is_some_and(|p| p == INPUT_IDS));
        ids.map_or(0, |column| column.num_values().unsigned_abs())
    }

    /// Whether other columns may leave out ids, so that the metadata does not tell how many there are.
    pub(super) fn has_side_columns(&self) -> bool {
        !side_columns::names(self.metadata.schema()).is_empty()
    }

    /// The sequences of a row group, decoded now or earlier.
    ///
    /// # Errors
    /// If the row group is damaged, or its lists hold nulls or no integers.
    pub(super) fn group(&self, group: usize) -> Result<Sequences> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sequences)) = kept.iter().find(|(index, _)| *index == group) {
            return Ok(sequences.clone());
        }
        let sequences = guarded(&self.path, || self.decode(group))?;
        kept.push_back((group, sequences.clone()));
        let mut bytes: usize = kept.iter().map(|(_, sequences)| sequences.n_bytes()).sum();
        while bytes > self.budget && kept.len() > 1 {
            bytes -= kept.pop_front().map_or(0, |(_, sequences)| sequences.n_bytes());
        }
        Ok(sequences)
    }

    fn decode(&self, group: usize) -> Result<Sequences> {
        let bad = |e: &dyn std::fmt::Display| damaged(&self.path, e);
        let file = self.file.try_clone().map_err(Error::io(&self.path))?;
        let sides = side_columns::names(self.metadata.schema());
        let needed = |root: &str| root == INPUT_IDS || sides.iter().any(|side| side == root);
        check_pages(&file, self.metadata.metadata(), group, needed).map_err(|why| bad(&why))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let columns = column_indices(&self.path, self.metadata.schema())?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|e| bad(&e))?;
        let batches: Vec<RecordBatch> = reader.collect::<std::result::Result<_, _>>().map_err(|e| bad(&e))?;
        let batch = match batches.first() {
            None => return Err(bad(&"a row group without rows")),
            Some(first) => concat_batches(&first.schema(), &batches).map_err(|e| bad(&e))?,
        };
        if batch.num_rows() != self.rows_of(group) {
            return Err(bad(&format!(
                "{} rows where {} were promised",
                batch.num_rows(),
                self.rows_of(group)
            )));
        }
        sequences_of(&self.path, self.starts[group], &batch)
    }
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::file(path, format!("the Parquet file is damaged or not readable: {}", first_line(error)))
}
