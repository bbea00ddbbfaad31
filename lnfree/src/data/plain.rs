//! Columns without the encodings that a writer may have chosen: dictionaries, runs and list views.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;

/// The same values, as plain lists, numbers and strings; the array itself where it is plain already.
pub(super) fn plain(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let wanted = plain_type(column.data_type());
    match wanted == *column.data_type() {
        true => Ok(column.clone()),
        false => cast_with_options(column, &wanted, &CastOptions { safe: false, ..Default::default() }),
    }
}

/// [`plain`], with booleans in lists as 0 and 1.
pub(super) fn plain_numbers(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let column = plain(column)?;
    let int8 = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(DataType::Int8));
    let wanted = match column.data_type() {
        DataType::List(item) if *item.data_type() == DataType::Boolean => DataType::List(int8(item)),
        DataType::LargeList(item) if *item.data_type() == DataType::Boolean => {
            DataType::LargeList(int8(item))
        }
        DataType::FixedSizeList(item, n) if *item.data_type() == DataType::Boolean => {
            DataType::FixedSizeList(int8(item), *n)
        }
        _ => return Ok(column),
    };
    cast_with_options(&column, &wanted, &CastOptions { safe: false, ..Default::default() })
}

fn plain_type(stored: &DataType) -> DataType {
    let item = |field: &FieldRef| -> FieldRef {
        Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())))
    };
    match stored {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(field) | DataType::ListView(field) => DataType::List(item(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(item(field)),
        DataType::FixedSizeList(field, n) => DataType::FixedSizeList(item(field), *n),
        other => other.clone(),
    }
}
