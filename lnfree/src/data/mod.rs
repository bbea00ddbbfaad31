//! Token files, text files, tokenizers and the order in which training sees its data.
//!
//! Text ([`text`]) becomes token files ([`prepare()`], with a [`tokenizer`]), which are read in place
//! ([`tokens`]) in a seeded order ([`order`]). [`resolve()`] turns the names of data sets into token files.

mod arrow_blocks;
mod arrow_buffers;
mod arrow_file;
mod arrow_rows;
mod chunker;
mod folder;
mod for_model;
#[cfg(feature = "hub")]
mod from_hub;
mod info;
mod json_lines;
pub(crate) mod loader;
mod long_line;
mod names;
pub mod numpy_rng;
#[cfg(feature = "hub")]
mod openwebtext;
pub mod order;
#[cfg(feature = "parquet")]
mod parquet_check;
#[cfg(feature = "parquet")]
mod parquet_file;
#[cfg(feature = "parquet")]
mod parquet_shapes;
#[cfg(feature = "parquet")]
mod parquet_text;
mod parts;
mod plain;
mod plain_text;
pub mod prepare;
mod prepared;
mod progress;
#[cfg(feature = "hub")]
mod recipes;
#[cfg(feature = "hub")]
mod remote_parquet;
mod repeats;
#[cfg(feature = "hub")]
mod repository;
mod resolve;
mod rows;
mod scheme;
mod sequences;
pub mod shuffles;
mod side_columns;
pub mod text;
#[cfg(feature = "parquet")]
mod thrift;
pub mod tokenizer;
pub mod tokens;
mod unpack;
#[cfg(not(feature = "parquet"))]
mod without_parquet;
mod write;

use std::path::Path;

use crate::base::caught::caught;
use crate::{Error, Result};

pub use crate::base::data_dir;
pub(crate) use arrow_blocks::open_arrow;
pub use for_model::{GPT2_VOCAB, dataset_options};
pub use info::{Info, info};
pub use loader::Loader;
pub(crate) use names::name_of_today;
pub use names::{DatasetOptions, Split};
#[cfg(feature = "hub")]
pub use openwebtext::{OWT_DOCUMENTS, owt_split};
pub use order::{Batches, DataOrder};
pub use prepare::{Prepared, prepare};
pub use prepared::{Provenance, Request, copy_prepared};
pub use repeats::Repeats;
pub use resolve::{open_dataset, open_dataset_with, prepare_text, resolve, resolve_with};
pub use scheme::ChunkScheme;
pub use tokenizer::Tokenizer;
pub use tokens::TokenFile;
pub(crate) use write::write_batch;
pub use write::{Layout, Written, write_tokens};

/// How a Parquet file starts.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// Runs a parser on bytes from outside, so that a panic inside it becomes an [`Error::File`] about `path`.
///
/// The parsers that this crate uses return errors for nearly all malformed input; this is for the rest of it.
pub(crate) fn guarded<T>(path: &Path, parse: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(|_| true, parse)
        .unwrap_or_else(|_| Err(Error::file(path, "the file is damaged (its parser gave up)")))
}

/// The files of a folder in name order; hidden ones are left out.
pub(crate) fn files_in(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_file() && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The first line of a library's message; some go on with a trace.
pub(crate) fn first_line(error: impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().trim().to_string()
}
