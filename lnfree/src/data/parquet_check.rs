//! A check before parquet's own reader: it takes memory by the sizes that a file's metadata say.

use parquet::file::metadata::ParquetMetaData;

/// What columns may come to, unpacked: so many bytes for each byte of the file, or the floor where that is more. Runs of equal numbers
/// have no limit of their own.
const RATIO: u64 = 1024;
const FLOOR: u64 = 64 << 20;

/// Checks that the columns of a Parquet file of `length` bytes lie inside it and do not announce more than it can hold.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check_columns(metadata: &ParquetMetaData, length: u64) -> Result<(), String> {
    let most = RATIO.saturating_mul(length).max(FLOOR);
    for group in metadata.row_groups() {
        let mut unpacked = 0u64;
        for column in group.columns() {
            let name = || column.column_path().string();
            let start = column.dictionary_page_offset().unwrap_or(i64::MAX).min(column.data_page_offset());
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
    use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader};

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
}
