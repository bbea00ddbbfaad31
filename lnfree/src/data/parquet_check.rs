//! Parquet's metadata, checked before parquet's own reader takes memory by it: the schema, the columns, the
//! heads of pages.

use std::sync::Arc;

use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{ColumnChunkMetaData, FooterTail, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;

use super::first_line;
use super::parquet_shapes::{FILE_METADATA, PAGE_HEADER, SCHEMA_ELEMENT};
use super::thrift::{Compact, Kind};

/// What columns, and single pages, may come to, unpacked: so many bytes for each byte of the file or page, or
/// the floor where that is more. Runs of equal numbers have no limit of their own.
const RATIO: u64 = 1024;
const FLOOR: u64 = 64 << 20;
const PAGE_FLOOR: u64 = 2 << 20;
/// Groups of columns within each other.
const DEEPEST_SCHEMA: usize = 100;
/// Bytes in which the head of a page is looked for at first; statistics of long values make it longer.
const HEAD: u64 = 1 << 10;

/// Reads the footer of a Parquet file, and checks what it announces.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn read_footer(file: &impl ChunkReader) -> Result<ArrowReaderMetadata, String> {
    let metadata = read_schema(file)?;
    check_columns(metadata.metadata(), file.len())?;
    Ok(metadata)
}

/// [`read_footer`] of a file whose columns may be damaged.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn read_schema(file: &impl ChunkReader) -> Result<ArrowReaderMetadata, String> {
    let said = |error: parquet::errors::ParquetError| first_line(error);
    let end = file.len().checked_sub(FOOTER_SIZE as u64).ok_or("it is too short to be one")?;
    let tail = file.get_bytes(end, FOOTER_SIZE).map_err(said)?;
    let tail = tail.first_chunk().ok_or("its end is missing")?;
    let tail = FooterTail::try_new(tail).map_err(|_| "its end is missing, or is not one")?;
    if tail.is_encrypted_footer() {
        return Err("it is encrypted".into());
    }
    let size = tail.metadata_length();
    let start = end.checked_sub(size as u64).ok_or("its metadata would begin before the file")?;
    let footer = file.get_bytes(start, size).map_err(said)?;
    check_schema(&footer)?;
    let metadata = ParquetMetaDataReader::decode_metadata(&footer).map_err(said)?;
    ArrowReaderMetadata::try_new(Arc::new(metadata), Default::default()).map_err(said)
}

/// The schema is the second field of a footer: a tree in a row, each node with the number of its children.
/// The reader takes memory for as many, and a level of its stack for each level.
fn check_schema(footer: &[u8]) -> Result<(), String> {
    Compact::new(footer).structure(|footer, field, kind| {
        if (field, kind) != (2, Kind::List) {
            return footer.field(field, kind, FILE_METADATA).map(|()| true);
        }
        let (kind, count) = footer.list()?;
        if kind != Kind::Struct {
            return Err("its schema is no list of columns".into());
        }
        // Children that are still to come, of each group that has been entered.
        let mut open: Vec<i64> = Vec::new();
        for node in 1..=count {
            let mut children = 0;
            footer.structure(|node, field, kind| {
                match (field, kind) {
                    (5, Kind::Int) => children = node.int()?,
                    _ => node.field(field, kind, SCHEMA_ELEMENT)?,
                }
                Ok(true)
            })?;
            if children < 0 || children as usize > count - node {
                return Err(format!("a group of its schema announces {children} columns"));
            }
            open.push(children);
            while open.pop_if(|left| *left == 0).is_some() {
                open.last_mut().into_iter().for_each(|left| *left -= 1);
            }
            if open.len() > DEEPEST_SCHEMA {
                return Err(format!("its schema has more than {DEEPEST_SCHEMA} levels"));
            }
        }
        Ok(true)
    })
}

/// Checks that the pages of a row group, of the columns (their outermost names) that are `wanted`, lie inside
/// their column, and that none announces more than it can hold.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check_pages(
    file: &impl ChunkReader,
    metadata: &ParquetMetaData,
    group: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let root = |column: &ColumnChunkMetaData| column.column_path().parts().first().cloned();
    for column in metadata.row_group(group).columns() {
        if !root(column).is_some_and(|root| wanted(&root)) {
            continue;
        }
        // Not negative, and inside the file: `check_columns`.
        let (mut at, length) = column.byte_range();
        let end = at + length;
        while at < end {
            at = read_head(file, at, end)
                .map_err(|why| format!("a page of column {}: {why}", column.column_path()))?;
        }
    }
    Ok(())
}

/// Checks the head of the page at `at`, and returns where the next page begins.
fn read_head(file: &impl ChunkReader, at: u64, end: u64) -> Result<u64, String> {
    let mut window = HEAD;
    loop {
        let length = window.min(end - at);
        let bytes = file.get_bytes(at, length as usize).map_err(first_line)?;
        let mut walk = Compact::new(&bytes);
        let (mut unpacked, mut packed) = (-1, -1);
        let walked = walk.structure(|head, field, kind| {
            let size = match (field, kind) {
                (2, Kind::Int) => &mut unpacked,
                (3, Kind::Int) => &mut packed,
                _ => return head.field(field, kind, PAGE_HEADER).map(|()| true),
            };
            *size = head.int()?;
            Ok(true)
        });
        match walked {
            // The head may go on behind what was read.
            Err(_) if length < end - at => {
                window *= 16;
                continue;
            }
            walked => walked?,
        }
        let next = at + (bytes.len() - walk.left()) as u64;
        let packed = u64::try_from(packed).ok().filter(|packed| *packed <= end - next);
        let packed = packed.ok_or("it goes on behind its column")?;
        let most = RATIO.saturating_mul(packed).max(PAGE_FLOOR);
        if u64::try_from(unpacked).map_or(true, |unpacked| unpacked > most) {
            return Err(format!("its {packed} bytes announce {unpacked}"));
        }
        return Ok(next + packed);
    }
}

/// Checks that the columns of a Parquet file of `length` bytes lie inside it and do not announce more than it
/// can hold.
fn check_columns(metadata: &ParquetMetaData, length: u64) -> Result<(), String> {
    let most = RATIO.saturating_mul(length).max(FLOOR);
    for group in metadata.row_groups() {
        let mut unpacked = 0u64;
        for column in group.columns() {
            let name = || column.column_path().string();
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let place = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
            let end = place.and_then(|(start, size)| start.checked_add(size));
            if end.is_none_or(|end| end > length) {
                return Err(format!("column {} lies outside the file", name()));
            }
            let size = u64::try_from(column.uncompressed_size()).ok();
            unpacked = size
                .map(|size| unpacked.saturating_add(size))
                .filter(|unpacked| *unpacked <= most)
                .ok_or_else(|| format!("column {} announces {} bytes", name(), column.uncompressed_size()))?;
            if column.num_values() < 0 {
                return Err(format!("column {} announces {} values", name(), column.num_values()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// The metadata of a small file with its one column changed, and the file's length.
    fn changed(change: impl FnOnce(ColumnChunkMetaData) -> ColumnChunkMetaData) -> (ParquetMetaData, u64) {
        let column: ArrayRef = Arc::new(Int32Array::from_iter_values(0..1000));
        let table = RecordBatch::try_from_iter([("input_ids", column)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), None).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
        let length = bytes.len() as u64;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(bytes)).unwrap();
        let group = metadata.row_group(0).clone();
        let column = change(group.column(0).clone());
        let group = group.into_builder().set_column_metadata(vec![column]).build().unwrap();
        (metadata.into_builder().set_row_groups(vec![group]).build(), length)
    }

    #[test]
    fn sizes_of_columns_are_those_of_a_file() {
        let check = |(metadata, length): (ParquetMetaData, u64)| check_columns(&metadata, length);
        check(changed(|column| column)).unwrap();
        for size in [1 << 30, i64::MAX, -1] {
            let set = |column: ColumnChunkMetaData| {
                column.into_builder().set_total_compressed_size(size).build().unwrap()
            };
            assert!(check(changed(set)).unwrap_err().contains("lies outside the file"));
        }
        for size in [1 << 40, i64::MAX, -1] {
            let set = |column: ColumnChunkMetaData| {
                column.into_builder().set_total_uncompressed_size(size).build().unwrap()
            };
            assert!(check(changed(set)).unwrap_err().contains(&format!("announces {size} bytes")));
        }
        let none = |column: ColumnChunkMetaData| column.into_builder().set_num_values(-5).build().unwrap();
        assert!(check(changed(none)).unwrap_err().contains("announces -5 values"));
    }

    /// A footer whose schema is a chain of groups, each with so many children as it says.
    fn schema(children: &[u8]) -> Vec<u8> {
        let nodes = children.iter().flat_map(|n| [0x55, *n << 1, 0]);
        let mut footer = vec![0x15, 2, 0x19, 0xfc];
        footer.extend([children.len() as u8 | 0x80, (children.len() >> 7) as u8]);
        footer.extend(nodes.chain([0]));
        footer
    }

    #[test]
    fn a_schema_has_the_children_that_it_announces_and_not_too_many_levels() {
        check_schema(&schema(&[2, 1, 0, 0])).unwrap();
        assert!(check_schema(&schema(&[2, 1, 0])).is_ok(), "too few is left to the reader");
        assert!(check_schema(&schema(&[1, 2, 0])).unwrap_err().contains("announces 2 columns"));
        let mut chain = vec![1; DEEPEST_SCHEMA];
        chain.push(0);
        check_schema(&schema(&chain)).unwrap();
        chain.insert(0, 1);
        assert!(check_schema(&schema(&chain)).unwrap_err().contains("more than 100 levels"));
        // Wide, not deep.
        let wide: Vec<u8> = [63].into_iter().chain((0..63).flat_map(|_| [1, 0])).collect();
        check_schema(&schema(&wide)).unwrap();
    }

    /// A file of one column of numbers in pages.
    fn paged(codec: Compression) -> Vec<u8> {
        let column: ArrayRef = Arc::new(Int32Array::from_iter_values((0..1000).map(|i| i * 7 % 1000)));
        let table = RecordBatch::try_from_iter([("input_ids", column)]).unwrap();
        let how = WriterProperties::builder()
            .set_compression(codec)
            .set_dictionary_enabled(false)
            .set_data_page_row_count_limit(100)
            .set_write_batch_size(100)
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(how)).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn heads_of_pages_are_believed_only_as_far_as_their_bytes_go() {
        for codec in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())] {
            let bytes = paged(codec);
            let file = bytes::Bytes::from(bytes.clone());
            let metadata = read_footer(&file).unwrap();
            let metadata = metadata.metadata();
            check_pages(&file, metadata, 0, |root| root == "input_ids").unwrap();
            let (start, length) = metadata.row_group(0).column(0).byte_range();
            // Every field of the first head, and of one later page, made as large as it can be.
            let mut at = vec![start];
            at.push(read_head(&file, start, start + length).unwrap());
            for head in at {
                // Type, then the size unpacked and packed: a byte for its field each, and two for its number.
                let head = head as usize;
                assert_eq!([bytes[head], bytes[head + 2]], [0x15, 0x15]);
                let damaged = |at: usize, with: &[u8]| {
                    let mut bytes = bytes.clone();
                    bytes.splice(at..at + with.len(), with.iter().copied());
                    check_pages(&bytes::Bytes::from(bytes), metadata, 0, |_| true)
                };
                let five = [0xfe, 0xff, 0xff, 0xff, 0x0f];
                let why = damaged(head + 3, &five).unwrap_err();
                assert!(why.starts_with("a page of column \"input_ids\": "), "{why}");
                // A negative number.
                assert!(damaged(head + 3, &[0x81, 0x01]).is_err());
            }
            // Columns that nobody wants are not looked at.
            check_pages(&bytes::Bytes::from(vec![0; bytes.len()]), metadata, 0, |root| root == "text")
                .unwrap();
            assert!(
                check_pages(&bytes::Bytes::from(vec![0x1c; bytes.len()]), metadata, 0, |_| true).is_err()
            );
        }
    }

    #[test]
    fn what_is_no_parquet_file_is_said() {
        let said = |bytes: &[u8]| read_footer(&bytes::Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(said(b"PAR1"), "it is too short to be one");
        assert_eq!(said(b"PAR1 and then some"), "its end is missing, or is not one");
        assert_eq!(said(b"PAR1\0\0\0\0PARE"), "it is encrypted");
        assert_eq!(said(b"PAR1\xff\0\0\0PAR1"), "its metadata would begin before the file");
    }
}
