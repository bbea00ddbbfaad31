//! The named data sets on the hub, and the documents of each in the order of the paper's code.

use super::numpy_rng::NumpyRng;
use super::repository::{rows, train_files};
use super::rows::{Document, Row, Rows, stop_at_error};
use super::shuffles::{STREAM_BUFFER, shuffle_stream};
use crate::Result;
use crate::hub::DatasetRepo;

/// The paper's seed for all shuffles of evaluation texts.
const SEED: u64 = 42;
/// Parts of the Pile that are left out of evaluations.
const SKIPPED: [&str; 3] = ["OpenWebText2", "Books3", "BookCorpus2"];

/// In which order the rows of a repository come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `Dataset`: all rows are loaded; if there are more than n, n of a permutation, and these once more
    /// permuted.
    Table,
    /// `IterableDataset`: the first n rows, through a shuffle buffer.
    Stream,
    /// As they are stored, until there are sequences enough.
    Stored,
    /// OpenWebText's split, see [`super::openwebtext`].
    OpenWebText,
}

/// A data set on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// What the paper's code calls it.
    pub name: String,
    pub repository: String,
    pub order: Order,
}

impl Recipe {
    /// What a recipe does, in words.
    pub(super) fn says(&self) -> &'static str {
        match self.order {
            Order::Table => {
                "n rows of a permutation (seed 42) if there are more, permuted (seed 42), as one stream; of the Pile without \
                 OpenWebText2, Books3, BookCorpus2"
            }
            Order::Stream => {
                "the first n rows, shuffled with a buffer of 1000 (seed 42), as one stream; of the Pile without \
                 OpenWebText2, Books3, BookCorpus2"
            }
            Order::Stored => "rows in stored order, as one stream, until there are n sequences",
            Order::OpenWebText => {
                "validation: train_test_split(test_size 0.0005, seed 2357), batches of 512 documents of 32 shards; train: \
                 the other documents in stored order, as one stream, until there are n sequences"
            }
        }
    }
}

/// The recipe of a name: one of the paper's, or `ORG/NAME` of any repository.
pub(super) fn recipe(name: &str) -> Option<Recipe> {
    let (repository, order) = match name {
        "openwebtext" | "openwebtext-val" | "openwebtext-train" => {
            ("Skylion007/openwebtext", Order::OpenWebText)
        }
        "pile-apollo" => ("apollo-research/monology-pile-uncopyrighted-tokenizer-gpt2", Order::Stream),
        "pile-apollo-luca" => ("lucabaroni/apollo-pile-filtered-10k", Order::Table),
        "pile-10k" => ("NeelNanda/pile-10k", Order::Table),
        "pile-uncopyrighted" => ("monology/pile-uncopyrighted", Order::Stream),
        _ if name.split('/').count() == 2 && !name.starts_with(['.', '/']) => (name, Order::Stored),
        _ => return None,
    };
    // All three names are one data set; the split tells which part of it.
    let name = if order == Order::OpenWebText { "openwebtext" } else { name };
    Some(Recipe { name: name.into(), repository: repository.into(), order })
}

/// The documents of a repository, and the files that they are from.
///
/// # Errors
/// If there are no files, or they cannot be read; while reading, as an item.
pub(super) fn documents(
    repo: &DatasetRepo,
    order: Order,
    n: usize,
) -> Result<(impl Iterator<Item = Result<Document>> + use<>, Vec<String>)> {
    let files = train_files(repo)?;
    let ordered: Rows = match order {
        Order::Table => Box::new(table(rows(repo, files.clone(), usize::MAX), n)?.into_iter().map(Ok)),
        Order::Stream => stream(rows(repo, files.clone(), n)),
        Order::Stored | Order::OpenWebText => rows(repo, files.clone(), usize::MAX),
    };
    let documents =
        ordered.filter(move |row| order == Order::Stored || !skipped(row)).map(|row| Ok(row?.document));
    Ok((documents, files))
}

fn skipped(row: &Result<Row>) -> bool {
    let Ok(Row { pile_set: Some(name), .. }) = row else { return false };
    SKIPPED.contains(&name.as_str())
}

fn table(rows: Rows, n: usize) -> Result<Vec<Row>> {
    let mut rows = rows.collect::<Result<Vec<Row>>>()?;
    if n < rows.len() {
        rows = permuted(rows);
        rows.truncate(n);
    }
    Ok(permuted(rows))
}

/// `Dataset.shuffle(seed)`.
fn permuted(rows: Vec<Row>) -> Vec<Row> {
    let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
    let order = NumpyRng::new(SEED).permutation(rows.len() as u32);
    order.into_iter().filter_map(|i| rows[i as usize].take()).collect()
}

/// `IterableDataset.shuffle(seed)`. An error comes at once, and ends the stream.
fn stream(rows: Rows) -> Rows {
    let (failures, failed) = std::sync::mpsc::channel();
    let good = rows.map_while(move |row| row.map_err(|error| failures.send(error)).ok());
    let mut shuffled = shuffle_stream(good, SEED, STREAM_BUFFER);
    stop_at_error(std::iter::from_fn(move || {
        let row = shuffled.next();
        match failed.try_recv() {
            Ok(error) => Some(Err(error)),
            Err(_) => row.map(Ok),
        }
    }))
}
