//! The model and the texts that come with lnfree: parts of the program, and a folder of them where a path is
//! needed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::atomic::write_dir_atomic;
use super::places::{cache_folder, repository};
use crate::{Error, Result};

/// Name within the folder, and content.
type File = (&'static str, &'static [u8]);

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!(concat!("../../data/", $name)))),*] };
}

static FILES: &[File] = files![
    "README.md",
    "interp.json",
    "moby-dick.parquet",
    "nano/config.json",
    "nano/merges.txt",
    "nano/model.safetensors",
    "nano/special_tokens_map.json",
    "nano/tokenizer.json",
    "nano/tokenizer_config.json",
    "nano/vocab.json",
    "nano_LNFree200/config.json",
    "nano_LNFree200/model.safetensors",
    "sotu-val.parquet",
    "study.json",
    "val.parquet",
];

/// What the package goes without, to stay small; the build script looks whether it is there.
#[cfg(whole_data)]
static FILES_OF_THE_REPOSITORY: &[File] = files![
    "nano_vanilla200/config.json",
    "nano_vanilla200/model.safetensors",
    "test.parquet",
    "train.parquet",
];
#[cfg(not(whole_data))]
static FILES_OF_THE_REPOSITORY: &[File] = &[];

fn files() -> impl Iterator<Item = &'static File> {
    FILES.iter().chain(FILES_OF_THE_REPOSITORY)
}

/// The folder with the embedded model and texts: that of the repository that one is in, or that the program
/// was built in; else one in `~/.cache/lnfree`, which is written when it is first needed.
///
/// # Errors
/// If it cannot be written.
pub fn data_dir() -> Result<PathBuf> {
    if let Some(repository) = repository() {
        return Ok(repository.join("data"));
    }
    let cache = cache_folder().ok_or_else(|| {
        Error::invalid("the embedded files need a cache folder: neither XDG_CACHE_HOME nor HOME is set")
    })?;
    unpacked(&cache)
}

/// A file of that folder, or a folder in it.
///
/// # Errors
/// As [`data_dir`], and if this build was made of the package and goes without it.
pub(crate) fn embedded_file(name: &str) -> Result<PathBuf> {
    let path = data_dir()?.join(name);
    match path.exists() {
        true => Ok(path),
        false => Err(Error::file(
            &path,
            "is not there; the package of this crate goes without it, a clone of lnfree's repository has it",
        )),
    }
}

/// The files in a folder of `cache`, whose name tells what is in them.
fn unpacked(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join(format!("data-{}", &digest()[..16]));
    let whole = |(name, bytes): &File| {
        std::fs::metadata(folder.join(name)).is_ok_and(|file| file.len() == bytes.len() as u64)
    };
    if !files().all(whole) {
        std::fs::create_dir_all(cache).map_err(Error::io(cache))?;
        write_dir_atomic(&folder, |folder| {
            files().try_for_each(|(name, bytes)| {
                let path = folder.join(name);
                let parent = path.parent().unwrap_or(folder);
                std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
                std::fs::write(&path, bytes).map_err(Error::io(&path))
            })
        })?;
    }
    Ok(folder)
}

/// SHA-256 of all names and contents, in hexadecimal digits.
fn digest() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let mut digest = Sha256::new();
        for (name, bytes) in files() {
            digest.update(name);
            digest.update(bytes);
        }
        super::hex(&digest.finalize())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_what_the_repository_has_and_is_mended() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpacked(cache.path()).unwrap();
        let repository = repository().unwrap().join("data");
        let mut n_files = 0;
        let mut folders = vec![repository.clone()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                    continue;
                }
                let name = entry.strip_prefix(&repository).unwrap();
                assert_eq!(
                    std::fs::read(&entry).unwrap(),
                    std::fs::read(folder.join(name)).unwrap(),
                    "{name:?}"
                );
                n_files += 1;
            }
        }
        assert_eq!(n_files, files().count());
        // Half a file, as a full disk leaves it.
        std::fs::write(folder.join(FILES[0].0), "half").unwrap();
        assert_eq!(unpacked(cache.path()).unwrap(), folder);
        assert_eq!(std::fs::read(folder.join(FILES[0].0)).unwrap(), FILES[0].1);
    }
}
