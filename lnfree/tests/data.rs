//! Token files, texts, tokenizers, preparation and the order of training data.

#[path = "data/codecs.rs"]
mod codecs;
#[allow(dead_code)]
#[path = "hub/faults.rs"]
mod faults;
#[path = "data/folders.rs"]
mod folders;
#[path = "data/hub_sets.rs"]
mod hub_sets;
#[path = "data/hub_trouble.rs"]
mod hub_trouble;
#[path = "data/lines.rs"]
mod lines;
#[path = "data/loader.rs"]
mod loader;
#[path = "data/malformed.rs"]
mod malformed;
#[path = "data/masks.rs"]
mod masks;
#[path = "data/order.rs"]
mod order;
#[allow(dead_code)]
#[path = "hub/repo.rs"]
mod repo;
#[allow(dead_code)]
#[path = "hub/server.rs"]
mod server;
#[path = "data/settings.rs"]
mod settings;
#[path = "data/splits.rs"]
mod splits;
#[path = "data/texts.rs"]
mod texts;
#[path = "data/tokenizer.rs"]
mod tokenizer;
#[path = "data/tokens.rs"]
mod tokens;
#[allow(dead_code)]
#[path = "hub/uploads.rs"]
mod uploads;
#[allow(dead_code)]
#[path = "hub/wire.rs"]
mod wire;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, ListBuilder};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::record_batch::RecordBatch;
use lnfree::data::{Tokenizer, data_dir};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

fn nano() -> Tokenizer {
    Tokenizer::from_dir(data("nano")).unwrap()
}

/// A file of the vectors.
fn vector_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// A JSON file of the vectors.
fn vector(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(vector_path(name)).unwrap()).unwrap()
}

/// Something in the repository's `data/`.
fn data(name: &str) -> PathBuf {
    data_dir().unwrap().join(name)
}

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A column of int64 lists.
fn lists(rows: &[Vec<i64>]) -> ArrayRef {
    let mut builder = ListBuilder::new(Int64Builder::new());
    for row in rows {
        builder.values().append_slice(row);
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn write_parquet(path: &Path, batch: &RecordBatch, rows_per_group: usize) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_max_row_group_row_count(Some(rows_per_group))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn write_arrow(path: &Path, batches: &[RecordBatch]) {
    let mut writer = FileWriter::try_new(File::create(path).unwrap(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

fn write_stream(path: &Path, batches: &[RecordBatch]) {
    let mut writer = StreamWriter::try_new(File::create(path).unwrap(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

/// Puts a new file in the place of an old one, which may still be mapped. (Truncating it would also wait for
/// the disk.)
fn rewrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The message of what has to be an error: one line.
fn message<T>(result: lnfree::Result<T>) -> String {
    let Err(error) = result else { panic!("no error") };
    let message = error.to_string();
    assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    message
}
