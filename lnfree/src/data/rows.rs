//! Documents of a table, as text or as ids, with the part of the Pile that they are from.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::arrow_file::sequences_of;
use super::guarded;
use super::plain::plain;
use super::sequences::INPUT_IDS;
use super::side_columns;
use crate::{Error, Result};

/// The column, or the key of each JSON object, that holds a document's text.
pub(super) const TEXT: &str = "text";
/// Where the Pile keeps what a document is of; its part is under [`PILE_SET`].
pub(super) const META: &str = "meta";
pub(super) const PILE_SET: &str = "pile_set_name";

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// Not tokenized; end-of-text is still to follow it.
    Text(String),
    /// Text that the next document goes on with: of a file that is too long to be held.
    Part(String),
    /// Tokenized by somebody else, taken as it is.
    Ids(Vec<u32>),
}

/// One row of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub document: Document,
    /// The part of the Pile, where the row says it.
    pub pile_set: Option<String>,
}

/// Rows in the order of their file; after an error nothing that follows means anything.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Row>> + Send>;

/// Columns to read of a table: its ids, with what says which of them count, or else its text; and what says
/// the part of the Pile.
///
/// # Errors
/// If it has neither; the message names what it has.
pub(super) fn columns_of(origin: &Path, schema: &Schema) -> Result<Vec<String>> {
    let has = |name: &str| schema.index_of(name).is_ok();
    let Some(document) = [INPUT_IDS, TEXT].into_iter().find(|name| has(name)) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let names = names.join(", ");
        return Err(Error::file(origin, format!("no column `{TEXT}` or `{INPUT_IDS}`; it has {names}")));
    };
    let mut names: Vec<String> =
        [document, META].into_iter().filter(|name| has(name)).map(String::from).collect();
    if document == INPUT_IDS {
        names.extend(side_columns::names(schema));
    }
    Ok(names)
}

/// The rows of a batch that has the columns of [`columns_of`]; `first_row` is for messages.
///
/// # Errors
/// If the documents are neither strings nor lists of integers, or some are null.
pub(super) fn rows_of(origin: &Path, first_row: usize, batch: &RecordBatch) -> Result<Vec<Row>> {
    let documents = match (batch.column_by_name(INPUT_IDS), batch.column_by_name(TEXT)) {
        (Some(_), _) => ids(origin, first_row, batch)?,
        (None, Some(column)) => texts(origin, column)?,
        (None, None) => columns_of(origin, &batch.schema()).map(|_| Vec::new())?,
    };
    let pile_sets = batch.column_by_name(META).map(pile_sets);
    Ok(documents
        .into_iter()
        .enumerate()
        .map(|(i, document)| {
            let pile_set = pile_sets.as_ref().and_then(|names| names.get(i).cloned().flatten());
            Row { document, pile_set }
        })
        .collect())
}

fn ids(origin: &Path, first_row: usize, batch: &RecordBatch) -> Result<Vec<Document>> {
    let sequences = sequences_of(origin, first_row, batch)?;
    let mut row = Vec::new();
    (0..sequences.len())
        .map(|i| {
            row.clear();
            let bad = |id| Error::file(origin, format!("row {}: id {id} is not a token id", first_row + i));
            sequences.copy(i, &mut row).map_err(|found| bad(found.id))?;
            let ids = row.iter().map(|id| u32::try_from(*id).map_err(|_| bad(*id)));
            Ok(Document::Ids(ids.collect::<Result<_>>()?))
        })
        .collect()
}

fn texts(origin: &Path, column: &ArrayRef) -> Result<Vec<Document>> {
    if column.logical_null_count() > 0 {
        return Err(Error::file(origin, format!("column `{TEXT}` has nulls; remove those rows")));
    }
    strings(column).map(|texts| texts.into_iter().flatten().map(Document::Text).collect()).ok_or_else(|| {
        Error::file(origin, format!("column `{TEXT}` is {}, not a string", column.data_type()))
    })
}

/// The values of a column of strings, of whatever kind.
fn strings(column: &ArrayRef) -> Option<Vec<Option<String>>> {
    let own = |text: Option<&str>| text.map(str::to_owned);
    let column = plain(column).ok()?;
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().map(own).collect(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().map(own).collect(),
        DataType::Utf8View => column.as_string_view().iter().map(own).collect(),
        _ => return None,
    })
}

fn pile_sets(meta: &ArrayRef) -> Vec<Option<String>> {
    meta.as_struct_opt().and_then(|meta| meta.column_by_name(PILE_SET)).and_then(strings).unwrap_or_default()
}

/// The rows of a reader's batches; `damaged` makes an error of what it says.
pub(super) fn rows_of_batches(
    path: &Path,
    mut batches: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send + 'static,
    damaged: fn(&Path, ArrowError) -> Error,
) -> Rows {
    let path = path.to_path_buf();
    let mut first_row = 0;
    let groups = std::iter::from_fn(move || {
        let next = guarded(&path, || {
            let Some(batch) = batches.next() else { return Ok(None) };
            rows_of(&path, first_row, &batch.map_err(|e| damaged(&path, e))?).map(Some)
        });
        first_row += next.as_ref().ok().and_then(|rows| rows.as_ref()).map_or(0, Vec::len);
        next.transpose()
    });
    stop_at_error(flattened(groups))
}

/// The rows of groups, one after the other.
pub(super) fn flattened(
    groups: impl Iterator<Item = Result<Vec<Row>>> + Send + 'static,
) -> impl Iterator<Item = Result<Row>> + Send + 'static {
    groups.flat_map(|group| match group {
        Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<Result<Row>>>(),
        Err(error) => vec![Err(error)],
    })
}

/// The items up to and including the first error: what follows it on a damaged file means nothing.
pub(super) fn stop_at_error<T>(
    items: impl Iterator<Item = Result<T>> + Send + 'static,
) -> Box<dyn Iterator<Item = Result<T>> + Send>
where
    T: 'static,
{
    let mut failed = false;
    Box::new(items.take_while(move |item| !std::mem::replace(&mut failed, item.is_err())))
}

/// What `work` makes of the jobs, in their order, with up to `threads` of them done ahead.
pub(super) fn read_ahead<J: Send + 'static, R: Send + 'static>(
    jobs: impl Iterator<Item = J> + Send,
    threads: usize,
    work: impl Fn(J) -> Result<R> + Send + Sync + 'static,
) -> impl Iterator<Item = Result<R>> + Send {
    let work = Arc::new(work);
    let mut jobs = jobs.fuse();
    let mut ahead: VecDeque<JoinHandle<Result<R>>> = VecDeque::new();
    std::iter::from_fn(move || {
        while ahead.len() < threads
            && let Some(job) = jobs.next()
        {
            let work = work.clone();
            ahead.push_back(std::thread::spawn(move || work(job)));
        }
        let done = ahead.pop_front()?;
        Some(done.join().unwrap_or_else(|_| Err(Error::invalid("a thread that reads data has ended badly"))))
    })
}
