//! Writing token files, and other Arrow files.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Int32Array, ListArray, PrimitiveArray, UInt16Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Int32Type, Schema, UInt16Type};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;

use super::arrow_file::CHECKSUM_KEY;
use super::sequences::{INPUT_IDS, Sequences};
use crate::base::atomic::write_atomic;
use crate::{Error, Result};

/// Tokens in a record batch, about.
const BATCH_TOKENS: usize = 1 << 20;

/// How long the sequences of a token file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// All of this length.
    Fixed(usize),
    /// Each of its own length.
    Variable,
}

/// What [`write_tokens`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Number of sequences.
    pub sequences: usize,
    /// Number of tokens.
    pub tokens: u64,
}

/// Writes sequences of token ids as an Arrow IPC file: column `input_ids`, a list (of fixed size where the
/// layout is) of uint16 where the vocabulary fits, else int32. The rows are streamed.
///
/// The file is written beside its place, synced and renamed, and carries a checksum of all ids. The same rows
/// give the same bytes.
///
/// # Errors
/// If a row is an error, has another length than the layout says or an id that is not below `vocab_size`; if
/// there are no tokens; if the file cannot be written. What was at `path` before is untouched then.
pub fn write_tokens(
    path: impl AsRef<Path>,
    rows: impl Iterator<Item = Result<Vec<u32>>>,
    layout: Layout,
    vocab_size: usize,
) -> Result<Written> {
    let path = path.as_ref();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut written = Written { sequences: 0, tokens: 0 };
    write_atomic(path, |file| {
        let mut table = Table::new(path, file, layout, vocab_size)?;
        for row in rows {
            table.push(row?)?;
        }
        written = table.finish()?;
        Ok(())
    })?;
    Ok(written)
}

/// Writes one record batch as an Arrow IPC file, with the metadata of its schema.
///
/// # Errors
/// If the file cannot be written; what was at `path` before is untouched then.
pub(crate) fn write_batch(path: &Path, batch: &RecordBatch) -> Result<()> {
    write_atomic(path, |file| {
        let mut writer = FileWriter::try_new(file, &batch.schema()).map_err(|e| failed(path, e))?;
        writer.write(batch).map_err(|e| failed(path, e))?;
        writer.finish().map_err(|e| failed(path, e))
    })
}

/// A token file in the making.
struct Table<'a, W: Write> {
    path: &'a Path,
    layout: Layout,
    vocab_size: usize,
    schema: Arc<Schema>,
    writer: FileWriter<W>,
    ids: Vec<u32>,
    lengths: Vec<usize>,
    checksum: u32,
    written: Written,
}

impl<'a, W: Write> Table<'a, W> {
    fn new(path: &'a Path, file: W, layout: Layout, vocab_size: usize) -> Result<Self> {
        let id = match vocab_size <= 1 << 16 {
            true => DataType::UInt16,
            false => DataType::Int32,
        };
        let item = Arc::new(Field::new_list_field(id, false));
        let list = match layout {
            Layout::Variable => DataType::List(item),
            Layout::Fixed(length) => match i32::try_from(length) {
                Ok(length) if length > 0 => DataType::FixedSizeList(item, length),
                _ => return Err(Error::invalid(format!("block size {length} is not between 1 and 2^31"))),
            },
        };
        let schema = Arc::new(Schema::new(vec![Field::new(INPUT_IDS, list, false)]));
        let writer = FileWriter::try_new(file, &schema).map_err(|e| failed(path, e))?;
        let written = Written { sequences: 0, tokens: 0 };
        let (ids, lengths) = (Vec::new(), Vec::new());
        Ok(Self { path, layout, vocab_size, schema, writer, ids, lengths, checksum: 0, written })
    }

    fn push(&mut self, row: Vec<u32>) -> Result<()> {
        let number = self.written.sequences;
        let refused = |message: String| Err(Error::file(self.path, format!("row {number}: {message}")));
        if let Layout::Fixed(length) = self.layout
            && row.len() != length
        {
            return refused(format!("{} tokens where every row has {length}", row.len()));
        }
        if row.len() > i32::MAX as usize {
            return refused(format!("{} tokens are too many for one row", row.len()));
        }
        if let Some(position) = row.iter().position(|id| *id as usize >= self.vocab_size) {
            let (id, size) = (row[position], self.vocab_size);
            return refused(format!(
                "position {position}: id {id} is outside the vocabulary of {size} tokens"
            ));
        }
        self.written.sequences += 1;
        self.written.tokens += row.len() as u64;
        self.lengths.push(row.len());
        self.ids.extend(row);
        if self.ids.len() >= BATCH_TOKENS { self.flush() } else { Ok(()) }
    }

    /// Writes what has come together as one record batch.
    fn flush(&mut self) -> Result<()> {
        if self.lengths.is_empty() {
            return Ok(());
        }
        let column = self.column().map_err(|e| failed(self.path, e))?;
        self.checksum = Sequences::from_column(self.path, 0, &column)?.crc32c(self.checksum);
        let batch =
            RecordBatch::try_new(self.schema.clone(), vec![column]).map_err(|e| failed(self.path, e))?;
        self.writer.write(&batch).map_err(|e| failed(self.path, e))?;
        self.ids.clear();
        self.lengths.clear();
        Ok(())
    }

    fn column(&self) -> std::result::Result<ArrayRef, ArrowError> {
        let (DataType::List(item) | DataType::FixedSizeList(item, _)) = self.schema.field(0).data_type()
        else {
            return Err(ArrowError::SchemaError("not a list".into()));
        };
        let ids: ArrayRef = match item.data_type() {
            DataType::UInt16 => Arc::new(self.primitive::<UInt16Type>(|id| id as u16) as UInt16Array),
            _ => Arc::new(self.primitive::<Int32Type>(|id| id as i32) as Int32Array),
        };
        let item = item.clone();
        Ok(match self.layout {
            Layout::Fixed(length) => Arc::new(FixedSizeListArray::try_new(item, length as i32, ids, None)?),
            Layout::Variable => {
                let offsets = OffsetBuffer::from_lengths(self.lengths.iter().copied());
                Arc::new(ListArray::try_new(item, offsets, ids, None)?)
            }
        })
    }

    fn primitive<T: ArrowPrimitiveType>(&self, convert: impl Fn(u32) -> T::Native) -> PrimitiveArray<T> {
        PrimitiveArray::from_iter_values(self.ids.iter().map(|id| convert(*id)))
    }

    fn finish(mut self) -> Result<Written> {
        if self.written.tokens == 0 {
            return Err(Error::file(self.path, "not written: there are no tokens to put into it"));
        }
        self.flush()?;
        self.writer.write_metadata(CHECKSUM_KEY, format!("{:08x}", self.checksum));
        self.writer.finish().map_err(|e| failed(self.path, e))?;
        Ok(self.written)
    }
}

fn failed(path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => Error::io(path)(source),
        other => Error::file(path, format!("cannot be written: {other}")),
    }
}
