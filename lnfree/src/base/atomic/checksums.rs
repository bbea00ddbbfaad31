//! `SHA256SUMS`: the checksums of a folder's files, in the format of `sha256sum`, so that `sha256sum -c`
//! reads it too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

use super::write_atomic;
use crate::{Error, Result};

/// The name of the file with the checksums.
pub const CHECKSUMS: &str = "SHA256SUMS";

/// SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn sha256_file(path: &Path) -> Result<String> {
    digest_file(path, Sha256::new())
}

/// The digest of a file's bytes after those that `hasher` has seen, in lower-case hexadecimal digits.
pub(crate) fn digest_file(path: &Path, mut hasher: impl Digest) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io(path))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes [`CHECKSUMS`] into `dir`: one line for each file in it and in its subfolders, sorted by name.
///
/// # Errors
/// [`Error::Io`] or [`Error::File`] naming the file that cannot be read, is neither file nor folder, or has a
/// name that the format cannot carry.
pub fn write_checksums(dir: &Path) -> Result<()> {
    let mut text = String::new();
    for name in list(dir)? {
        text += &format!("{}  {name}\n", sha256_file(&dir.join(&name))?);
    }
    let path = dir.join(CHECKSUMS);
    write_atomic(&path, |file| file.write_all(text.as_bytes()).map_err(Error::io(&path)))
}

/// Checks every file that [`CHECKSUMS`] lists, and returns the names of files in `dir` that it does not list.
///
/// # Errors
/// [`Error::File`] naming the first file (by name) that is missing or is not what it was when the sums were
/// written, or the list itself when it is missing or damaged.
pub fn verify_checksums(dir: &Path) -> Result<Vec<String>> {
    let sums = read_checksums(dir)?;
    for (name, expected) in &sums {
        let path = dir.join(name);
        if !path.is_file() {
            let message = format!("is missing, and {CHECKSUMS} lists it: this folder is not complete");
            return Err(Error::file(&path, message));
        }
        let found = sha256_file(&path)?;
        if found != *expected {
            let size = fs::metadata(&path).map_err(Error::io(&path))?.len();
            let message = format!(
                "is not the file that was written: its {size} bytes have the sha256 {}…, {CHECKSUMS} says {}…",
                &found[..12],
                &expected[..12]
            );
            return Err(Error::file(&path, message));
        }
    }
    Ok(list(dir)?.into_iter().filter(|name| !sums.contains_key(name)).collect())
}

/// Whether `dir` has [`CHECKSUMS`] and every file that it lists; what is in them is not looked at.
pub(crate) fn has_listed_files(dir: &Path) -> bool {
    read_checksums(dir).is_ok_and(|sums| sums.keys().all(|name| dir.join(name).is_file()))
}

/// Name → checksum, from a list of which every line must be right.
fn read_checksums(dir: &Path) -> Result<BTreeMap<String, String>> {
    let path = dir.join(CHECKSUMS);
    if !path.is_file() {
        return Err(Error::file(&path, "is missing: this folder was not written completely"));
    }
    let text = fs::read(&path).map_err(Error::io(&path))?;
    let damaged = |line: usize| Error::file(&path, format!("line {line} is damaged"));
    let text = String::from_utf8(text).map_err(|_| Error::file(&path, "is damaged: not text"))?;
    let mut sums = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let (sum, name) =
            line.split_once("  ").or_else(|| line.split_once(" *")).ok_or_else(|| damaged(i + 1))?;
        let hex = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        // A list may only speak about files of its own folder.
        let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !hex || name.is_empty() || !inside || sums.insert(name.to_string(), sum.to_string()).is_some() {
            return Err(damaged(i + 1));
        }
    }
    if sums.is_empty() {
        return Err(Error::file(&path, "is empty: this folder was not written completely"));
    }
    Ok(sums)
}

/// The names of all files under `dir` but the list itself, relative to it, sorted.
fn list(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        for entry in fs::read_dir(&path).map_err(Error::io(&path))? {
            let entry = entry.map_err(Error::io(&path))?;
            let kind = entry.file_type().map_err(Error::io(entry.path()))?;
            let name = entry.file_name().into_string().ok().filter(|n| !n.contains(['\n', '\r', '\\']));
            let name = name.ok_or_else(|| {
                Error::file(entry.path(), format!("has a name that {CHECKSUMS} cannot hold"))
            })?;
            let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if kind.is_dir() {
                folders.push(name);
            } else if !entry.path().is_file() {
                return Err(Error::file(entry.path(), "is neither a file nor a folder"));
            } else if name != CHECKSUMS {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}
