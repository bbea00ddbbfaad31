//! Weights cut into several files, with an index that says which tensor is where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use tch::Tensor;

use super::{file_error, names, read_file};
use crate::base::console::warn_once;
use crate::base::json;
use crate::{Error, Result};

/// More than any index needs.
const MAX_INDEX: u64 = 16 << 20;

/// `….index.json`; its `metadata` (total size) is not needed.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// All tensors of the shards that the index file `path` lists, under their stored names, masks left out.
///
/// The shards say what there is; the index says which files they are, and which of two shards is right when
/// both hold a tensor. A name that it lists and no shard holds is an error only where every GPT-2 needs it:
/// an index made before the head was tied lists `lm_head.weight`.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let map = read_index(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let shards: BTreeSet<&String> = map.values().collect();
    check_complete(path, folder, &shards)?;
    let mut found: BTreeMap<String, (&String, Tensor)> = BTreeMap::new();
    for shard in shards {
        let file = folder.join(shard);
        for (name, tensor) in read_file(&file)? {
            if let Some((other, _)) = found.get(&name) {
                match map.get(&name) {
                    Some(place) if place == *other => continue,
                    Some(place) if place == shard => {}
                    _ => return Err(file_error(&file, format!("holds `{name}`, and so does {other}"))),
                }
            }
            found.insert(name, (shard, tensor));
        }
    }
    match map.iter().find(|(name, _)| names::is_needed(name) && !found.contains_key(*name)) {
        Some((name, shard)) => Err(file_error(
            &folder.join(shard),
            format!("does not hold `{name}`, which the index places there"),
        )),
        None => Ok(found.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect()),
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
    let index: Index =
        json::from_slice(&text).map_err(|e| file_error(path, format!("is not an index of shards: {e}")))?;
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

/// Every shard of the index is on the disk. Of one of the same set that lies beside them unlisted it is told
/// that it is not read: the others may be all that is needed, and if not, that says why.
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
            let what = format!("does not list the shard {name}, which lies beside it and is not read");
            let line = file_error(path, what);
            warn_once(&line.to_string());
        }
    }
    Ok(())
}

/// What the shards of one set have in common: `model-00001-of-00003.safetensors` →
/// `model-of-00003.safetensors`.
fn set_of(name: &str) -> Option<String> {
    let (before, total) = name.split_once("-of-")?;
    let (stem, number) = before.rsplit_once('-')?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    numbered.then(|| format!("{stem}-of-{total}"))
}
