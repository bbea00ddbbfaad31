//! What names on the hub come to in a build without the feature `hub`.

use std::path::PathBuf;

use crate::{Error, Result};

pub(super) fn model(name: &str) -> Result<PathBuf> {
    Err(without(name))
}

pub(super) fn tokenizer(name: &str) -> Result<PathBuf> {
    Err(without(name))
}

fn without(name: &str) -> Error {
    Error::invalid(format!(
        "{name}: no such folder here, and this build of lnfree has no hub: give a folder, or enable the feature `hub`"
    ))
}
