//! Findings as one table with a row for each number, whatever shape they are found in.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, StringArray, UInt32Array};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use serde::Serialize;

use super::{Findings, Request};
use crate::data::write_batch;
use crate::study::found::{Curve, Found, Map, MarkedText, Number, Ranking};
use crate::{Error, Result};

/// Writes every number of `findings` to `out` as an Arrow IPC file in long form, a row each, for
/// `pyarrow.feather.read_table` or `polars.read_ipc`. Files of all analyses have the same columns:
///
/// | column | type | what |
/// |---|---|---|
/// | `analysis`, `model` | utf8 | the analysis as the command line names it; the model's label |
/// | `kind` | utf8 | `number`, `map`, `curve`, `ranking`, `total` (of a ranking) or `text` |
/// | `name`, `unit` | utf8 | what the number is; `nats`, `%`, or empty |
/// | `row_axis`, `row` | utf8 or null | `layer`, `position`, `head`, …, and the label there |
/// | `row_index` | uint32 or null | the place there, 0-based: labels may repeat, as tokens do |
/// | `column_axis`, `column`, `column_index` | likewise | the other axis of maps and rankings |
/// | `value` | float64 or null | null where there is no finite number |
/// | `low`, `high` | float64 or null | its 95% interval, where it has one |
///
/// Curves and the tokens of texts go along `row`; `column_axis` of a ranking is `column`. The schema's
/// metadata has `lnfree` (the version), `analysis` (the name; several with commas between them) and `models`:
/// a JSON array with request, label, model, original, seconds and notes of each of the findings.
///
/// The file is written beside `out` and renamed, so that `out` is never half there.
///
/// # Errors
/// [`Error::Invalid`] if findings do not fit their axes; [`Error::Io`] or [`Error::File`] if `out` cannot be
/// written.
pub fn write_arrow(findings: &[Findings], out: &Path) -> Result<()> {
    write_batch(out, &table(findings)?)
}

/// Where a number stands along one axis.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    axis: &'a str,
    label: &'a str,
    index: u32,
}

/// One number with all that says which it is.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    of: &'a Findings,
    kind: &'static str,
    name: &'a str,
    unit: &'a str,
    row: Option<Place<'a>>,
    column: Option<Place<'a>>,
    value: Option<f64>,
    interval: Option<[f64; 2]>,
}

impl<'a> Entry<'a> {
    fn new(of: &'a Findings, kind: &'static str, name: &'a str, unit: &'a str) -> Entry<'a> {
        Entry { of, kind, name, unit, row: None, column: None, value: None, interval: None }
    }

    /// The same for other numbers, each at its place along the rows, or the columns of a row.
    fn along(self, places: Vec<Place<'a>>, values: &'a [Option<f64>]) -> impl Iterator<Item = Entry<'a>> {
        places.into_iter().zip(values).map(move |(place, value)| {
            let (row, column) = self.row.map_or((place, None), |row| (row, Some(place)));
            Entry { row: Some(row), column, value: *value, ..self }
        })
    }
}

/// Every number of one model.
fn entries(of: &Findings) -> Result<Vec<Entry<'_>>> {
    let Found { notes: _, numbers, maps, curves, rankings, texts } = &of.found;
    let mut all = Vec::new();
    for Number { name, value, interval, unit } in numbers {
        all.push(Entry { value: *value, interval: *interval, ..Entry::new(of, "number", name, unit) });
    }
    for Map { name, unit, rows, columns, values, .. } in maps {
        let entry = Entry::new(of, "map", name, unit);
        for (row, values) in places(&rows.title, &rows.labels, values.len())?.into_iter().zip(values) {
            let columns = places(&columns.title, &columns.labels, values.len())?;
            all.extend(Entry { row: Some(row), ..entry }.along(columns, values));
        }
    }
    for Curve { name, unit, at, values } in curves {
        let rows = places(&at.title, &at.labels, values.len())?;
        all.extend(Entry::new(of, "curve", name, unit).along(rows, values));
    }
    for Ranking { name, what, columns, rows, total } in rankings {
        let entry = Entry::new(of, "ranking", name, "");
        for (index, (label, values)) in (0..).zip(rows) {
            let row = Place { axis: what, label, index };
            let columns = places("column", columns, values.len())?;
            all.extend(Entry { row: Some(row), ..entry }.along(columns, values));
        }
        all.extend(total.map(|total| Entry { kind: "total", value: Some(total), ..entry }));
    }
    for MarkedText { name, unit, tokens, values } in texts {
        let rows = places("token", tokens, values.len())?;
        all.extend(Entry::new(of, "text", name, unit).along(rows, values));
    }
    Ok(all)
}

/// The places of an axis, which has to have `n`.
fn places<'a>(axis: &'a str, labels: &'a [String], n: usize) -> Result<Vec<Place<'a>>> {
    if labels.len() != n {
        let labels = labels.len();
        let message = format!("the axis {axis} has {labels} labels and {n} numbers: give as many of each");
        return Err(Error::invalid(message));
    }
    Ok((0..).zip(labels).map(|(index, label)| Place { axis, label, index }).collect())
}

/// All of them, with the columns of [`write_arrow`].
fn table(findings: &[Findings]) -> Result<RecordBatch> {
    let all = findings.iter().map(entries).collect::<Result<Vec<_>>>()?.concat();
    let columns: [(&str, bool, ArrayRef); 14] = [
        ("analysis", false, texts(&all, |one| Some(one.of.request.name()))),
        ("model", false, texts(&all, |one| Some(one.of.label.as_str()))),
        ("kind", false, texts(&all, |one| Some(one.kind))),
        ("name", false, texts(&all, |one| Some(one.name))),
        ("unit", false, texts(&all, |one| Some(one.unit))),
        ("row_axis", true, texts(&all, |one| Some(one.row?.axis))),
        ("row", true, texts(&all, |one| Some(one.row?.label))),
        ("row_index", true, indices(&all, |one| Some(one.row?.index))),
        ("column_axis", true, texts(&all, |one| Some(one.column?.axis))),
        ("column", true, texts(&all, |one| Some(one.column?.label))),
        ("column_index", true, indices(&all, |one| Some(one.column?.index))),
        ("value", true, numbers(&all, |one| one.value)),
        ("low", true, numbers(&all, |one| Some(one.interval?[0]))),
        ("high", true, numbers(&all, |one| Some(one.interval?[1]))),
    ];
    let field = |(name, nullable, column): &(&str, bool, ArrayRef)| {
        Field::new(*name, column.data_type().clone(), *nullable)
    };
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let schema = Schema::new_with_metadata(fields, metadata(findings)?);
    let columns: Vec<ArrayRef> = columns.into_iter().map(|(_, _, column)| column).collect();
    RecordBatch::try_new(Arc::new(schema), columns).map_err(Error::invalid)
}

fn texts<'a>(all: &[Entry<'a>], of: impl Fn(&Entry<'a>) -> Option<&'a str>) -> ArrayRef {
    Arc::new(all.iter().map(of).collect::<StringArray>())
}

fn indices<'a>(all: &[Entry<'a>], of: impl Fn(&Entry<'a>) -> Option<u32>) -> ArrayRef {
    Arc::new(all.iter().map(of).collect::<UInt32Array>())
}

fn numbers<'a>(all: &[Entry<'a>], of: impl Fn(&Entry<'a>) -> Option<f64>) -> ArrayRef {
    Arc::new(all.iter().map(of).collect::<Float64Array>())
}

/// What the metadata say of one model.
#[derive(Serialize)]
struct About<'a> {
    request: &'a Request,
    label: &'a str,
    model: &'a str,
    original: Option<&'a str>,
    seconds: f64,
    notes: &'a [String],
}

impl<'a> About<'a> {
    fn of(one: &'a Findings) -> About<'a> {
        let Findings { request, label, model, original, seconds, found } = one;
        About { request, label, model, original: original.as_deref(), seconds: *seconds, notes: &found.notes }
    }
}

/// What is said of the whole file: see [`write_arrow`].
fn metadata(findings: &[Findings]) -> Result<[(&'static str, String); 3]> {
    let mut analyses: Vec<&str> = findings.iter().map(|one| one.request.name()).collect();
    analyses.sort_unstable();
    analyses.dedup();
    let models: Vec<About> = findings.iter().map(About::of).collect();
    let models = serde_json::to_string(&models).map_err(Error::invalid)?;
    Ok([
        ("lnfree", env!("CARGO_PKG_VERSION").to_string()),
        ("analysis", analyses.join(",")),
        ("models", models),
    ])
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, UInt32Type};

    use super::*;
    use crate::study::found::Axis;

    fn findings(label: &str, found: Found) -> Findings {
        Findings {
            request: Request::Circuits { heads: 4 },
            label: label.into(),
            model: "nano".into(),
            original: None,
            seconds: 1.5,
            found,
        }
    }

    /// Everything that can be found, once.
    fn of_every_shape() -> Found {
        let axis = |title: &str, labels: &[&str]| Axis {
            title: title.into(),
            labels: labels.iter().map(|label| label.to_string()).collect(),
        };
        Found {
            notes: vec!["Position 0 is nothing.".into()],
            numbers: vec![
                Number::new("loss", 3.5, "nats").with_interval([3.25, 3.75]),
                Number::new("error", f64::NAN, ""),
            ],
            maps: vec![Map {
                name: "effect".into(),
                unit: "nats".into(),
                rows: axis("layer", &["0", "1"]),
                columns: axis("head", &["0", "1"]),
                values: vec![vec![Some(0.1), None], vec![Some(-0.2), Some(0.3)]],
                signed: true,
            }],
            curves: vec![Curve {
                name: "rate".into(),
                unit: "%".into(),
                at: axis("layer", &["0", "ln_f"]),
                values: vec![Some(1.0), Some(2.0)],
            }],
            rankings: vec![Ranking {
                name: "components".into(),
                what: "component".into(),
                columns: vec!["share".into(), "norm".into()],
                rows: vec![("embed".into(), vec![Some(4.0), Some(5.0)])],
                total: Some(4.0),
            }],
            texts: vec![MarkedText {
                name: "loss of each token".into(),
                unit: "nats".into(),
                tokens: vec!["the".into(), "the".into()],
                values: vec![None, Some(6.0)],
            }],
        }
    }

    #[test]
    fn every_number_has_a_row_that_says_which_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.arrow");
        write_arrow(&[findings("a", of_every_shape()), findings("b", Found::default())], &path).unwrap();
        let mut reader = crate::data::open_arrow(&path).unwrap();
        let metadata = reader.schema().metadata().clone();
        assert_eq!(metadata.get("lnfree").map(String::as_str), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(metadata.get("analysis").map(String::as_str), Some("circuits"));
        let models: serde_json::Value = serde_json::from_str(metadata.get("models").unwrap()).unwrap();
        assert_eq!((&models[0]["label"], &models[1]["label"]), (&"a".into(), &"b".into()));
        assert_eq!(models[0]["notes"][0], "Position 0 is nothing.");
        let batch = reader.next().unwrap().unwrap();
        assert!(reader.next().is_none());

        let column = |name: &str| batch.column_by_name(name).unwrap();
        let text = |name: &str, i: usize| {
            let column = column(name);
            column.is_valid(i).then(|| column.as_string::<i32>().value(i).to_string())
        };
        let number = |name: &str, i: usize| {
            let column = column(name);
            column.is_valid(i).then(|| column.as_primitive::<Float64Type>().value(i))
        };
        let index = |name: &str, i: usize| {
            let column = column(name);
            column.is_valid(i).then(|| column.as_primitive::<UInt32Type>().value(i))
        };
        let rows: Vec<_> = (0..batch.num_rows())
            .map(|i| {
                let places = ["row", "column"].map(|name| text(name, i).unwrap_or("–".into()));
                (text("kind", i).unwrap(), places.join(" "), number("value", i))
            })
            .collect();
        let expected = [
            ("number", "– –", Some(3.5)),
            ("number", "– –", None),
            ("map", "0 0", Some(0.1)),
            ("map", "0 1", None),
            ("map", "1 0", Some(-0.2)),
            ("map", "1 1", Some(0.3)),
            ("curve", "0 –", Some(1.0)),
            ("curve", "ln_f –", Some(2.0)),
            ("ranking", "embed share", Some(4.0)),
            ("ranking", "embed norm", Some(5.0)),
            ("total", "– –", Some(4.0)),
            ("text", "the –", None),
            ("text", "the –", Some(6.0)),
        ];
        assert_eq!(rows, expected.map(|(kind, at, value)| (kind.to_string(), at.to_string(), value)));
        assert_eq!((number("low", 0), number("high", 0), number("low", 2)), (Some(3.25), Some(3.75), None));
        // The second row of the map, and tokens that are alike.
        assert_eq!((index("row_index", 4), index("column_index", 4)), (Some(1), Some(0)));
        assert_eq!((index("row_index", 11), index("row_index", 12)), (Some(0), Some(1)));
        let axes = |i: usize| ["row_axis", "column_axis"].map(|name| text(name, i).unwrap_or("–".into()));
        assert_eq!(axes(2), ["layer", "head"]);
        assert_eq!(axes(8), ["component", "column"]);
        assert_eq!(axes(11), ["token", "–"]);
        let named = ["analysis", "model", "name", "unit"].map(|name| text(name, 2).unwrap());
        assert_eq!(named, ["circuits", "a", "effect", "nats"]);
    }

    #[test]
    fn no_number_is_dropped_that_has_no_label() {
        let path = Path::new("never-written.arrow");
        let mut found = of_every_shape();
        found.maps[0].columns.labels.pop();
        let refused = write_arrow(&[findings("a", found)], path).unwrap_err().to_string();
        assert!(refused.contains("head has 1 labels and 2 numbers"), "{refused}");
        let mut found = of_every_shape();
        found.texts[0].tokens.push("cat".into());
        assert!(write_arrow(&[findings("a", found)], path).is_err());
        assert!(!path.exists());
    }
}
