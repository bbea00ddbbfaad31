//! Which files of a folder are its data: those that the manifest of `datasets` lists, or else all of one
//! kind.
//!
//! `Dataset.save_to_disk` leaves `state.json`, which lists the files; what else lies there (`cache-….arrow`
//! of `map` and `filter`) is no data. `DatasetDict.save_to_disk` leaves `dataset_dict.json`, which names the
//! splits, a folder each: of several, one has to be named. A folder without either is all of its files in
//! name order, which have to be of one kind and of one split.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::files_in;
use crate::base::json;
use crate::{Error, Result};

const STATE: &str = "state.json";
const SPLITS: &str = "dataset_dict.json";
/// Words in a file's name that tell its split, and what the split is called.
const WORDS: [(&str, &str); 8] = [
    ("train", "train"),
    ("training", "train"),
    ("test", "test"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("val", "validation"),
    ("dev", "validation"),
    ("eval", "eval"),
];

/// The data files of `folder`, in order; `kind` tells what can be read, and as what; `column` is what will be
/// read of tables.
///
/// # Errors
/// If the manifest lists what is not there, or rows in another order than stored; if there are several splits
/// or kinds; none is an empty list.
pub(super) fn data_files<K: PartialEq>(
    folder: &Path,
    column: &str,
    kind: impl Fn(&Path) -> Option<K>,
) -> Result<Vec<PathBuf>> {
    let folder = one_split(folder)?;
    let state = folder.join(STATE);
    if state.is_file() {
        let bytes = fs::read(&state).map_err(Error::io(&state))?;
        if let Some(names) = listed(&state, &bytes, Some(column))? {
            return there(&state, &folder, names);
        }
    }
    let mut files = files_in(&folder)?;
    files.retain(|file| kind(file).is_some() && !is_leftover(&name_of(file)));
    refuse_mixture(&folder, &files, |file| kind(file), "kinds")?;
    let split_of = |file: &Path| split_of(&name_of(file));
    let named: Vec<PathBuf> = files.iter().filter(|file| split_of(file).is_some()).cloned().collect();
    refuse_mixture(&folder, &named, split_of, "splits")?;
    Ok(files)
}

/// The folder itself, or that of the only split in it.
fn one_split(folder: &Path) -> Result<PathBuf> {
    let path = folder.join(SPLITS);
    if !path.is_file() {
        return Ok(folder.to_path_buf());
    }
    let bytes = fs::read(&path).map_err(Error::io(&path))?;
    let value: Value = json::from_slice(&bytes).map_err(|e| Error::file(&path, format!("not JSON: {e}")))?;
    let splits: Option<Vec<&str>> =
        value["splits"].as_array().and_then(|splits| splits.iter().map(Value::as_str).collect());
    match splits.as_deref() {
        Some([split]) => Ok(folder.join(split)),
        Some(splits @ [first, ..]) => Err(Error::file(
            folder,
            format!(
                "has the splits {}: name one of them, {}",
                splits.join(", "),
                folder.join(first).display()
            ),
        )),
        _ => Err(Error::file(&path, "`splits` is not a list of names")),
    }
}

/// The files that a `state.json` lists; none if it is not one of `datasets`.
///
/// # Errors
/// If it asks for rows that are not simply those of its files.
pub(super) fn listed(path: &Path, bytes: &[u8], column: Option<&str>) -> Result<Option<Vec<String>>> {
    let refused = |message: String| Err(Error::file(path, message));
    let state: Map<String, Value> = match json::from_slice(bytes) {
        Ok(Value::Object(state)) => state,
        Ok(_) => return Ok(None),
        Err(e) => return refused(format!("not JSON: {e}")),
    };
    let Some(files) = state.get("_data_files") else { return Ok(None) };
    for key in ["_indices_data_files", "_indices_files"] {
        let empty =
            state.get(key).is_none_or(|files| files.is_null() || files.as_array().is_some_and(Vec::is_empty));
        if !empty {
            return refused(format!(
                "`{key}`: its rows are a selection or a permutation of those in its files; save it again \
                after \
                 `dataset.flatten_indices()`"
            ));
        }
    }
    if let (Some(column), Some(Value::Array(shown))) = (column, state.get("_format_columns"))
        && !shown.iter().any(|name| name.as_str() == Some(column))
    {
        return refused(format!(
            "`_format_columns` leaves out `{column}`; save it again after `dataset.reset_format()`"
        ));
    }
    let names: Option<Vec<String>> = files.as_array().and_then(|files| {
        files.iter().map(|file| file.get("filename")?.as_str().map(String::from)).collect()
    });
    match names {
        Some(names) if !names.is_empty() => Ok(Some(names)),
        _ => refused("`_data_files` is not a list of files".into()),
    }
}

/// The paths of listed files, all of which are there.
fn there(state: &Path, folder: &Path, names: Vec<String>) -> Result<Vec<PathBuf>> {
    let path_of = |name: String| {
        let inside =
            Path::new(&name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            return Err(Error::file(
                state,
                format!("`_data_files` lists {name:?}, which is not in its folder"),
            ));
        }
        let path = folder.join(&name);
        match path.is_file() {
            true => Ok(path),
            false => Err(Error::file(state, format!("`_data_files` lists {name}, which is not there"))),
        }
    };
    names.into_iter().map(path_of).collect()
}

/// Whether a file is what `datasets` or an interrupted program left behind, and no data.
pub(super) fn is_leftover(name: &str) -> bool {
    let cached = name.starts_with("cache-") && name.ends_with(".arrow");
    cached || name.starts_with("tmp") || name.starts_with('.') || name.starts_with('~')
}

/// The split that the last telling word of a file's name says.
fn split_of(name: &str) -> Option<&'static str> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter_map(|word| WORDS.iter().find(|(telling, _)| *telling == word))
        .next_back()
        .map(|(_, split)| *split)
}

fn refuse_mixture<K: PartialEq>(
    folder: &Path,
    files: &[PathBuf],
    kind: impl Fn(&Path) -> Option<K>,
    what: &str,
) -> Result<()> {
    let Some(first) = files.first() else { return Ok(()) };
    let Some(other) = files.iter().find(|file| kind(file) != kind(first)) else { return Ok(()) };
    let (first, other) = (name_of(first), name_of(other));
    Err(Error::file(
        folder,
        format!(
            "has files of several {what} ({first}, {other}): name the file that is meant, or put its {what} \
            into folders"
        ),
    ))
}

fn name_of(file: &Path) -> String {
    file.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}
