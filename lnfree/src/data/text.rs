//! Reading text documents from Parquet, Arrow, JSON lines and plain text.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arrow_rows::arrow_rows;
use super::folder::data_files;
use super::json_lines::json_rows;
#[cfg(feature = "parquet")]
use super::parquet_text::parquet_rows;
use super::plain_text::{Parts, parts};
use super::rows::{Document, TEXT, stop_at_error};
use super::unpack::unpacked;
#[cfg(not(feature = "parquet"))]
use super::without_parquet::parquet_rows;
use crate::{Error, Result};

/// What [`documents`] can read.
const EXTENSIONS: &str = ".parquet, .arrow, .jsonl, .jsonl.zst, .jsonl.gz or .txt";

/// A stream of documents; after an error it ends.
pub type Documents = Box<dyn Iterator<Item = Result<String>> + Send>;

/// The documents of a text file, or of the text files in a folder in name order, streamed.
///
/// - `.parquet`: the strings of column `text`, read one row group at a time; nulls are errors.
/// - `.arrow`, files and streams: likewise, one batch at a time.
/// - `.jsonl`, `.jsonl.zst`, `.jsonl.gz`: key `text` of the object on each line; blank lines are skipped.
/// - `.txt`: the whole file is one document (a blank line inside prose does not end it). For several, use a
///   folder.
/// - A folder of `datasets.save_to_disk`: the files that its `state.json` lists. Any other has to be of one
///   kind.
///
/// A byte order mark at the start of a file is no part of its text.
///
/// # Errors
/// At once if the path is missing, unreadable, of another kind, or a folder without such files; for content
/// that cannot be read, as an item of the stream.
pub fn documents(path: &Path) -> Result<Documents> {
    let mut parts = streamed(path, &Meter::default())?;
    Ok(Box::new(std::iter::from_fn(move || {
        let mut whole = String::new();
        loop {
            match parts.next()? {
                Ok(Document::Part(part)) => whole.push_str(&part),
                Ok(Document::Text(text)) if whole.is_empty() => return Some(Ok(text)),
                Ok(Document::Text(text)) => return Some(Ok(whole + &text)),
                Ok(Document::Ids(_)) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    })))
}

/// How many bytes of files have been read, and of how many.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    read: Arc<AtomicU64>,
}

impl Meter {
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// A file whose reading is counted.
struct Metered(File, Meter);

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// [`documents`], with plain text in parts, and counted.
///
/// # Errors
/// As there.
pub(super) fn streamed(path: &Path, meter: &Meter) -> Result<Parts> {
    if !fs::metadata(path).map_err(Error::io(path))?.is_dir() {
        return documents_of_file(path, meter);
    }
    let files = text_files(path)?;
    let meter = meter.clone();
    Ok(stop_at_error(files.into_iter().flat_map(move |file| {
        documents_of_file(&file, &meter).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
    })))
}

/// Bytes of the files of a text, where reading them can be counted.
pub(super) fn size_of(path: &Path) -> Option<u64> {
    let files = if path.is_dir() { text_files(path).ok()? } else { vec![path.to_path_buf()] };
    let counted = |file: &PathBuf| matches!(kind(file), Some(Kind::JsonLines | Kind::Plain));
    files.iter().map(|file| file.metadata().ok().filter(|_| counted(file)).map(|m| m.len())).sum()
}

fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = data_files(folder, TEXT, kind)?;
    match files.is_empty() {
        true => Err(Error::file(folder, format!("the folder has no {EXTENSIONS} file"))),
        false => Ok(files),
    }
}

#[derive(PartialEq)]
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

/// Whether a file's name says that it is text and no table.
pub(super) fn is_named_text(path: &Path) -> bool {
    matches!(kind(path), Some(Kind::JsonLines | Kind::Plain))
}

fn documents_of_file(path: &Path, meter: &Meter) -> Result<Parts> {
    let kind =
        kind(path).ok_or_else(|| Error::file(path, format!("not a text file: expected {EXTENSIONS}")))?;
    let file = File::open(path).map_err(Error::io(path))?;
    let rows = match kind {
        Kind::Parquet => parquet_rows(path, file)?,
        Kind::Arrow => arrow_rows(path)?,
        Kind::JsonLines => {
            let (name, file) = (path.to_string_lossy(), Box::new(Metered(file, meter.clone())));
            json_rows(path, BufReader::new(unpacked(path, &name, file)?))
        }
        Kind::Plain => return Ok(parts(path, Metered(file, meter.clone()))),
    };
    let path = path.to_path_buf();
    Ok(stop_at_error(rows.map(move |row| match row?.document {
        Document::Ids(_) => Err(Error::file(&path, "holds token ids and no text")),
        text => Ok(text),
    })))
}
