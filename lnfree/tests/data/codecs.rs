//! Encodings and compressions that writers of data sets choose: the values are the same.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use lnfree::data::TokenFile;
use lnfree::data::text::documents;
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{lists, message, table, vector_path};

const TEXTS: [&str; 4] = ["one two", "three", "one two", "naïve \u{1f642}"];

fn codecs() -> Vec<(&'static str, Compression)> {
    vec![
        ("none", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(GzipLevel::default())),
        ("brotli", Compression::BROTLI(BrotliLevel::default())),
        ("lz4", Compression::LZ4),
        ("lz4-raw", Compression::LZ4_RAW),
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
    ]
}

fn write(path: &Path, batch: &RecordBatch, codec: Compression) {
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn read(path: &Path) -> Vec<String> {
    documents(path).unwrap().collect::<lnfree::Result<_>>().unwrap()
}

fn rows(path: &Path) -> Vec<Vec<i64>> {
    let file = TokenFile::open(path).unwrap_or_else(|e| panic!("{e}"));
    file.check_vocab(50_257).unwrap();
    (0..file.n_sequences()).map(|i| file.row(i).unwrap()).collect()
}

fn texts_as(stored: DataType) -> ArrayRef {
    let plain: ArrayRef = Arc::new(StringArray::from(TEXTS.to_vec()));
    cast(&plain, &stored).unwrap()
}

#[test]
fn every_common_codec_of_parquet_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<Vec<i64>> = (0..4).map(|i| vec![i, 2 * i, 50_000 + i]).collect();
    let batch = table(vec![("text", texts_as(DataType::Utf8)), ("input_ids", lists(&ids))]);
    let text = batch.project(&[0]).unwrap();
    for (name, codec) in codecs() {
        let path = dir.path().join(format!("{name}.parquet"));
        write(&path, &batch, codec);
        assert_eq!(rows(&path), ids, "{name}");
        let path = dir.path().join(format!("{name}-text.parquet"));
        write(&path, &text, codec);
        assert_eq!(read(&path), TEXTS, "{name}");
    }
}

/// Written by pyarrow.
#[test]
fn files_of_other_writers_are_read() {
    let zstd = read(&vector_path("data/zstd.parquet"));
    assert!(zstd.len() == 3 && zstd.iter().all(|text| text.len() > 100));
    for name in ["gzip", "brotli", "dictionary"] {
        assert_eq!(read(&vector_path(&format!("data/{name}.parquet"))), zstd, "{name}");
    }
}

#[test]
fn strings_of_every_kind_are_texts() {
    let dir = tempfile::tempdir().unwrap();
    let dictionary = |key, value| DataType::Dictionary(Box::new(key), Box::new(value));
    for (i, stored) in [
        DataType::LargeUtf8,
        DataType::Utf8View,
        dictionary(DataType::Int32, DataType::Utf8),
        dictionary(DataType::UInt8, DataType::LargeUtf8),
    ]
    .into_iter()
    .enumerate()
    {
        let batch = table(vec![("text", texts_as(stored.clone()))]);
        for end in ["parquet", "arrow"] {
            let path = dir.path().join(format!("{i}.{end}"));
            match end {
                "parquet" => write(&path, &batch, Compression::SNAPPY),
                _ => super::write_arrow(&path, std::slice::from_ref(&batch)),
            }
            assert_eq!(read(&path), TEXTS, "{stored} {end}");
        }
    }
}

/// Lists of every kind, of integers of every kind.
fn list_types() -> Vec<DataType> {
    use DataType::*;
    let dictionary = Dictionary(Box::new(Int8), Box::new(Int32));
    let mut all = Vec::new();
    for item in [UInt16, Int32, UInt32, Int64, UInt64, Int16, dictionary] {
        let field = Arc::new(Field::new_list_field(item, true));
        all.extend([List(field.clone()), LargeList(field.clone()), FixedSizeList(field.clone(), 3)]);
        all.extend([ListView(field.clone()), LargeListView(field)]);
    }
    all
}

#[test]
fn lists_of_every_kind_are_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<Vec<i64>> = (0..5).map(|i| vec![i, 2 * i, 30_000 + i]).collect();
    let plain = lists(&ids);
    for (i, stored) in list_types().into_iter().enumerate() {
        let batch = table(vec![("input_ids", cast(&plain, &stored).unwrap())]);
        let arrow = dir.path().join(format!("{i}.arrow"));
        super::write_arrow(&arrow, std::slice::from_ref(&batch));
        assert_eq!(rows(&arrow), ids, "{stored}");
        let stream = dir.path().join(format!("{i}-stream.arrow"));
        super::write_stream(&stream, std::slice::from_ref(&batch));
        assert_eq!(rows(&stream), ids, "{stored}");
        let parquet = dir.path().join(format!("{i}.parquet"));
        write(&parquet, &batch, Compression::SNAPPY);
        assert_eq!(rows(&parquet), ids, "{stored}");
    }
}

#[test]
fn compressed_arrow_is_read_and_held_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<Vec<i64>> = (0..200).map(|i| vec![7; 10 + i % 3]).collect();
    let batch = table(vec![("input_ids", lists(&ids))]);
    let text = table(vec![("text", texts_as(DataType::Utf8))]);
    for (name, codec) in [("lz4", CompressionType::LZ4_FRAME), ("zstd", CompressionType::ZSTD)] {
        let options = || IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
        let path = |kind: &str| dir.path().join(format!("{name}-{kind}.arrow"));
        let file = |kind: &str| File::create(path(kind)).unwrap();
        let mut writer = FileWriter::try_new_with_options(file("ids"), &batch.schema(), options()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(rows(&path("ids")), ids, "{name}");
        assert!(!TokenFile::open(path("ids")).unwrap().is_mapped());
        let mut writer =
            StreamWriter::try_new_with_options(file("stream"), &batch.schema(), options()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(rows(&path("stream")), ids, "{name}");
        let mut writer = FileWriter::try_new_with_options(file("text"), &text.schema(), options()).unwrap();
        writer.write(&text).unwrap();
        writer.finish().unwrap();
        assert_eq!(read(&path("text")), TEXTS, "{name}");
    }
}

/// LZO, which no crate decodes: pages cannot be written with it, but the footer can say so.
#[test]
fn a_codec_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    write(&path, &table(vec![("input_ids", lists(&[vec![1, 2, 3]]))]), Compression::SNAPPY);
    let bytes = std::fs::read(&path).unwrap();
    // The codec is a one-byte zigzag number behind field 4 of the column's metadata: a field of type i32
    // after the path.
    let name = bytes
        .windows(7)
        .rposition(|window| window == b"element")
        .unwrap_or_else(|| bytes.windows(4).rposition(|window| window == b"item").unwrap());
    let codec = (name..bytes.len()).find(|i| bytes[*i..*i + 2] == [0x15, 0x02]).unwrap();
    let mut bad = bytes.clone();
    bad[codec + 1] = 0x06;
    File::create(&path).unwrap().write_all(&bad).unwrap();
    let found = message(TokenFile::open(&path));
    assert!(found.contains("x.parquet") && found.contains("LZO"), "{found}");
}
