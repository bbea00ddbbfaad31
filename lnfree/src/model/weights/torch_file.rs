//! Files that `torch.save` wrote: a zip archive (since PyTorch 1.6) or a chain of pickles (before).

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use tch::{Kind, Tensor};

use super::pickle::{MAX_PICKLE, Unpickled, unpickle};
use super::pickle_values::{Storage, View};
use super::zip::Archive;
use super::{Why, names, raw};

/// How files before 1.6 begin: a pickle of PyTorch's magic number, and one of this format's version, 1001.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";

/// The tensors of an open file under their stored names, masks left out.
pub(super) fn read(file: &mut File) -> Why<Vec<(String, Tensor)>> {
    let mut start = Vec::new();
    let rewound = file.take(32).read_to_end(&mut start).and_then(|_| file.rewind());
    rewound.map_err(|e| e.to_string())?;
    if start.starts_with(b"PK\x03\x04") {
        read_zip(file)
    } else if start.starts_with(LEGACY) {
        read_legacy(file)
    } else if start.is_empty() {
        Err("is empty".into())
    } else if start.get(8) == Some(&b'{') {
        Err("looks like a safetensors file; give it the extension .safetensors".into())
    } else {
        Err("is not a file that torch.save wrote (neither zip nor the format before PyTorch 1.6)".into())
    }
}

fn read_zip(file: &mut File) -> Why<Vec<(String, Tensor)>> {
    let mut archive = Archive::open(file)?;
    let pickle = archive.entries.iter().position(|e| e.name == "data.pkl" || e.name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or("is a zip archive without data.pkl: torch.save did not write it")?;
    let prefix = archive.entries[pickle].name.trim_end_matches("data.pkl").to_string();
    let bytes = small_entry(&mut archive, pickle, MAX_PICKLE)?;
    if let Some(order) = archive.find(&format!("{prefix}byteorder"))
        && small_entry(&mut archive, order, 16)? != b"little"
    {
        return Err("was written on a big-endian machine; save it again on a little-endian one".into());
    }
    let places: HashMap<String, usize> =
        archive.entries.iter().enumerate().map(|(i, entry)| (entry.name.clone(), i)).collect();
    let most = archive.length;
    build(&unpickle(&bytes)?, most, |storage| {
        let name = format!("{prefix}data/{}", storage.key);
        let place = *places.get(&name).ok_or_else(|| format!("its storage {} is missing", storage.key))?;
        let (expected, found) = (storage.bytes()?, archive.entries[place].size);
        if expected != found {
            return Err(format!("its storage {} has {found} bytes instead of {expected}", storage.key));
        }
        raw::tensor_filled(&[storage.numel], storage.kind, |bytes| archive.read(place, bytes))
    })
}

/// Reads an entry that has to be small.
fn small_entry(archive: &mut Archive, index: usize, most: usize) -> Why<Vec<u8>> {
    let entry = &archive.entries[index];
    if entry.size > archive.length {
        return Err(format!("its {} has {} bytes, more than the file", entry.name, entry.size));
    }
    if entry.size > most as u64 {
        return Err(format!("its {} has {} bytes; at most {most} make sense", entry.name, entry.size));
    }
    let mut bytes = vec![0; entry.size as usize];
    archive.read(index, &mut bytes)?;
    Ok(bytes)
}

/// Before 1.6: four pickles (magic, version, machine, the object), one with the list of storages, and for
/// each of them its number of elements and its bytes.
fn read_legacy(file: &mut File) -> Why<Vec<(String, Tensor)>> {
    let io = |e: std::io::Error| e.to_string();
    let length = file.metadata().map_err(io)?.len();
    let mut start = Vec::new();
    Read::take(&mut *file, 2 * MAX_PICKLE as u64).read_to_end(&mut start).map_err(io)?;
    let mut position = LEGACY.len();
    let machine = next_pickle(&start, &mut position)?;
    if machine.flag("little_endian") != Some(true) {
        return Err("was not written on a little-endian machine".into());
    }
    let object = next_pickle(&start, &mut position)?;
    let keys = next_pickle(&start, &mut position)?;
    let places = legacy_places(file, &object, &keys.names()?, position as u64, length)?;
    build(&object, length, |storage| {
        let place =
            *places.get(storage.key).ok_or_else(|| format!("its storage {} is missing", storage.key))?;
        file.seek(SeekFrom::Start(place)).map_err(io)?;
        raw::tensor_filled(&[storage.numel], storage.kind, |bytes| {
            file.read_exact(bytes).map_err(|_| "is truncated; fetch the file again".to_string())
        })
    })
}

/// Runs the pickle at `position` and steps over it.
fn next_pickle<'a>(bytes: &'a [u8], position: &mut usize) -> Why<Unpickled<'a>> {
    let unpickled = unpickle(bytes.get(*position..).unwrap_or_default())?;
    *position += unpickled.length;
    Ok(unpickled)
}

/// Where the data of each storage is in an old file; each has to lie inside the file and have the size it is
/// used with.
fn legacy_places<'a>(
    file: &mut File,
    object: &Unpickled<'a>,
    keys: &[&'a str],
    mut position: u64,
    length: u64,
) -> Why<HashMap<&'a str, u64>> {
    let storages: HashMap<&str, &Storage> = object.storages().iter().map(|s| (s.key, s)).collect();
    let mut places = HashMap::new();
    for key in keys {
        let storage = storages.get(key).ok_or_else(|| format!("its storage {key} belongs to no tensor"))?;
        let mut numel = [0; 8];
        let read = file.seek(SeekFrom::Start(position)).and_then(|_| file.read_exact(&mut numel));
        read.map_err(|_| "is truncated; fetch the file again")?;
        if i64::from_le_bytes(numel) != storage.numel {
            return Err(format!("its storage {key} has not the size that its tensors were saved with"));
        }
        places.insert(*key, position + 8);
        let end = (position + 8).checked_add(storage.bytes()?).filter(|&end| end <= length);
        position = end.ok_or("is truncated; fetch the file again")?;
    }
    Ok(places)
}

/// Makes the tensors that a pickle describes. `load` reads a storage; each is read once, and only if a tensor
/// needs it. All together may not take more memory than `most` bytes, the file's length: entries of a zip can
/// overlap.
fn build<'a>(
    unpickled: &Unpickled<'a>,
    mut most: u64,
    mut load: impl FnMut(&Storage<'a>) -> Why<Tensor>,
) -> Why<Vec<(String, Tensor)>> {
    let storages = unpickled.storages();
    let mut loaded: Vec<Option<Tensor>> = storages.iter().map(|_| None).collect();
    let mut tensors = Vec::new();
    for (name, view) in unpickled.tensors()? {
        if names::is_mask(name) {
            continue;
        }
        let storage = &storages[view.storage];
        view.check(storage.numel).map_err(|why| format!("`{name}`: {why}"))?;
        let data = match loaded[view.storage].take() {
            Some(data) => data,
            None => {
                let left = most.checked_sub(storage.bytes()?);
                most = left.ok_or("describes more data than the file has: it is damaged")?;
                load(storage).map_err(|why| format!("`{name}`: {why}"))?
            }
        };
        let tensor = slice(&data, view, storage.kind).map_err(|why| format!("`{name}`: {why}"))?;
        loaded[view.storage] = Some(data);
        tensors.push((name.to_string(), tensor));
    }
    Ok(tensors)
}

/// The tensor that `view` cuts out of the storage `data`.
fn slice(data: &Tensor, view: &View, kind: Kind) -> Why<Tensor> {
    if view.numel() == Some(0) {
        return raw::tensor_filled(&view.shape, kind, |_| Ok(()));
    }
    data.f_as_strided(&view.shape, &view.stride, view.offset).map_err(raw::torch)
}
