//! Reading and writing weights, configs and whole folders: what is right is read exactly, what is wrong ends
//! in one line.

mod adapters;
mod atomic;
mod config;
mod damaged;
mod files;
mod finite;
mod folders;
mod generation;
mod malicious;
mod read;
mod shards;
mod wrappers;
mod write;

use std::path::{Path, PathBuf};

use lnfree::model::weights::{Weights, read_weights};
use lnfree::{Error, Result};

/// A file of this crate's test vectors.
fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// The message of an error, which has to be one short line.
fn line<T>(result: Result<T>) -> String {
    let message = match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.to_string(),
    };
    assert!(!message.contains('\n') && message.len() < 1000, "not one line: {message}");
    message
}

/// Writes `bytes` as `name` into a new folder and reads it; the folder lives as long as the first value.
fn read_bytes(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Result<Weights>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let result = read_weights(&path);
    if let Err(Error::File { path: named, .. }) = &result {
        assert_eq!(*named, path, "the message names another file");
    }
    (folder, result)
}
