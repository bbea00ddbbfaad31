//! Documents of a table or of JSON lines, as text or as ids, with the part of the Pile that they are from.

use std::collections::VecDeque;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use super::sequences::{INPUT_IDS, Sequences};
use crate::{Error, Result};

/// The column, or the key of each JSON object, that holds a document's text.
pub(super) const TEXT: &str = "text";
/// Where the Pile keeps what a document is of; its part is under [`PILE_SET`].
const META: &str = "meta";
const PILE_SET: &str = "pile_set_name";

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// Not tokenized; end-of-text is still to follow it.
    Text(String),
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

/// Columns to read of a table: its ids or else its text, and what says the part of the Pile.
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
    Ok([document, META].into_iter().filter(|name| has(name)).map(String::from).collect())
}

/// The rows of a batch that has the columns of [`columns_of`]; `first_row` is for messages.
///
/// # Errors
/// If the documents are neither strings nor lists of integers, or some are null.
pub(super) fn rows_of(origin: &Path, first_row: usize, batch: &RecordBatch) -> Result<Vec<Row>> {
    let documents = match (batch.column_by_name(INPUT_IDS), batch.column_by_name(TEXT)) {
        (Some(column), _) => ids(origin, first_row, column)?,
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

fn ids(origin: &Path, first_row: usize, column: &ArrayRef) -> Result<Vec<Document>> {
    let sequences = Sequences::from_column(origin, first_row, column)?;
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
    if column.null_count() > 0 {
        return Err(Error::file(origin, format!("column `{TEXT}` has nulls; remove those rows")));
    }
    strings(column).map(|texts| texts.into_iter().flatten().map(Document::Text).collect()).ok_or_else(|| {
        Error::file(origin, format!("column `{TEXT}` is {}, not a string", column.data_type()))
    })
}

/// The values of a column of strings, of whatever kind.
fn strings(column: &ArrayRef) -> Option<Vec<Option<String>>> {
    let own = |text: Option<&str>| text.map(str::to_owned);
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

/// The rows of JSON lines: an object each, with [`TEXT`] or `input_ids`; blank lines are skipped.
pub(super) fn json_rows(origin: &Path, mut lines: impl BufRead + Send + 'static) -> Rows {
    let origin = origin.to_path_buf();
    let mut number = 0;
    let mut line = Vec::new();
    stop_at_error(std::iter::from_fn(move || {
        loop {
            line.clear();
            number += 1;
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => return Some(json_row(&origin, number, &line)),
                Err(source) => return Some(Err(Error::io(&origin)(source))),
            }
        }
    }))
}

fn json_row(origin: &Path, number: usize, line: &[u8]) -> Result<Row> {
    let error = |message: String| Error::file(origin, format!("line {number}: {message}"));
    let value: Value = serde_json::from_slice(line).map_err(|e| error(format!("not JSON: {e}")))?;
    let document = match (value.get(INPUT_IDS), value.get(TEXT)) {
        (Some(ids), _) => serde_json::from_value(ids.clone())
            .map(Document::Ids)
            .map_err(|_| error(format!("`{INPUT_IDS}` is not a list of token ids")))?,
        (None, Some(Value::String(text))) => Document::Text(text.clone()),
        (None, Some(_)) => return Err(error(format!("`{TEXT}` is not a string"))),
        (None, None) => return Err(error(format!("no key `{TEXT}`"))),
    };
    let pile_set = value[META][PILE_SET].as_str().map(String::from);
    Ok(Row { document, pile_set })
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
