//! Reading text documents from Parquet, Arrow, JSON lines and plain text.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::repository::{arrow_rows, unpacked};
use super::rows::{Document, Rows, TEXT, flattened, json_rows, rows_of, stop_at_error};
use super::{first_line, guarded};
use crate::{Error, Result};

/// What [`documents`] can read.
const EXTENSIONS: &str = ".parquet, .arrow, .jsonl, .jsonl.zst, .jsonl.gz or .txt";

/// A stream of documents; after an error it ends.
pub type Documents = Box<dyn Iterator<Item = Result<String>> + Send>;

/// The documents of a text file, or of all text files in a folder in name order, streamed.
///
/// - `.parquet`: the strings of column `text`, read one row group at a time; nulls are errors.
/// - `.arrow`, files and streams: likewise, one batch at a time.
/// - `.jsonl`, `.jsonl.zst`, `.jsonl.gz`: key `text` of the object on each line; blank lines are skipped.
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
    Arrow,
    JsonLines,
    Plain,
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    match name {
        n if n.ends_with(".parquet") => Some(Kind::Parquet),
        n if n.ends_with(".arrow") => Some(Kind::Arrow),
        n if [".jsonl", ".jsonl.zst", ".jsonl.gz"].iter().any(|end| n.ends_with(end)) => {
            Some(Kind::JsonLines)
        }
        n if n.ends_with(".txt") => Some(Kind::Plain),
        _ => None,
    }
}

fn documents_of_file(path: &Path) -> Result<Documents> {
    let kind =
        kind(path).ok_or_else(|| Error::file(path, format!("not a text file: expected {EXTENSIONS}")))?;
    let file = File::open(path).map_err(Error::io(path))?;
    let rows = match kind {
        Kind::Parquet => parquet(path, file)?,
        Kind::Arrow => arrow_rows(path)?,
        Kind::JsonLines => {
            let name = path.to_string_lossy();
            json_rows(path, BufReader::new(unpacked(path, &name, Box::new(file))?))
        }
        Kind::Plain => {
            let bytes = fs::read(path).map_err(Error::io(path))?;
            let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "the text is not UTF-8"))?;
            return Ok(Box::new(std::iter::once(Ok(text))));
        }
    };
    let path = path.to_path_buf();
    Ok(stop_at_error(rows.map(move |row| match row?.document {
        Document::Text(text) => Ok(text),
        Document::Ids(_) => Err(Error::file(&path, "holds token ids and no text")),
    })))
}

fn parquet(path: &Path, file: File) -> Result<Rows> {
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
    let mut first_row = 0;
    let batches = std::iter::from_fn(move || {
        let batch = guarded(&path, || {
            let Some(batch) = reader.next() else { return Ok(None) };
            rows_of(&path, first_row, &batch.map_err(|e| damaged(&path, e))?).map(Some)
        });
        first_row += batch.as_ref().ok().and_then(|rows| rows.as_ref()).map_or(0, Vec::len);
        batch.transpose()
    });
    Ok(stop_at_error(flattened(batches)))
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::file(path, format!("cannot be read as Parquet: {}", first_line(error)))
}
