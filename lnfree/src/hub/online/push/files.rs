//! The files of a folder as a push sees them: names, sizes, hashes, and lines of a commit.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::base::atomic::digest_file;
use crate::hub::online::cache::CONFIG;
use crate::{Error, Result};

/// Bytes of a file's beginning by which the hub tells text from other things.
const SAMPLE: usize = 512;
/// Bytes encoded at a time; a multiple of three.
const BLOCK: usize = 3 << 14;

/// A file to be pushed.
pub(super) struct LocalFile {
    /// In the repository, with `/` between folders.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Of the content, hexadecimal.
    pub(super) sha256: String,
    /// The first bytes.
    pub(super) sample: Vec<u8>,
}

/// The files of a model's folder, sorted by name; hidden ones are left out.
///
/// # Errors
/// When there is no config.json, or something cannot be read.
pub(super) fn files_of(folder: &Path) -> Result<Vec<LocalFile>> {
    if !folder.join(CONFIG).is_file() {
        return Err(Error::file(folder, "holds no model to push (it has no config.json)"));
    }
    let (mut folders, mut files) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(&inside).map_err(Error::io(&inside))? {
            let path = entry.map_err(Error::io(&inside))?.path();
            let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
            let name =
                name.ok_or_else(|| Error::file(&path, "has a name that is no text (UTF-8)"))?.to_string();
            if name.rsplit('/').next().is_some_and(|last| last.starts_with('.')) {
                continue;
            }
            if path.is_dir() { folders.push(path) } else { files.push(LocalFile::read(name, path)?) }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

impl LocalFile {
    fn read(name: String, path: PathBuf) -> Result<LocalFile> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        let size = file.metadata().map_err(Error::io(&path))?.len();
        let mut sample = Vec::new();
        file.take(SAMPLE as u64).read_to_end(&mut sample).map_err(Error::io(&path))?;
        Ok(LocalFile { name, size, sha256: digest_file(&path, Sha256::new())?, sample, path })
    }

    /// The hash by which git knows the content.
    pub(super) fn git_hash(&self) -> Result<String> {
        digest_file(&self.path, Sha1::new_with_prefix(format!("blob {}\0", self.size)))
    }

    /// Its line in a commit: the content itself, or the name of a large one.
    pub(super) fn write_line(&self, large: bool, out: &mut impl Write) -> io::Result<()> {
        if large {
            let value = json!({ "path": self.name, "algo": "sha256", "oid": self.sha256, "size": self.size });
            return writeln!(out, "{}", json!({ "key": "lfsFile", "value": value }));
        }
        // Written around the content, which base64 makes a plain string.
        write!(
            out,
            r#"{{"key":"file","value":{{"encoding":"base64","path":{},"content":""#,
            json!(self.name)
        )?;
        let file = File::open(&self.path)?;
        let mut block = Vec::with_capacity(BLOCK);
        while (&file).take(BLOCK as u64).read_to_end(&mut block)? > 0 {
            out.write_all(base64_of(&block).as_bytes())?;
            block.clear();
        }
        writeln!(out, r#""}}}}"#)
    }
}

pub(super) fn base64_of(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
