//! Arrow IPC files and streams, read in place through a memory map.

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, StreamDecoder};
use arrow::ipc::{Block, root_as_footer};
use arrow::record_batch::RecordBatch;
use memmap2::Mmap;

use super::arrow_blocks::{MAGIC, check_bytes, footer_of};
use super::first_line;
use super::sequences::{INPUT_IDS, Sequences};
use super::side_columns;
use crate::{Error, Result};

/// Footer key under which [`super::write_tokens`] leaves the checksum of all ids.
pub(super) const CHECKSUM_KEY: &str = "lnfree.crc32c";

/// What an Arrow file holds.
pub(super) struct ArrowFile {
    pub batches: Vec<Sequences>,
    /// CRC-32C of all ids, in files that this crate wrote.
    pub checksum: Option<u32>,
    /// Whether all ids are read in place, none copied; what was compressed (LZ4, zstd) is held in memory.
    pub mapped: bool,
}

/// Maps an Arrow IPC file or stream.
///
/// # Errors
/// If it is truncated, damaged, or has no `input_ids` lists.
pub(super) fn open(path: &Path, file: &File) -> Result<ArrowFile> {
    // SAFETY: sound as long as nobody changes the file while it is mapped. Token files are replaced by
    // renaming, never written in place; another program that truncates one ends this process, as for any
    // mapped file.
    let map = unsafe { Mmap::map(file) }.map_err(Error::io(path))?;
    let memory = map.as_ptr_range();
    let start = NonNull::from(&map[..]).cast::<u8>();
    let length = map.len();
    // SAFETY: the buffer owns the map, which stays where it is until the last array over it is gone.
    let buffer = unsafe { Buffer::from_custom_allocation(start, length, Arc::new(map)) };

    check_bytes(path, &buffer)?;
    let (batches, checksum) = if buffer.starts_with(MAGIC) {
        file_format(path, &buffer)?
    } else {
        (stream_format(path, buffer)?, None)
    };
    let mapped = batches.iter().all(|batch| batch.n_bytes() == 0 || batch.lies_in(memory.clone()));
    Ok(ArrowFile { batches, checksum, mapped })
}

fn file_format(path: &Path, buffer: &Buffer) -> Result<(Vec<Sequences>, Option<u32>)> {
    let bad = |e: &dyn std::fmt::Display| damaged(path, e);
    let footer = footer_of(path, buffer)?;
    let footer = root_as_footer(&footer).map_err(|e| bad(&e))?;

    let schema = footer.schema().ok_or_else(|| bad(&"no schema"))?;
    let schema = Arc::new(try_fb_to_schema(schema).map_err(|e| bad(&e))?);
    let columns = column_indices(path, &schema)?;
    let mut decoder = FileDecoder::new(schema, footer.version()).with_projection(columns);
    for block in footer.dictionaries().iter().flatten() {
        decoder.read_dictionary(block, &slice(path, buffer, block)?).map_err(|e| bad(&e))?;
    }
    let mut batches = Vec::new();
    let mut rows = 0;
    for block in footer.recordBatches().iter().flatten() {
        let body = slice(path, buffer, block)?;
        let Some(batch) = decoder.read_record_batch(block, &body).map_err(|e| bad(&e))? else { continue };
        batches.push(sequences_of(path, rows, &batch)?);
        rows += batch.num_rows();
    }
    let mut pairs = footer.custom_metadata().into_iter().flatten();
    let checksum = pairs.find(|pair| pair.key() == Some(CHECKSUM_KEY)).and_then(|pair| pair.value());
    let checksum =
        checksum.map(|text| u32::from_str_radix(text, 16)).transpose().map_err(|_| bad(&"checksum"))?;
    Ok((batches, checksum))
}

/// The bytes of a block, which the footer may put anywhere if the file is damaged.
fn slice(path: &Path, buffer: &Buffer, block: &Block) -> Result<Buffer> {
    let place = || {
        let offset = usize::try_from(block.offset()).ok()?;
        let metadata = usize::try_from(block.metaDataLength()).ok()?;
        let length = usize::try_from(block.bodyLength()).ok()?.checked_add(metadata)?;
        (offset.checked_add(length)? <= buffer.len()).then_some((offset, length))
    };
    let (offset, length) = place().ok_or_else(|| damaged(path, "a batch lies outside the file"))?;
    Ok(buffer.slice_with_length(offset, length))
}

fn stream_format(path: &Path, mut buffer: Buffer) -> Result<Vec<Sequences>> {
    let mut decoder = StreamDecoder::new();
    let mut batches = Vec::new();
    let mut rows = 0;
    while !buffer.is_empty() {
        let batch = decoder.decode(&mut buffer).map_err(|e| match decoder.schema() {
            Some(_) => damaged(path, e),
            None => not_tokens(path),
        })?;
        let Some(batch) = batch else { continue };
        batches.push(sequences_of(path, rows, &batch)?);
        rows += batch.num_rows();
    }
    let schema = decoder.schema().ok_or_else(|| not_tokens(path))?;
    decoder.finish().map_err(|_| {
        Error::file(path, "the Arrow stream is truncated: its end is missing; write it again")
    })?;
    column_indices(path, &schema)?;
    Ok(batches)
}

/// Where the ids are, and what says something of them.
///
/// # Errors
/// If there are no ids.
pub(super) fn column_indices(path: &Path, schema: &Schema) -> Result<Vec<usize>> {
    let mut indices = vec![schema.index_of(INPUT_IDS).map_err(|_| no_column(path, schema))?];
    indices.extend(side_columns::names(schema).iter().filter_map(|name| schema.index_of(name).ok()));
    indices.sort_unstable();
    Ok(indices)
}

/// The ids of a batch, without those that its other columns leave out.
///
/// # Errors
/// If there are none, or the columns do not fit them.
pub(super) fn sequences_of(path: &Path, first_row: usize, batch: &RecordBatch) -> Result<Sequences> {
    let schema = batch.schema();
    let ids = batch.column_by_name(INPUT_IDS).ok_or_else(|| no_column(path, &schema))?;
    let ids = Sequences::from_column(path, first_row, ids)?;
    let sides = side_columns::names(&schema).into_iter();
    let sides: Vec<(String, ArrayRef)> =
        sides.filter_map(|name| batch.column_by_name(&name).cloned().map(|column| (name, column))).collect();
    side_columns::applied(path, first_row, ids, &sides)
}

/// The error for a table without tokens.
pub(super) fn no_column(path: &Path, schema: &Schema) -> Error {
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let hint =
        if columns.contains(&"text") { "; text becomes tokens with `lnfree data prepare`" } else { "" };
    Error::file(path, format!("no column `{INPUT_IDS}`; it has {}{hint}", columns.join(", ")))
}

fn not_tokens(path: &Path) -> Error {
    Error::file(path, "neither Arrow nor Parquet, or damaged; text becomes tokens with `lnfree data prepare`")
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    let error = first_line(error);
    Error::file(path, format!("the Arrow file is damaged or not readable: {error}"))
}
