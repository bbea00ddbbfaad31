//! Models, tokenizers and data sets by name: a folder, an embedded model, or a repository of the Hugging Face
//! hub.
//!
//! Repositories are kept in the cache that Python's huggingface_hub uses, and its variables are honoured:
//! HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE. What the cache has is used without asking
//! the network.

#[cfg(not(feature = "hub"))]
mod absent;
mod names;
#[cfg(feature = "hub")]
mod online;

use std::path::{Path, PathBuf};

use crate::base::embedded_file;
use crate::{Error, Result};
use names::EMBEDDED;

#[cfg(not(feature = "hub"))]
use absent::{model, tokenizer};
pub(crate) use names::{full_name, made_of};
#[cfg(feature = "hub")]
pub use online::*;

/// The folder of a model: a path as it is, a model in lnfree's `data/` (`nano`, `nano_vanilla200`,
/// `nano_LNFree200`), or a repository of the hub, which is downloaded if the cache does not have it.
///
/// # Errors
/// When it is none of these, or as [`model`].
pub fn locate_model(name_or_path: &str) -> Result<PathBuf> {
    locate(name_or_path, model)
}

/// The folder of a tokenizer, found as [`locate_model`] finds a model; of a repository only the tokenizer is
/// downloaded. The embedded models share that of `nano`.
///
/// # Errors
/// As [`locate_model`].
pub fn locate_tokenizer(name_or_path: &str) -> Result<PathBuf> {
    let embedded = EMBEDDED.contains(&name_or_path) && !Path::new(name_or_path).exists();
    locate(if embedded { EMBEDDED[0] } else { name_or_path }, tokenizer)
}

fn locate(name_or_path: &str, on_the_hub: impl FnOnce(&str) -> Result<PathBuf>) -> Result<PathBuf> {
    if !name_or_path.is_empty() && Path::new(name_or_path).exists() {
        return Ok(name_or_path.into());
    }
    match name_or_path {
        name if EMBEDDED.contains(&name) => embedded_model(name),
        // A hub that cannot be reached does not say what it was asked for, and the name may be a mistyped
        // path.
        name => on_the_hub(name).map_err(|error| match error.to_string() {
            said if said.contains(name) => error,
            said => Error::invalid(format!("{name}: no such folder here, and {said}")),
        }),
    }
}

/// The folder of a model that comes with lnfree.
///
/// # Errors
/// When there is none of this name, or it cannot be unpacked.
pub fn embedded_model(name: &str) -> Result<PathBuf> {
    match EMBEDDED.contains(&name) {
        true => embedded_file(name),
        false => Err(Error::invalid(format!("{name}: lnfree carries {}", EMBEDDED.join(", ")))),
    }
}
