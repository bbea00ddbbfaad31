//! The files that a set of token sequences is made of, and their batches or row groups.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Schema;

use super::arrow_blocks::{MAGIC, open_arrow};
use super::arrow_file::{self, ArrowFile};
use super::folder::data_files;
#[cfg(feature = "parquet")]
use super::parquet_check::read_schema;
#[cfg(feature = "parquet")]
use super::parquet_file::ParquetFile;
use super::sequences::{INPUT_IDS, Sequences};
#[cfg(not(feature = "parquet"))]
use super::without_parquet::ParquetFile;
use super::{PARQUET_MAGIC, guarded};
use crate::{Error, Result};

/// Arrow files with a checksum are checked when they are opened if their ids take at most this many bytes.
const CHECK_AT_OPEN: usize = 1 << 28;

/// One file of the set.
#[derive(Debug)]
pub(super) struct Part {
    pub path: PathBuf,
    pub checksum: Option<u32>,
    pub mapped: bool,
}

/// Consecutive sequences of one part.
#[derive(Debug)]
pub(super) struct Chunk {
    pub part: usize,
    /// Row of the part that the chunk starts with.
    pub first_row: usize,
    pub rows: usize,
    pub tokens: u64,
    /// The length of all its sequences, if they are equally long.
    pub uniform: Option<usize>,
    pub source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    Resident(Sequences),
    RowGroup(Arc<ParquetFile>, usize),
}

impl Chunk {
    fn resident(part: usize, first_row: usize, sequences: Sequences) -> Self {
        let (rows, tokens) = (sequences.len(), sequences.n_tokens() as u64);
        let uniform = sequences.uniform_length();
        Self { part, first_row, rows, tokens, uniform, source: Source::Resident(sequences) }
    }

    pub(super) fn load(&self, path: &Path) -> Result<Sequences> {
        let (file, group) = match &self.source {
            Source::Resident(sequences) => return Ok(sequences.clone()),
            Source::RowGroup(file, group) => (file, *group),
        };
        let sequences = file.group(group)?;
        // At opening, the metadata was taken at its word.
        if sequences.n_tokens() as u64 != self.tokens || sequences.uniform_length() != self.uniform {
            let last = self.first_row + self.rows - 1;
            return Err(Error::file(
                path,
                format!("rows {} to {last} differ in length from the others", self.first_row),
            ));
        }
        Ok(sequences)
    }
}

/// The token files of a folder, as written by `datasets.save_to_disk` or downloaded from the hub: see
/// [`super::folder`].
pub(super) fn token_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let table =
        |file: &Path| file.extension().filter(|end| *end == "arrow" || *end == "parquet").map(Into::into);
    let files = data_files::<OsString>(folder, INPUT_IDS, table)?;
    if !files.is_empty() {
        return Ok(files);
    }
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?.flatten();
    let mut folders: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let hint = match folders.is_empty() {
        true => String::new(),
        false => format!("; it has the folders {}: name one of them", folders.join(", ")),
    };
    Err(Error::file(folder, format!("no .arrow or .parquet file in it{hint}")))
}

/// Whether a file or a folder is of tables with a column of ids, whatever else is wrong with it.
pub(super) fn holds_ids(path: &Path) -> bool {
    let files = if path.is_dir() { token_files(path).unwrap_or_default() } else { vec![path.into()] };
    files.first().is_some_and(|file| has_ids(file))
}

/// Whether a file is a table with a column of ids, whatever else is wrong with it.
fn has_ids(path: &Path) -> bool {
    let named = |schema: &Schema| schema.index_of(INPUT_IDS).is_ok();
    let found = guarded(path, || {
        let mut file = File::open(path).map_err(Error::io(path))?;
        #[cfg(feature = "parquet")]
        if let Ok(table) = read_schema(&file) {
            return Ok(named(table.schema()));
        }
        // What is no file of Arrow's and has not a stream's first mark may be anything, of any length.
        let mut start = [0; MAGIC.len()];
        file.rewind().and_then(|()| file.read_exact(&mut start)).map_err(Error::io(path))?;
        let known = start == *MAGIC || start.starts_with(&[0xff; 4]);
        Ok(known && named(&open_arrow(path)?.schema()))
    });
    found.unwrap_or(false)
}

/// Opens one file, by its content and not its name, and appends its chunks.
pub(super) fn open_part(path: &Path, index: usize, budget: usize, chunks: &mut Vec<Chunk>) -> Result<Part> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut mark = Vec::new();
    (&mut file).take(6).read_to_end(&mut mark).map_err(Error::io(path))?;
    if mark.is_empty() {
        return Err(Error::file(path, "the file is empty"));
    }
    if mark.starts_with(PARQUET_MAGIC) {
        return open_parquet(path, file, index, budget, chunks);
    }
    let ArrowFile { batches, checksum, mapped } = arrow_file::open(path, &file)?;
    let small = batches.iter().map(Sequences::n_bytes).sum::<usize>() <= CHECK_AT_OPEN;
    let (start, mut row) = (chunks.len(), 0);
    for sequences in batches.into_iter().filter(|sequences| sequences.len() > 0) {
        chunks.push(Chunk::resident(index, row, sequences));
        row += chunks[chunks.len() - 1].rows;
    }
    let part = Part { path: path.to_path_buf(), checksum, mapped };
    if small {
        check(&part, index, &chunks[start..])?;
    }
    Ok(part)
}

/// Compares a part's checksum, if it has one, with its ids.
pub(super) fn check(part: &Part, index: usize, chunks: &[Chunk]) -> Result<()> {
    let Some(expected) = part.checksum else { return Ok(()) };
    let mut found = 0;
    for chunk in chunks.iter().filter(|chunk| chunk.part == index) {
        found = chunk.load(&part.path)?.crc32c(found);
    }
    match found == expected {
        true => Ok(()),
        false => {
            Err(Error::file(&part.path, "the file is damaged: its checksum does not match; write it again"))
        }
    }
}

fn open_parquet(
    path: &Path,
    file: File,
    index: usize,
    budget: usize,
    chunks: &mut Vec<Chunk>,
) -> Result<Part> {
    let part = Part { path: path.to_path_buf(), checksum: None, mapped: false };
    let file = Arc::new(ParquetFile::open(path, file, budget)?);
    let groups: Vec<usize> = (0..file.n_groups()).filter(|group| file.rows_of(*group) > 0).collect();
    let Some(first) = groups.first() else { return Ok(part) };

    let sample = file.group(*first)?;
    let width = sample.n_bytes().div_ceil(sample.n_tokens().max(1));
    let values: u64 = groups.iter().map(|group| file.n_values(*group)).sum();
    let resident = values.saturating_mul(width as u64) <= budget as u64;
    // Where the metadata is as it would be for equally long rows, it is believed until a row group is read.
    let promised =
        |group: usize, length: usize| file.n_values(group) == (length * file.rows_of(group)) as u64;
    let told = !file.has_side_columns();
    let uniform = sample.uniform_length().filter(|n| told && groups.iter().all(|group| promised(*group, *n)));

    for group in groups {
        let (first_row, rows) = (file.start_of(group), file.rows_of(group));
        let chunk = match uniform {
            Some(length) if !resident => Chunk {
                part: index,
                first_row,
                rows,
                tokens: (length * rows) as u64,
                uniform: Some(length),
                source: Source::RowGroup(file.clone(), group),
            },
            _ => {
                let mut chunk = Chunk::resident(index, first_row, file.group(group)?);
                if !resident {
                    chunk.source = Source::RowGroup(file.clone(), group);
                }
                chunk
            }
        };
        chunks.push(chunk);
    }
    Ok(part)
}
