//! Reading text documents from Parquet, JSON lines and plain text.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{first_line, guarded};
use crate::{Error, Result};

/// The column, or the key of each JSON object, that holds a document.
const TEXT: &str = "text";
/// What [`documents`] can read.
const EXTENSIONS: &str = ".parquet, .jsonl, .jsonl.zst or .txt";

/// A stream of documents; after an error it ends.
pub type Documents = Box<dyn Iterator<Item = Result<String>> + Send>;

/// The documents of a text file, or of all text files in a folder in name order, streamed.
///
/// - `.parquet`: the strings of column `text`, read one row group at a time; nulls are errors.
/// - `.jsonl`, `.jsonl.zst`: key `text` of the object on each line; blank lines are skipped.
/// - `.txt`: the whole file is one document (a blank line inside prose does not end it). For several, use a folder.
///
/// # Errors
/// At once if the path is missing, unreadable, of another kind, or a folder without such files; for content that
/// cannot be read, as an item of the stream.
pub fn documents(path: &Path) -> Result<Documents> {
    let metadata = fs::metadata(path).map_err(Error::io(path))?;
    if !metadata.is_dir() {
        return documents_of_file(path);
    }
    let files = text_files(path)?;
    if files.is_empty() {
        return Err(Error::file(path, format!("the folder has no {EXTENSIONS} file")));
    }
    Ok(Box::new(files.into_iter().flat_map(|file| {
        documents_of_file(&file).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
    })))
}

fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = super::files_in(folder)?;
    files.retain(|file| kind(file).is_some());
    Ok(files)
}

enum Kind {
    Parquet,
    JsonLines,
    JsonLinesZstd,
    Plain,
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    match name {
        n if n.ends_with(".parquet") => Some(Kind::Parquet),
        n if n.ends_with(".jsonl") => Some(Kind::JsonLines),
        n if n.ends_with(".jsonl.zst") => Some(Kind::JsonLinesZstd),
        n if n.ends_with(".txt") => Some(Kind::Plain),
        _ => None,
    }
}

fn documents_of_file(path: &Path) -> Result<Documents> {
    let kind =
        kind(path).ok_or_else(|| Error::file(path, format!("not a text file: expected {EXTENSIONS}")))?;
    let file = File::open(path).map_err(Error::io(path))?;
    match kind {
        Kind::Parquet => parquet(path, file),
        Kind::JsonLines => Ok(json_lines(path, BufReader::new(file))),
        Kind::JsonLinesZstd => {
            let decoder = zstd::Decoder::new(file).map_err(Error::io(path))?;
            Ok(json_lines(path, BufReader::new(decoder)))
        }
        Kind::Plain => {
            let bytes = fs::read(path).map_err(Error::io(path))?;
            let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "the text is not UTF-8"))?;
            Ok(Box::new(std::iter::once(Ok(text))))
        }
    }
}

fn parquet(path: &Path, file: File) -> Result<Documents> {
    let mut reader = guarded(path, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| damaged(path, e))?;
        let columns: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
        if !columns.iter().any(|name| name == TEXT) {
            return Err(Error::file(path, format!("no column `{TEXT}`; it has {}", columns.join(", "))));
        }
        let mask = ProjectionMask::columns(builder.parquet_schema(), [TEXT]);
        builder.with_projection(mask).build().map_err(|e| damaged(path, e))
    })?;
    let path = path.to_path_buf();
    let batches = std::iter::from_fn(move || {
        guarded(&path, || {
            let Some(batch) = reader.next() else { return Ok(None) };
            strings(&path, &batch.map_err(|e| damaged(&path, e))?).map(Some)
        })
        .transpose()
    });
    Ok(stop_at_error(batches.flat_map(|batch| match batch {
        Ok(texts) => texts.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    })))
}

/// The documents of one batch that was projected to the text column.
fn strings(path: &Path, batch: &RecordBatch) -> Result<Vec<String>> {
    let column = batch.column(0);
    if column.null_count() > 0 {
        return Err(Error::file(path, format!("column `{TEXT}` has nulls; remove those rows")));
    }
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().iter().map(own).collect()),
        DataType::LargeUtf8 => Ok(column.as_string::<i64>().iter().map(own).collect()),
        DataType::Utf8View => Ok(column.as_string_view().iter().map(own).collect()),
        other => Err(Error::file(path, format!("column `{TEXT}` is {other}, not a string"))),
    }
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::file(path, format!("cannot be read as Parquet: {}", first_line(error)))
}

fn json_lines(path: &Path, mut lines: impl BufRead + Send + 'static) -> Documents {
    let path = path.to_path_buf();
    let mut number = 0;
    let mut line = Vec::new();
    stop_at_error(std::iter::from_fn(move || {
        loop {
            line.clear();
            number += 1;
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => return Some(text_of(&path, number, &line)),
                Err(source) => return Some(Err(Error::Io { path: path.clone(), source })),
            }
        }
    }))
}

fn text_of(path: &Path, number: usize, line: &[u8]) -> Result<String> {
    let error = |message: String| Error::file(path, format!("line {number}: {message}"));
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|e| error(format!("not JSON: {e}")))?;
    match value.get(TEXT) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(error(format!("`{TEXT}` is not a string"))),
        None => Err(error(format!("no key `{TEXT}`"))),
    }
}

/// The items up to and including the first error: what follows it on a damaged file means nothing.
fn stop_at_error(items: impl Iterator<Item = Result<String>> + Send + 'static) -> Documents {
    let mut failed = false;
    Box::new(items.take_while(move |item| !std::mem::replace(&mut failed, item.is_err())))
}
