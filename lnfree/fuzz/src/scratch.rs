//! Files of one input, in memory where the system has such a place.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder that goes when it is dropped.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// A new one.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn new() -> std::io::Result<Scratch> {
        let memory = Path::new("/dev/shm");
        let mut name = tempfile::Builder::new();
        let name = name.prefix("lnfree-fuzz-");
        let folder = match memory.is_dir() {
            true => name.tempdir_in(memory)?,
            false => name.tempdir()?,
        };
        Ok(Scratch { folder })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where `name` is, in a folder or not.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        if let Some(folder) = path.parent() {
            let _ = fs::create_dir_all(folder);
        }
        // Not being able to write is a fault of the machine, not of the input.
        if let Err(error) = fs::write(&path, bytes) {
            eprintln!("{}: {error}", path.display());
            std::process::exit(74);
        }
        path
    }

    /// Writes a file that is the same for all inputs, once.
    pub fn once(&self, name: &str, bytes: impl FnOnce() -> Vec<u8>) -> PathBuf {
        let path = self.file(name);
        if path.exists() { path } else { self.write(name, bytes()) }
    }
}
