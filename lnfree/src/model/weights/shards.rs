//! Weights cut into several files, with an index that says which tensor is where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use tch::Tensor;

use super::{file_error, names, read_file};
use crate::{Error, Result};

/// More than any index needs.
const MAX_INDEX: u64 = 16 << 20;

/// `….index.json`; its `metadata` (total size) is not needed.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// All tensors of the shards that the index file `path` lists, under their stored names, masks left out.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let map = read_index(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let shards: BTreeSet<&String> = map.values().collect();
    check_complete(path, folder, &shards)?;
    let mut tensors = Vec::new();
    for shard in shards {
        let file = folder.join(shard);
        for (name, tensor) in read_file(&file)? {
            match map.get(&name) {
                Some(place) if place == shard => tensors.push((name, tensor)),
                Some(place) => {
                    let message = format!("holds `{name}`, which the index places in {place}");
                    return Err(file_error(&file, message));
                }
                None => {
                    return Err(file_error(&file, format!("holds `{name}`, which the index does not list")));
                }
            }
        }
    }
    let found: BTreeSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    match map.iter().find(|(name, _)| !names::is_mask(name) && !found.contains(name.as_str())) {
        Some((name, shard)) => Err(file_error(
            &folder.join(shard),
            format!("does not hold `{name}`, which the index places there"),
        )),
        None => Ok(tensors),
    }
}

/// Tensor name → file name, with file names that can only mean a file beside the index.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_INDEX + 1).read_to_end(&mut text).map_err(Error::io(path))?;
    if text.len() as u64 > MAX_INDEX {
        return Err(Error::file(path, "is too large for an index of shards"));
    }
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| file_error(path, format!("is not an index of shards: {e}")))?;
    for shard in index.weight_map.values() {
        let mut parts = Path::new(shard).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
            || shard.ends_with(".index.json")
        {
            return Err(file_error(path, format!("names a shard `{shard}`, which is not a file beside it")));
        }
    }
    if index.weight_map.is_empty() {
        return Err(Error::file(path, "lists no tensors"));
    }
    Ok(index.weight_map)
}

/// Every shard of the index is on the disk, and no shard of the same set lies beside them unlisted.
fn check_complete(path: &Path, folder: &Path, shards: &BTreeSet<&String>) -> Result<()> {
    if let Some(missing) = shards.iter().find(|shard| !folder.join(shard).is_file()) {
        let here = shards.iter().filter(|shard| folder.join(shard).is_file()).count();
        let message = format!("the shard {missing} is missing ({here} of {} are there)", shards.len());
        return Err(file_error(path, message));
    }
    let sets: BTreeSet<String> = shards.iter().filter_map(|shard| set_of(shard)).collect();
    let beside = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() };
    for entry in std::fs::read_dir(&beside).map_err(Error::io(&beside))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if set_of(&name).is_some_and(|set| sets.contains(&set)) && !shards.contains(&name) {
            return Err(file_error(path, format!("does not list the shard {name}, which lies beside it")));
        }
    }
    Ok(())
}

/// What the shards of one set have in common: `model-00001-of-00003.safetensors` → `model-of-00003.safetensors`.
fn set_of(name: &str) -> Option<String> {
    let (before, total) = name.split_once("-of-")?;
    let (stem, number) = before.rsplit_once('-')?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    numbered.then(|| format!("{stem}-of-{total}"))
}
