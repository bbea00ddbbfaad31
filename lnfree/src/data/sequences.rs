//! The token sequences of one record batch, in whatever list and integer types they were stored.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::plain::plain;
use crate::{Error, Result};

/// The column that holds the tokens.
pub(super) const INPUT_IDS: &str = "input_ids";

/// Rows of token ids over one array, which may lie in a memory map. Cloning shares the array.
#[derive(Debug, Clone)]
pub(super) struct Sequences {
    ids: ArrayRef,
    rows: Rows,
    /// How many ids of each row count, where other columns leave some out.
    lengths: Option<Arc<[usize]>>,
}

/// Where each row lies in the array of ids.
#[derive(Debug, Clone)]
enum Rows {
    Fixed { count: usize, length: usize },
    Offsets(OffsetBuffer<i32>),
    LargeOffsets(OffsetBuffer<i64>),
}

/// An id below 0, or too large for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadId {
    pub row: usize,
    pub position: usize,
    pub id: i64,
}

/// Runs `$body` with `$slice` bound to the ids as a slice of their own type.
macro_rules! with_slice {
    ($ids:expr, |$slice:ident| $body:expr) => {
        match $ids.data_type() {
            DataType::Int8 => with_slice!($ids, Int8Type, |$slice| $body),
            DataType::Int16 => with_slice!($ids, Int16Type, |$slice| $body),
            DataType::Int32 => with_slice!($ids, Int32Type, |$slice| $body),
            DataType::Int64 => with_slice!($ids, Int64Type, |$slice| $body),
            DataType::UInt8 => with_slice!($ids, UInt8Type, |$slice| $body),
            DataType::UInt16 => with_slice!($ids, UInt16Type, |$slice| $body),
            DataType::UInt32 => with_slice!($ids, UInt32Type, |$slice| $body),
            // Ids above i64::MAX turn negative here, and are refused as negative ones are.
            _ => with_slice!($ids, UInt64Type, |$slice| $body),
        }
    };
    ($ids:expr, $type:ty, |$slice:ident| $body:expr) => {{
        let $slice = $ids.as_primitive::<$type>().values().as_ref();
        $body
    }};
}

impl Sequences {
    /// Takes over the column of ids. `first_row` is the row of the file that this batch starts with, for
    /// messages.
    ///
    /// # Errors
    /// If it is not a list of integers, or holds nulls.
    pub(super) fn from_column(path: &Path, first_row: usize, column: &ArrayRef) -> Result<Self> {
        Self::named(path, first_row, INPUT_IDS, column)
    }

    /// [`Sequences::from_column`] of a column that messages call `name`.
    ///
    /// # Errors
    /// As there.
    pub(super) fn named(path: &Path, first_row: usize, name: &str, column: &ArrayRef) -> Result<Self> {
        refuse_null_rows(path, first_row, name, column)?;
        let column = plain(column).map_err(|e| Error::file(path, format!("column `{name}`: {e}")))?;
        let (ids, rows) = match column.data_type() {
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                (list.values().clone(), Rows::Offsets(list.offsets().clone()))
            }
            DataType::LargeList(_) => {
                let list = column.as_list::<i64>();
                (list.values().clone(), Rows::LargeOffsets(list.offsets().clone()))
            }
            DataType::FixedSizeList(..) => {
                let list = column.as_fixed_size_list();
                let length = usize::try_from(list.value_length()).unwrap_or(0);
                // They take no bytes, so that a file of any size can promise any number of them.
                if length == 0 && list.len() > 0 {
                    return Err(Error::file(path, format!("the rows of `{INPUT_IDS}` have no tokens")));
                }
                (list.values().clone(), Rows::Fixed { count: list.len(), length })
            }
            other => return Err(wrong_type(path, name, other)),
        };
        if !ids.data_type().is_integer() {
            return Err(wrong_type(path, name, column.data_type()));
        }
        let sequences = Self { ids, rows, lengths: None };
        let used = sequences.range(0).start..sequences.end();
        if sequences.ids.len() < used.end {
            return Err(Error::file(path, "the file is damaged: rows point beyond the ids"));
        }
        if let Some(nulls) = sequences.ids.nulls().filter(|nulls| nulls.null_count() > 0)
            && let Some(null) = used.clone().find(|i| nulls.is_null(*i))
        {
            let (row, position) = sequences.place(null);
            let what = if name == INPUT_IDS { "null id".into() } else { format!("null in `{name}`") };
            return Err(Error::file(path, format!("row {}, position {position}: {what}", first_row + row)));
        }
        Ok(sequences)
    }

    /// A column of integers, each a row of its own.
    ///
    /// # Errors
    /// If it holds nulls.
    pub(super) fn of_numbers(path: &Path, first_row: usize, name: &str, column: &ArrayRef) -> Result<Self> {
        refuse_null_rows(path, first_row, name, column)?;
        let rows = Rows::Fixed { count: column.len(), length: 1 };
        Ok(Self { ids: column.clone(), rows, lengths: None })
    }

    /// The same rows, of which the first `lengths` ids count.
    pub(super) fn cut_to(mut self, lengths: Vec<usize>) -> Self {
        let shorter = lengths.iter().enumerate().any(|(row, length)| *length < self.range(row).len());
        self.lengths = shorter.then(|| lengths.into());
        self
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        match &self.rows {
            Rows::Fixed { count, .. } => *count,
            Rows::Offsets(offsets) => offsets.len() - 1,
            Rows::LargeOffsets(offsets) => offsets.len() - 1,
        }
    }

    /// Number of ids in all rows.
    pub(super) fn n_tokens(&self) -> usize {
        match &self.lengths {
            Some(lengths) => lengths.iter().sum(),
            None => self.end() - self.range(0).start,
        }
    }

    /// The length of every row, if all are equally long and there are any.
    pub(super) fn uniform_length(&self) -> Option<usize> {
        let mut lengths = (0..self.len()).map(|row| self.range(row).len());
        match &self.rows {
            Rows::Fixed { length, .. } if self.lengths.is_none() => (self.len() > 0).then_some(*length),
            _ => lengths.next().filter(|first| lengths.all(|length| length == *first)),
        }
    }

    /// Where a row lies in the ids. A row that does not exist is an empty range.
    pub(super) fn range(&self, row: usize) -> Range<usize> {
        let stored = self.stored(row);
        match self.lengths.as_ref().and_then(|lengths| lengths.get(row)) {
            Some(length) => stored.start..stored.start + length,
            None => stored,
        }
    }

    fn stored(&self, row: usize) -> Range<usize> {
        // Offsets are never negative: arrow checks them as it makes an `OffsetBuffer`.
        match &self.rows {
            Rows::Fixed { length, .. } => row * length..(row + 1) * length,
            Rows::Offsets(o) if row + 1 < o.len() => o[row] as usize..o[row + 1] as usize,
            Rows::LargeOffsets(o) if row + 1 < o.len() => o[row] as usize..o[row + 1] as usize,
            _ => self.end()..self.end(),
        }
    }

    fn end(&self) -> usize {
        match &self.rows {
            Rows::Fixed { count, length } => count * length,
            Rows::Offsets(o) => o[o.len() - 1] as usize,
            Rows::LargeOffsets(o) => o[o.len() - 1] as usize,
        }
    }

    /// The row and the position in it of an index into the ids.
    fn place(&self, index: usize) -> (usize, usize) {
        let row = (0..self.len()).find(|row| self.range(*row).contains(&index)).unwrap_or(0);
        (row, index - self.range(row).start)
    }

    /// Appends the ids of a row to `out`.
    #[allow(clippy::unnecessary_cast)] // needed for all types but one
    pub(super) fn copy(&self, row: usize, out: &mut Vec<i64>) -> std::result::Result<(), BadId> {
        let start = out.len();
        self.copy_any(row, out);
        match out[start..].iter().position(|id| *id < 0) {
            Some(position) => Err(BadId { row, position, id: out[start + position] }),
            None => Ok(()),
        }
    }

    /// [`Sequences::copy`] of numbers that may be anything.
    #[allow(clippy::unnecessary_cast)] // needed for all types but one
    pub(super) fn copy_any(&self, row: usize, out: &mut Vec<i64>) {
        let range = self.range(row);
        with_slice!(self.ids, |ids| out.extend(ids[range].iter().map(|id| *id as i64)));
    }

    /// The first id that is negative or not below `vocab_size`.
    #[allow(clippy::unnecessary_cast)] // needed for all types but one
    pub(super) fn find_outside(&self, vocab_size: usize) -> Option<BadId> {
        let limit = i64::try_from(vocab_size).unwrap_or(i64::MAX);
        let find = |used: Range<usize>| {
            let start = used.start;
            with_slice!(self.ids, |ids| {
                let outside = |id: i64| id < 0 || id >= limit;
                ids[used]
                    .iter()
                    .position(|id| outside(*id as i64))
                    .map(|i| (start + i, ids[start + i] as i64))
            })
        };
        let found = match self.lengths {
            Some(_) => (0..self.len()).find_map(|row| find(self.range(row))),
            None => find(self.range(0).start..self.end()),
        };
        found.map(|(index, id)| {
            let (row, position) = self.place(index);
            BadId { row, position, id }
        })
    }

    /// CRC-32C of the stored bytes of all rows' ids, carried on from `crc`.
    pub(super) fn crc32c(&self, crc: u32) -> u32 {
        // All that is stored, whatever counts: no file with a checksum has columns beside.
        let bytes = self.bytes();
        let width = bytes.len() / self.ids.len().max(1);
        crc32c::crc32c_append(crc, &bytes[self.stored(0).start * width..self.end() * width])
    }

    /// Bytes that the ids take.
    pub(super) fn n_bytes(&self) -> usize {
        self.bytes().len()
    }

    /// Whether the ids lie inside `memory`.
    pub(super) fn lies_in(&self, memory: Range<*const u8>) -> bool {
        let bytes = self.bytes().as_ptr_range();
        memory.start <= bytes.start && bytes.end <= memory.end
    }

    fn bytes(&self) -> &[u8] {
        with_slice!(self.ids, |ids| {
            let bytes = std::mem::size_of_val(ids);
            // SAFETY: the slice is of primitive integers, all bytes of which are initialised.
            unsafe { std::slice::from_raw_parts(ids.as_ptr().cast::<u8>(), bytes) }
        })
    }
}

fn refuse_null_rows(path: &Path, first_row: usize, name: &str, column: &ArrayRef) -> Result<()> {
    let nulls = column.logical_nulls().filter(|nulls| nulls.null_count() > 0);
    let Some(row) = nulls.and_then(|nulls| (0..nulls.len()).find(|i| nulls.is_null(*i))) else {
        return Ok(());
    };
    Err(Error::file(path, format!("row {}: `{name}` is null; remove that row", first_row + row)))
}

fn wrong_type(path: &Path, name: &str, found: &DataType) -> Error {
    Error::file(path, format!("column `{name}` is {found}, not a list of integers"))
}
