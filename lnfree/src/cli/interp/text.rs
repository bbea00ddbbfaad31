//! What `interp` prints: numbers side by side, the ends of rankings, maps and curves, and notes.

use lnfree::analyses::{Curve, Findings, Map, Number, Ranking};

use crate::cli::out::outln;

/// Rows of a ranking that are printed.
const TOP: usize = 5;
/// Numbers of a map that are printed.
const LARGEST: usize = 3;

/// One analysis of one or more models.
pub(super) fn print(findings: &[Findings]) {
    let Some(first) = findings.first() else { return };
    outln!("{}: {}", first.request.title(), first.request);
    numbers(findings);
    for Findings { label, found, .. } in findings {
        found.rankings.iter().for_each(|ranking| print_ranking(label, ranking));
    }
    for Findings { label, found, .. } in findings {
        found.maps.iter().for_each(|map| print_map(label, map));
        found.curves.iter().for_each(|curve| print_curve(label, curve));
    }
    notes(findings);
}

/// Rows of words with blanks between the columns: the first one begins at the left, the others end at the
/// right.
pub(in crate::cli) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            line += &if at == 0 { format!("  {cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        outln!("{}", line.trim_end());
    }
}

/// Four decimals, or four digits where those say nothing.
pub(in crate::cli) fn short(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value == 0.0 || (1e-3..1e5).contains(&value.abs()) => format!("{value:.4}"),
        Some(value) => format!("{value:.3e}"),
    }
}

fn with_unit(name: &str, unit: &str) -> String {
    if unit.is_empty() { name.into() } else { format!("{name} [{unit}]") }
}

/// One row a number, one column a model.
fn numbers(findings: &[Findings]) {
    let mut names: Vec<&str> = Vec::new();
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(findings.iter().map(|found| found.label.clone()));
    for number in findings.iter().flat_map(|one| &one.found.numbers) {
        if names.contains(&number.name.as_str()) {
            continue;
        }
        names.push(&number.name);
        let of = |one: &Findings| {
            let found = one.found.numbers.iter().find(|other| other.name == number.name);
            found.map_or(String::new(), cell)
        };
        let mut row = vec![with_unit(&number.name, &number.unit)];
        row.extend(findings.iter().map(of));
        rows.push(row);
    }
    if rows.len() > 1 {
        table(&rows);
    }
}

fn cell(number: &Number) -> String {
    match number.interval {
        Some([low, high]) => {
            format!("{} [{}, {}]", short(number.value), short(Some(low)), short(Some(high)))
        }
        None => short(number.value),
    }
}

fn print_ranking(label: &str, ranking: &Ranking) {
    outln!("{}, {label}:", ranking.name);
    let mut rows = vec![vec![ranking.what.clone()]];
    rows[0].extend(ranking.columns.iter().cloned());
    for (name, values) in ranking.rows.iter().take(TOP) {
        let mut row = vec![name.clone()];
        row.extend(values.iter().map(|value| short(*value)));
        rows.push(row);
    }
    if ranking.rows.len() > TOP {
        rows.push(vec![format!("… {} more", ranking.rows.len() - TOP)]);
    }
    if let Some(total) = ranking.total {
        rows.push(vec!["sum".into(), short(Some(total))]);
    }
    table(&rows);
}

fn print_map(label: &str, map: &Map) {
    let mut cells: Vec<(f64, &str, &str)> = Vec::new();
    for (row, values) in map.rows.labels.iter().zip(&map.values) {
        for (column, value) in map.columns.labels.iter().zip(values) {
            cells.extend(value.map(|value| (value, row.as_str(), column.as_str())));
        }
    }
    cells.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    let (rows, columns) = (&map.rows.title, &map.columns.title);
    let shown = cells
        .iter()
        .take(LARGEST)
        .map(|(value, row, column)| format!("{} at {rows} {row}, {columns} {column}", short(Some(*value))));
    let shown: Vec<String> = shown.collect();
    outln!("{}, {label}: {}", with_unit(&map.name, &map.unit), shown.join("; "));
}

fn print_curve(label: &str, curve: &Curve) {
    let points: Vec<String> = curve
        .at
        .labels
        .iter()
        .zip(&curve.values)
        .map(|(at, value)| format!("{} at {} {at}", short(*value), curve.at.title))
        .collect();
    let shown = match points.as_slice() {
        [first, .., last] => format!("{first} to {last}"),
        some => some.concat(),
    };
    outln!("{}, {label}: {shown}", with_unit(&curve.name, &curve.unit));
}

/// Each once; with the models that it is said of, unless it is said of all.
fn notes(findings: &[Findings]) {
    let mut told: Vec<&str> = Vec::new();
    for note in findings.iter().flat_map(|one| &one.found.notes) {
        if told.contains(&note.as_str()) {
            continue;
        }
        told.push(note);
        let has = findings.iter().filter(|one| one.found.notes.contains(note));
        let of: Vec<&str> = has.map(|one| one.label.as_str()).collect();
        match of.len() == findings.len() {
            true => outln!("{note}"),
            false => outln!("{}: {note}", of.join(", ")),
        }
    }
}
