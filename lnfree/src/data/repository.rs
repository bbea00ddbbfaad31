//! The rows of a data set's repository on the hub: which of its files are the training split, and how they
//! are read.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::arrow_rows::arrow_rows;
use super::folder::{is_leftover, listed};
use super::json_lines::json_rows;
use super::plain_text::utf8;
use super::remote_parquet::RemoteParquet;
use super::rows::{Document, Row, Rows, flattened, read_ahead, stop_at_error};
use super::unpack::{unpacked, unreadable};
use crate::hub::DatasetRepo;
use crate::{Error, Result};

/// Row groups that are fetched at a time.
pub(super) const CONNECTIONS: usize = 8;
/// What can be read, the better ones first: a repository that has several formats has the same in each.
const FORMATS: [&[&str]; 4] = [&[".parquet"], &[".arrow"], &[".jsonl", ".jsonl.zst", ".jsonl.gz"], &[".txt"]];
/// Words in a file's name that tell the split it belongs to.
const TRAIN: [&str; 2] = ["train", "training"];
const OTHER: [&str; 6] = ["test", "validation", "valid", "val", "dev", "eval"];

/// The files of the training split, in name order: of the first format that there is, those whose names say
/// `train`, or those that say nothing of a split.
///
/// # Errors
/// If there are none, or they lie in several folders.
pub(super) fn train_files(repo: &DatasetRepo) -> Result<Vec<String>> {
    let mut files = pick(repo.files());
    if files.is_empty() {
        let there: Vec<String> =
            repo.files().iter().take(8).map(|name| name.escape_debug().to_string()).collect();
        return Err(Error::invalid(format!(
            "data set {}: no .parquet, .arrow, .jsonl (.zst, .gz) or .txt file of a training split; it has {}",
            repo.id(),
            if there.is_empty() { "nothing".into() } else { there.join(", ") }
        )));
    }
    files.sort();
    let folder = |file: &String| Path::new(file).parent().map(Path::to_path_buf);
    if let Some(other) = files.iter().find(|file| folder(file) != folder(&files[0])) {
        return Err(Error::invalid(format!(
            "data set {}: several folders of data ({}, {other}): download the one that is meant, and give its path",
            repo.id(),
            files[0]
        )));
    }
    manifest(repo, &files)?.map_or(Ok(files), Ok)
}

/// What the `state.json` of `save_to_disk` lists, where one lies beside the files.
fn manifest(repo: &DatasetRepo, files: &[String]) -> Result<Option<Vec<String>>> {
    let beside = |name: &str| Path::new(&files[0]).with_file_name(name).to_string_lossy().into_owned();
    let state = beside("state.json");
    if !files[0].ends_with(".arrow") || !repo.files().contains(&state) {
        return Ok(None);
    }
    let path = repo.download(&state)?;
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let Some(names) = listed(&path, &bytes, None)? else { return Ok(None) };
    let names: Vec<String> = names.iter().map(|name| beside(name)).collect();
    match names.iter().find(|name| !repo.files().contains(name)) {
        Some(missing) => {
            Err(Error::file(&path, format!("`_data_files` lists {missing}, which is not there")))
        }
        None => Ok(Some(names)),
    }
}

fn pick(files: &[String]) -> Vec<String> {
    for endings in FORMATS {
        let hidden = |file: &str| {
            let mut parts = file.rsplit('/');
            parts.next().is_some_and(is_leftover) || parts.any(|folder| folder.starts_with('.'))
        };
        let there: Vec<&String> = files
            .iter()
            .filter(|file| !hidden(file) && endings.iter().any(|end| file.ends_with(end)))
            .collect();
        let says = |file: &str, words: &[&str]| {
            file.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| words.contains(&word))
        };
        let train: Vec<&String> = there.iter().copied().filter(|file| says(file, &TRAIN)).collect();
        let found = match train.is_empty() {
            true => there.into_iter().filter(|file| !says(file, &OTHER)).collect(),
            false => train,
        };
        if !found.is_empty() {
            return found.into_iter().cloned().collect();
        }
    }
    Vec::new()
}

/// The rows of the files, one file after the other, the first `limit` of them: Parquet by row groups, of
/// which some are fetched ahead, JSON lines as a stream, Arrow downloaded. What is not read is not fetched.
pub(super) fn rows(repo: &DatasetRepo, files: Vec<String>, limit: usize) -> Rows {
    let repo = repo.clone();
    if files.iter().all(|file| file.ends_with(".parquet")) {
        return parquet_rows(repo, files, limit);
    }
    let rows = files
        .into_iter()
        .flat_map(move |file| file_rows(&repo, &file).unwrap_or_else(|e| Box::new(std::iter::once(Err(e)))));
    stop_at_error(rows.take(limit))
}

fn parquet_rows(repo: DatasetRepo, files: Vec<String>, limit: usize) -> Rows {
    let mut seen = 0;
    let jobs = files.into_iter().flat_map(move |file| {
        let open = || RemoteParquet::open(repo.open(&file)?);
        if seen >= limit {
            return Vec::new();
        }
        match open() {
            Err(error) => vec![Err(error)],
            Ok(table) => {
                let needed = table.starts().iter().take_while(|start| seen + **start < limit).count();
                let groups = needed.min(table.starts().len() - 1);
                seen += table.starts()[table.starts().len() - 1];
                (0..groups).map(|group| Ok((table.clone(), group))).collect()
            }
        }
    });
    let groups = read_ahead(jobs, CONNECTIONS, |job: Result<(RemoteParquet, usize)>| {
        let (table, group) = job?;
        table.group(group)
    });
    stop_at_error(flattened(groups).take(limit))
}

fn file_rows(repo: &DatasetRepo, file: &str) -> Result<Rows> {
    if file.ends_with(".arrow") {
        return arrow_rows(&repo.download(file)?);
    }
    let remote = repo.open(file)?;
    let origin = PathBuf::from(remote.name());
    let mut stream = remote.stream(0).map_err(|e| unreadable(&origin, e))?;
    if file.ends_with(".txt") {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map_err(|e| unreadable(&origin, e))?;
        let document = Document::Text(utf8(&origin, bytes)?);
        return Ok(Box::new(std::iter::once(Ok(Row { document, pile_set: None }))));
    }
    Ok(json_rows(&origin, BufReader::new(unpacked(&origin, file, stream)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_training_split() {
        for (files, found) in [
            (&["README.md", "b/train-1.parquet", "b/train-0.parquet", "b/test-0.parquet"][..], 2),
            (&["train/00.jsonl.zst", "train/01.jsonl.zst", "val.jsonl.zst", "test.jsonl.zst"], 2),
            (&["a.jsonl", "val.jsonl", "a.txt", ".gitattributes"], 1),
            (&["dataset_info.json", "data-00000-of-00001.arrow"], 1),
            (&["validation.parquet"], 0),
            (&[], 0),
        ] {
            let files: Vec<String> = files.iter().map(|name| name.to_string()).collect();
            assert_eq!(pick(&files).len(), found, "{files:?}");
        }
    }
}
