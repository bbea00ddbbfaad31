//! Columns beside `input_ids` that say which ids count: honoured where that only shortens rows, else refused
//! by name.
//!
//! Nothing may be dropped without a word: padding that is scored, or labels that leave tokens out, change
//! every number. What comes after a token does not change its loss in GPT-2, so ids that are left out at the
//! end of a row are cut off, and the rest is as exact as a file that never had them. Whatever else such a
//! column says (padding on the left, gaps, other labels, positions that start again) is an error that names
//! the column. Columns that agree with the plain reading of `input_ids` are harmless.

use std::path::Path;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Schema};
use serde_json::{Map, Value};

use super::plain::plain_numbers;
use super::sequences::{INPUT_IDS, Sequences};
use crate::{Error, Result};

/// The label that PyTorch's cross-entropy leaves out.
const IGNORED: i64 = -100;

/// What a column says of each id of a row, or of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 1 for ids that count, 0 for those that do not.
    Keep,
    /// A mask whose meaning is not known: all of it has to be 1.
    Ones,
    /// The opposite of a mask, or something that GPT-2 would add an embedding for: all of it has to be 0.
    Zeros,
    /// The id itself, or [`IGNORED`].
    Labels,
    /// 0, 1, 2, …
    Positions,
    /// The document that an id is of: one a row.
    Constant,
    /// How many ids the row has.
    Length,
    /// 1 may mean padding or the opposite.
    Ambiguous,
}

/// What a column of this name says of `input_ids`, if anything.
pub(super) fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "attention_mask" | "loss_mask" | "completion_mask" | "assistant_masks" | "assistant_mask"
        | "label_mask" | "labels_mask" => Kind::Keep,
        "token_type_ids" | "special_tokens_mask" => Kind::Zeros,
        "labels" | "label_ids" | "lm_labels" | "target_ids" => Kind::Labels,
        "position_ids" => Kind::Positions,
        "sequence_ids" | "sequence_id" | "seq_idx" | "document_ids" | "document_id" | "doc_ids"
        | "doc_id" | "segment_ids" | "segment_id" => Kind::Constant,
        "length" | "lengths" => Kind::Length,
        "padding_mask" | "key_padding_mask" => Kind::Ambiguous,
        "mask" | "masks" => Kind::Ones,
        name if name.ends_with("_mask") || name.ends_with("_masks") => Kind::Ones,
        _ => return None,
    })
}

/// The columns of a table that say something of its ids.
pub(super) fn names(schema: &Schema) -> Vec<String> {
    let fields = schema.fields().iter();
    let wanted = fields.filter(|field| {
        // A column of nothing says nothing; where a name means a list, a number a row is something else.
        let list = matches!(
            field.data_type(),
            DataType::List(_)
                | DataType::LargeList(_)
                | DataType::FixedSizeList(..)
                | DataType::ListView(_)
                | DataType::LargeListView(_)
        );
        match kind_of(field.name()) {
            None => false,
            Some(_) if *field.data_type() == DataType::Null => false,
            Some(Kind::Keep | Kind::Ambiguous) => true,
            Some(Kind::Length) => list || field.data_type().is_integer(),
            Some(_) => list,
        }
    });
    wanted.map(|field| field.name().clone()).collect()
}

/// `ids` without what the other columns leave out at the ends of rows.
///
/// # Errors
/// Naming row and column where they say anything else.
pub(super) fn applied(
    path: &Path,
    first_row: usize,
    ids: Sequences,
    columns: &[(String, ArrayRef)],
) -> Result<Sequences> {
    let mut sides = Vec::new();
    for (name, column) in columns {
        let Some(kind) = kind_of(name) else { continue };
        sides.push((name.as_str(), kind, Side::new(path, first_row, name, kind, column)?));
    }
    if sides.is_empty() {
        return Ok(ids);
    }
    let (mut row, mut values) = (Vec::new(), vec![Vec::new(); sides.len()]);
    let mut lengths = Vec::with_capacity(ids.len());
    for i in 0..ids.len() {
        row.clear();
        ids.copy_any(i, &mut row);
        for ((_, _, side), values) in sides.iter().zip(&mut values) {
            values.clear();
            side.copy(i, values);
        }
        let said =
            sides.iter().zip(&values).map(|((name, kind, _), values)| (*name, *kind, values.as_slice()));
        let said: Vec<_> = said.collect();
        let length = counted(&row, &said)
            .map_err(|message| Error::file(path, format!("row {}: {message}", first_row + i)))?;
        lengths.push(length);
    }
    Ok(ids.cut_to(lengths))
}

/// One column: a list a row, or a number a row.
enum Side {
    Lists(Sequences),
    Numbers(Sequences),
}

impl Side {
    fn new(path: &Path, first_row: usize, name: &str, kind: Kind, column: &ArrayRef) -> Result<Self> {
        let column = plain_numbers(column).map_err(|e| Error::file(path, format!("column `{name}`: {e}")))?;
        if kind == Kind::Length && column.data_type().is_integer() {
            return Sequences::of_numbers(path, first_row, name, &column).map(Self::Numbers);
        }
        Sequences::named(path, first_row, name, &column).map(Self::Lists)
    }

    fn copy(&self, row: usize, out: &mut Vec<i64>) {
        match self {
            Self::Lists(sequences) | Self::Numbers(sequences) => sequences.copy_any(row, out),
        }
    }
}

/// How many ids of a row count, by what its other columns say; else what is wrong, and what to do.
pub(super) fn counted(ids: &[i64], sides: &[(&str, Kind, &[i64])]) -> std::result::Result<usize, String> {
    let mut n = ids.len();
    for (name, kind, values) in sides {
        if *kind != Kind::Length && values.len() != ids.len() {
            return Err(format!("`{name}` has {} values for {} ids", values.len(), ids.len()));
        }
        if *kind == Kind::Keep {
            n = n.min(kept(name, values)?);
        }
    }
    for (name, _, values) in sides.iter().filter(|(_, kind, _)| *kind == Kind::Labels) {
        n = labelled(name, &ids[..n], &values[..n])?;
    }
    sides.iter().try_for_each(|(name, kind, values)| agrees(name, *kind, values, n, ids.len()))?;
    Ok(n)
}

/// The ones at the start of a mask.
fn kept(name: &str, values: &[i64]) -> std::result::Result<usize, String> {
    if let Some(other) = values.iter().find(|value| !(0..=1).contains(*value)) {
        return Err(format!("`{name}` has {other}, which is neither 0 nor 1"));
    }
    let n = values.iter().position(|value| *value == 0).unwrap_or(values.len());
    match values[n..].contains(&1) {
        true => Err(format!(
            "`{name}` is 0 before ids that count: only ids at the end of a row can be left out; take the \
            others out of \
             `{INPUT_IDS}`, or remove the column if they count"
        )),
        false => Ok(n),
    }
}

/// The labels at the start of a row that are its ids.
fn labelled(name: &str, ids: &[i64], labels: &[i64]) -> std::result::Result<usize, String> {
    let n = labels.iter().position(|label| *label == IGNORED).unwrap_or(labels.len());
    if labels[n..].iter().any(|label| *label != IGNORED) {
        return Err(format!(
            "`{name}` is {IGNORED} before ids that count: only ids at the end of a row can be left out; take \
            the others out of \
             `{INPUT_IDS}`, or remove the column if they count"
        ));
    }
    match ids.iter().zip(&labels[..n]).position(|(id, label)| id != label) {
        Some(at) => Err(format!(
            "`{name}` is {} where `{INPUT_IDS}` is {}: every token predicts the next one here; remove the \
            column if that is meant",
            labels[at], ids[at]
        )),
        None => Ok(n),
    }
}

/// Whether a column says nothing beyond the ids, of which `n` count.
fn agrees(name: &str, kind: Kind, values: &[i64], n: usize, n_ids: usize) -> std::result::Result<(), String> {
    let counted = &values[..n.min(values.len())];
    let remove = "remove the column if all ids are to be read as one text";
    match kind {
        Kind::Keep | Kind::Labels => Ok(()),
        Kind::Ones if values.iter().all(|value| *value == 1) => Ok(()),
        Kind::Ones => Err(format!("`{name}` is a mask of unknown meaning that is not all 1; {remove}")),
        Kind::Zeros if counted.iter().all(|value| *value == 0) => Ok(()),
        Kind::Zeros => Err(format!("`{name}` is not 0 everywhere, which is not supported; {remove}")),
        Kind::Positions if counted.iter().enumerate().all(|(i, value)| *value == i as i64) => Ok(()),
        Kind::Positions => Err(format!("`{name}` is not 0, 1, 2, …, which is not supported; {remove}")),
        Kind::Constant if counted.iter().all(|value| *value == counted[0]) => Ok(()),
        Kind::Constant => Err(format!(
            "`{name}` changes within the row: tokens attend to all that are before them here; {remove}"
        )),
        // More than there are ids is no count of them: of characters, perhaps.
        Kind::Length if values.iter().all(|value| *value == n as i64 || *value >= n_ids as i64) => Ok(()),
        Kind::Length => Err(format!(
            "`{name}` is {} for {n_ids} ids: cut `{INPUT_IDS}` to that length, or remove the column",
            values.first().unwrap_or(&0)
        )),
        Kind::Ambiguous => Err(format!(
            "`{name}` may mean either: call it `attention_mask`, with 1 for ids that count, or remove it"
        )),
    }
}

/// [`applied`] for the ids of one JSON object: how many of them count.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn counted_in_json(
    ids: &[u32],
    object: &Map<String, Value>,
) -> std::result::Result<usize, String> {
    let mut sides = Vec::new();
    for (name, value) in object {
        let (Some(kind), false) = (kind_of(name), value.is_null()) else { continue };
        let values: Option<Vec<i64>> = match value {
            Value::Array(items) => items.iter().map(number).collect(),
            // A number where a list is due is something else than its name says.
            other if kind == Kind::Length => number(other).map(|n| vec![n]),
            _ if kind == Kind::Keep => None,
            _ => continue,
        };
        let values = values.ok_or_else(|| format!("`{name}` is not a list of integers"))?;
        sides.push((name.as_str(), kind, values));
    }
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let sides: Vec<_> = sides.iter().map(|(name, kind, values)| (*name, *kind, values.as_slice())).collect();
    counted(&ids, &sides)
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_bool().map(i64::from))
}
