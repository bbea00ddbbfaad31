//! Stands where this build has no Parquet, and says so of every Parquet file.

use std::convert::Infallible;
use std::fs::File;
use std::path::Path;

use super::rows::Rows;
use super::sequences::Sequences;
use crate::{Error, Result};

/// A Parquet file that is open, of which there is none.
#[derive(Debug)]
pub(super) struct ParquetFile(Infallible);

impl ParquetFile {
    pub(super) fn open(path: &Path, _: File, _: usize) -> Result<Self> {
        Err(missing(path))
    }

    pub(super) fn n_groups(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn rows_of(&self, _: usize) -> usize {
        match self.0 {}
    }

    pub(super) fn start_of(&self, _: usize) -> usize {
        match self.0 {}
    }

    pub(super) fn n_values(&self, _: usize) -> u64 {
        match self.0 {}
    }

    pub(super) fn has_side_columns(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn group(&self, _: usize) -> Result<Sequences> {
        match self.0 {}
    }
}

pub(super) fn parquet_rows(path: &Path, _: File) -> Result<Rows> {
    Err(missing(path))
}

fn missing(path: &Path) -> Error {
    Error::file(
        path,
        "is Parquet, which this build of lnfree leaves out: build it with its feature `parquet`",
    )
}
