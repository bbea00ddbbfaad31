//! OpenWebText: the peer's validation split, fetched document by document, and training documents that are
//! not in it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::progress::{Progress, Unit};
use super::remote_parquet::RemoteParquet;
use super::repository::{CONNECTIONS, rows, train_files};
use super::rows::{Document, read_ahead};
use super::shuffles::{TrainTest, train_test_split};
use crate::base::atomic::write_bytes;
use crate::base::console::say;
use crate::hub::DatasetRepo;
use crate::{Error, Result};

/// Documents in Skylion007/openwebtext.
pub const OWT_DOCUMENTS: usize = 8_013_769;
/// Share of the documents that is the validation split.
const TEST_SIZE: f64 = 0.0005;
const SEED: u64 = 2357;
/// zstd's level for the documents that are kept.
const LEVEL: i32 = 3;

/// The peer's split of OpenWebText, of as many documents as it has: `test` is the validation split, in its
/// order.
pub fn owt_split(n_documents: u32) -> TrainTest {
    train_test_split(n_documents, TEST_SIZE, SEED)
}

/// Documents of one file that are wanted: row groups, and rows in the file that are in each.
type Wanted = Vec<(usize, Vec<usize>)>;

/// A document of the validation split, as a line of a part.
#[derive(Serialize, Deserialize)]
struct Kept {
    row: u32,
    text: String,
}

/// The source files, with the footer of each, in order.
struct Tables {
    files: Vec<String>,
    tables: Vec<RemoteParquet>,
    /// First document of each file, and the count of documents as the last entry.
    starts: Vec<usize>,
}

impl Tables {
    fn open(repo: &DatasetRepo) -> Result<Self> {
        let files = train_files(repo)?;
        if let Some(other) = files.iter().find(|file| !file.ends_with(".parquet")) {
            return Err(Error::invalid(format!("data set {}: {other} is not Parquet", repo.id())));
        }
        let remote = repo.clone();
        let opened = read_ahead(files.clone().into_iter(), CONNECTIONS, move |file: String| {
            RemoteParquet::open(remote.open(&file)?)
        });
        let tables = opened.collect::<Result<Vec<_>>>()?;
        let mut starts = vec![0];
        for table in &tables {
            starts.push(starts[starts.len() - 1] + table.starts()[table.starts().len() - 1]);
        }
        Ok(Self { files, tables, starts })
    }

    /// The split, of as many documents as the footers say.
    fn split(&self, repo: &DatasetRepo) -> Result<TrainTest> {
        let n = self.starts[self.tables.len()];
        if n != OWT_DOCUMENTS {
            say(&format!(
                "{}: {n} documents where the published split is of {OWT_DOCUMENTS}: this is another split",
                repo.id()
            ));
        }
        let n = u32::try_from(n)
            .map_err(|_| Error::invalid(format!("data set {}: too many documents", repo.id())))?;
        Ok(owt_split(n))
    }

    /// The documents of one file, by row group: its index and their rows in the file.
    fn wanted(&self, file: usize, documents: &[u32]) -> Wanted {
        let (first, end) = (self.starts[file], self.starts[file + 1]);
        let mut rows: Vec<usize> = documents
            .iter()
            .map(|i| *i as usize)
            .filter(|i| (first..end).contains(i))
            .map(|i| i - first)
            .collect();
        rows.sort_unstable();
        let starts = self.tables[file].starts();
        let mut groups = Wanted::new();
        for row in rows {
            let group = starts.partition_point(|start| *start <= row) - 1;
            match groups.last_mut() {
                Some((last, rows)) if *last == group => rows.push(row),
                _ => groups.push((group, vec![row])),
            }
        }
        groups
    }
}

/// The texts of the validation split in its order, and the source files. Of the repository only the row
/// groups that hold one are fetched, and what was found in a source file is kept in `folder`, so that an
/// interrupted preparation goes on from there.
///
/// # Errors
/// If the repository cannot be read or is not Parquet, or the folder cannot be written.
pub(super) fn validation(repo: &DatasetRepo, folder: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let tables = Tables::open(repo)?;
    let order = tables.split(repo)?.test;
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let missing: Vec<(usize, Wanted)> = (0..tables.files.len())
        .map(|file| (file, tables.wanted(file, &order)))
        .filter(|(file, wanted)| !wanted.is_empty() && read_part(&part(folder, *file), wanted).is_none())
        .collect();
    let cost = |(file, wanted): &(usize, Wanted)| -> u64 {
        wanted.iter().map(|(group, _)| tables.tables[*file].bytes_of(*group)).sum()
    };
    let mut progress =
        Progress::new("openwebtext, validation split", Unit::Bytes, Some(missing.iter().map(cost).sum()));
    for (file, wanted) in missing {
        let kept = fetch(&tables, file, wanted, &mut progress)?;
        write_part(&part(folder, file), &kept)?;
    }
    let mut texts: HashMap<u32, String> = HashMap::new();
    for file in 0..tables.files.len() {
        let wanted = tables.wanted(file, &order);
        if wanted.is_empty() {
            continue;
        }
        let path = part(folder, file);
        let kept = read_part(&path, &wanted)
            .ok_or_else(|| Error::file(&path, "has changed while it was read; prepare the data set again"))?;
        let first = tables.starts[file] as u32;
        texts.extend(kept.into_iter().map(|kept| (first + kept.row, kept.text)));
    }
    let texts = order.iter().filter_map(|row| texts.remove(row)).collect();
    Ok((texts, tables.files))
}

/// The wanted documents of one source file.
fn fetch(tables: &Tables, file: usize, wanted: Wanted, progress: &mut Progress) -> Result<Vec<Kept>> {
    let table = tables.tables[file].clone();
    let origin = table.origin().to_path_buf();
    let bytes: Vec<u64> = wanted.iter().map(|(group, _)| table.bytes_of(*group)).collect();
    let groups = read_ahead(wanted.into_iter(), CONNECTIONS, move |(group, rows): (usize, Vec<usize>)| {
        let first = table.starts()[group];
        let mut all: Vec<_> = table.group(group)?.into_iter().map(Some).collect();
        rows.into_iter()
            .map(|row| match all[row - first].take().map(|row| row.document) {
                Some(Document::Text(text)) => Ok(Kept { row: row as u32, text }),
                _ => Err(Error::file(&origin, "holds no text")),
            })
            .collect::<Result<Vec<Kept>>>()
    });
    let mut kept = Vec::new();
    for (group, bytes) in groups.zip(bytes) {
        kept.extend(group?);
        progress.add(bytes);
    }
    Ok(kept)
}

fn part(folder: &Path, file: usize) -> PathBuf {
    folder.join(format!("validation-{file:05}.jsonl.zst"))
}

fn write_part(path: &Path, kept: &[Kept]) -> Result<()> {
    let mut lines = Vec::new();
    for document in kept {
        serde_json::to_writer(&mut lines, document).map_err(Error::invalid)?;
        lines.push(b'\n');
    }
    let packed = zstd::encode_all(lines.as_slice(), LEVEL).map_err(Error::io(path))?;
    write_bytes(path, &packed)
}

/// A part that is there, whole, and has exactly these rows.
fn read_part(path: &Path, wanted: &Wanted) -> Option<Vec<Kept>> {
    let mut text = String::new();
    zstd::Decoder::new(fs::File::open(path).ok()?).ok()?.read_to_string(&mut text).ok()?;
    let kept: Vec<Kept> = BufReader::new(text.as_bytes())
        .lines()
        .map(|line| serde_json::from_str(&line.ok()?).ok())
        .collect::<Option<_>>()?;
    let rows = wanted.iter().flat_map(|(_, rows)| rows).copied();
    kept.iter().map(|kept| kept.row as usize).eq(rows).then_some(kept)
}

/// Training documents in stored order, without those of the validation split. Source files are downloaded
/// into the hub's cache one after the other, as documents are asked for.
///
/// # Errors
/// As [`validation`]; while reading, as an item.
pub(super) fn training(
    repo: &DatasetRepo,
) -> Result<(impl Iterator<Item = Result<Document>> + use<>, Vec<String>)> {
    let tables = Tables::open(repo)?;
    let held_out: HashSet<u32> = tables.split(repo)?.test.into_iter().collect();
    let (files, repo) = (tables.files, repo.clone());
    let documents = files.clone().into_iter().flat_map(move |file| match repo.download(&file) {
        Ok(_) => rows(&repo, vec![file], usize::MAX),
        Err(error) => Box::new(std::iter::once(Err(error))),
    });
    let documents = documents
        .enumerate()
        .filter(move |(i, _)| !held_out.contains(&(*i as u32)))
        .map(|(_, row)| Ok(row?.document));
    Ok((documents, files))
}
