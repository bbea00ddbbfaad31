//! Repositories as the hub on 127.0.0.1 keeps them, and who may see them.

use std::collections::BTreeMap;

use sha1::Sha1;
use sha2::Digest;

use super::wire::hex;

/// The token that opens every door.
pub const GOOD_TOKEN: &str = "hf_good";
/// A token that the hub knows, of somebody who has accepted no conditions.
pub const OTHER_TOKEN: &str = "hf_other";

/// Who may read a repository.
#[derive(Clone, Copy, PartialEq)]
pub enum Access {
    Everybody,
    Gated,
    Private,
}

/// A repository of one commit.
#[derive(Clone)]
pub struct Repo {
    pub commit: String,
    pub access: Access,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Bytes that large files are said to have; 0 for those that they do have.
    pub large: usize,
}

impl Repo {
    pub fn new(files: &[(&str, Vec<u8>)]) -> Repo {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
        Repo { commit: commit_of(&files), access: Access::Everybody, files, large: 0 }
    }
}

/// A name for these files.
pub fn commit_of(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha1::new();
    files.iter().for_each(|(name, bytes)| {
        hash.update(name);
        hash.update(bytes);
    });
    hex(&hash.finalize())
}

/// What git keeps outside of itself.
pub fn is_large(file: &str) -> bool {
    [".safetensors", ".bin", ".parquet", ".zst"].iter().any(|end| file.ends_with(end))
}
