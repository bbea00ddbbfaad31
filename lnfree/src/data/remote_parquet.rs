//! Parquet files where they are: the footer and single row groups over the network, of the columns that are
//! needed.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::parquet_check::{check_pages, read_footer};
use super::rows::{Row, columns_of, rows_of};
use super::unpack::unreadable;
use super::{first_line, guarded};
use crate::hub::RemoteFile;
use crate::{Error, Result};

/// Bytes at the end of a file that are fetched for its footer; longer footers take a second request.
const TAIL: u64 = 1 << 17;

/// A Parquet file of a repository, of which only the footer has been read. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct RemoteParquet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: RemoteFile,
    /// What messages call it.
    origin: PathBuf,
    metadata: ArrowReaderMetadata,
    columns: Vec<String>,
    /// First row of each row group, and the count of rows as the last entry.
    starts: Vec<usize>,
}

impl RemoteParquet {
    /// Reads the footer.
    ///
    /// # Errors
    /// If it cannot be read, or the table has neither text nor ids.
    pub(super) fn open(file: RemoteFile) -> Result<Self> {
        let origin = PathBuf::from(file.name());
        let length = file.len().min(TAIL);
        let start = file.len() - length;
        let tail = file.read_at(start, length as usize).map_err(|e| unreadable(&origin, e))?;
        let window = Window { file: file.clone(), spans: vec![(start, Bytes::from(tail))] };
        let (metadata, columns) = guarded(&origin, || {
            let metadata = read_footer(&window).map_err(|why| damaged(&origin, why))?;
            let columns = columns_of(&origin, metadata.schema())?;
            Ok((metadata, columns))
        })?;
        let mut starts = vec![0];
        for group in metadata.metadata().row_groups() {
            let rows = usize::try_from(group.num_rows()).ok();
            let end = rows.and_then(|rows| rows.checked_add(*starts.last()?));
            starts.push(end.ok_or_else(|| damaged(&origin, "impossible count of rows"))?);
        }
        Ok(Self { inner: Arc::new(Inner { file, origin, metadata, columns, starts }) })
    }

    /// What messages call it.
    pub(super) fn origin(&self) -> &Path {
        &self.inner.origin
    }

    /// First row of each row group, and the count of rows as the last entry.
    pub(super) fn starts(&self) -> &[usize] {
        &self.inner.starts
    }

    /// Bytes that [`RemoteParquet::group`] fetches.
    pub(super) fn bytes_of(&self, group: usize) -> u64 {
        self.spans_of(group).iter().map(|(_, length)| length).sum()
    }

    /// The rows of a row group.
    ///
    /// # Errors
    /// If they cannot be fetched, are damaged, or are neither text nor ids.
    pub(super) fn group(&self, group: usize) -> Result<Vec<Row>> {
        let Inner { file, origin, metadata, columns, starts } = &*self.inner;
        let mut spans = Vec::new();
        for (start, length) in self.spans_of(group) {
            let inside = start.checked_add(length).is_some_and(|end| end <= file.len());
            let length = usize::try_from(length).ok().filter(|_| inside);
            let length = length.ok_or_else(|| damaged(origin, "a column lies outside the file"))?;
            let bytes = file.read_at(start, length).map_err(|e| unreadable(origin, e))?;
            spans.push((start, Bytes::from(bytes)));
        }
        let window = Window { file: file.clone(), spans };
        guarded(origin, || {
            let needed = |root: &str| columns.iter().any(|column| column == root);
            check_pages(&window, metadata.metadata(), group, needed).map_err(|why| damaged(origin, why))?;
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(window, metadata.clone());
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
            let reader = builder
                .with_projection(mask)
                .with_row_groups(vec![group])
                .build()
                .map_err(|e| damaged(origin, e))?;
            let batches: std::result::Result<Vec<RecordBatch>, _> = reader.collect();
            let mut rows = Vec::new();
            for batch in batches.map_err(|e| damaged(origin, e))? {
                rows.extend(rows_of(origin, starts[group] + rows.len(), &batch)?);
            }
            match starts[group + 1] - starts[group] {
                promised if promised == rows.len() => Ok(rows),
                promised => {
                    Err(damaged(origin, format!("{} rows where {promised} were promised", rows.len())))
                }
            }
        })
    }

    /// Where the needed columns of a row group are: start and length of each.
    fn spans_of(&self, group: usize) -> Vec<(u64, u64)> {
        let Inner { metadata, columns, .. } = &*self.inner;
        let needed = |root: &String| columns.contains(root);
        let chunks = metadata.metadata().row_group(group).columns().iter();
        chunks
            .filter(|chunk| chunk.column_path().parts().first().is_some_and(needed))
            .map(|chunk| chunk.byte_range())
            .collect()
    }
}

/// A file of which some spans have been fetched; what lies outside of them is fetched when it is asked for.
#[derive(Clone)]
struct Window {
    file: RemoteFile,
    spans: Vec<(u64, Bytes)>,
}

impl Window {
    /// What has been fetched from `start` on.
    fn fetched(&self, start: u64) -> Option<Bytes> {
        self.spans.iter().find_map(|(first, bytes)| {
            let offset = usize::try_from(start.checked_sub(*first)?).ok()?;
            (offset < bytes.len()).then(|| bytes.slice(offset..))
        })
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Window {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        match self.fetched(start) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes))),
            None => self.file.stream(start).map_err(|e| ParquetError::External(Box::new(e))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self.fetched(start).filter(|bytes| bytes.len() >= length) {
            Some(bytes) => Ok(bytes.slice(..length)),
            None => {
                let bytes = self.file.read_at(start, length);
                bytes.map(Bytes::from).map_err(|e| ParquetError::External(Box::new(e)))
            }
        }
    }
}

fn damaged(origin: &Path, error: impl std::fmt::Display) -> Error {
    Error::file(origin, format!("the Parquet file is damaged or not readable: {}", first_line(error)))
}
