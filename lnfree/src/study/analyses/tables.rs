//! What the HTML page and the Markdown of findings share: their order, their tables, how numbers are written.

use super::compare::Row;
use super::figure::{LEAST, OF_PUBLISHED, OF_RECORDED};
use super::recorded::how_recorded;
use super::{Findings, Number};
use crate::study::plot::{EvalRow, ModelName, distinct_names};
use crate::study::report::{Cell, Published};

/// Findings of equal requests together, in the order in which requests first appear.
pub(super) fn by_request(findings: &[Findings]) -> Vec<Vec<&Findings>> {
    let mut groups: Vec<Vec<&Findings>> = Vec::new();
    for one in findings {
        match groups.iter().position(|group| group[0].request == one.request) {
            Some(at) => groups[at].push(one),
            None => groups.push(vec![one]),
        }
    }
    groups
}

/// Family after family; in each original, vanilla, LN-free, others.
pub(super) fn in_order<'a>(group: &[&'a Findings]) -> Vec<&'a Findings> {
    let row = |one: &&Findings| EvalRow { label: Some(one.label.clone()), ..EvalRow::default() };
    let rows: Vec<EvalRow> = group.iter().map(row).collect();
    let names = distinct_names(&rows);
    let family = |name: &ModelName| names.iter().position(|other| other.group == name.group);
    let mut order: Vec<usize> = (0..group.len()).collect();
    order.sort_by_key(|i| (family(&names[*i]), names[*i].role));
    order.into_iter().map(|i| group[i]).collect()
}

/// What belongs together, with the labels of its models, in the order in which it first appears.
pub(super) fn together<'a, T: 'a>(
    models: &[&'a Findings],
    of: impl Fn(&'a Findings) -> &'a [T],
    same: impl Fn(&T, &T) -> bool,
) -> Vec<Vec<(&'a str, &'a T)>> {
    let mut groups: Vec<Vec<(&'a str, &'a T)>> = Vec::new();
    for model in models.iter().copied() {
        for thing in of(model) {
            let named = (model.label.as_str(), thing);
            match groups.iter().position(|group| same(group[0].1, thing)) {
                Some(at) => groups[at].push(named),
                None => groups.push(vec![named]),
            }
        }
    }
    groups
}

/// Four decimals, or as many digits as a small or a large number needs; a true minus.
pub(super) fn written(value: f64) -> String {
    // Takes the sign off a zero.
    let value = value + 0.0;
    let text = match value.abs() {
        whole if whole < 1e9 && value.fract() == 0.0 => format!("{value:.0}"),
        small if small < 1e-3 => format!("{value:.2e}"),
        usual if usual < 10.0 => format!("{value:.4}"),
        large if large < 1e3 => format!("{value:.2}"),
        larger if larger < 1e6 => format!("{value:.1}"),
        _ => format!("{value:.3e}"),
    };
    text.replace('-', "−")
}

/// A value with its interval.
pub(super) fn with_interval(value: Option<f64>, interval: Option<[f64; 2]>) -> String {
    let value = value.map_or("NaN".into(), written);
    match interval {
        Some([low, high]) => format!("{value} [{}, {}]", written(low), written(high)),
        None => value,
    }
}

/// What a number is, and its unit.
pub(super) fn quantity(name: &str, unit: &str) -> String {
    if unit.is_empty() { name.into() } else { format!("{name}, {unit}") }
}

/// Headings and rows: one line a number, one column a model.
pub(super) fn numbers<'a>(models: &[&'a Findings]) -> (Vec<&'a str>, Vec<Vec<Cell>>) {
    let same = |a: &Number, b: &Number| (&a.name, &a.unit) == (&b.name, &b.unit);
    let mut kinds: Vec<&Number> = Vec::new();
    for number in models.iter().flat_map(|model| &model.found.numbers) {
        if !kinds.iter().any(|kind| same(kind, number)) {
            kinds.push(number);
        }
    }
    let cell = |model: &Findings, kind: &Number| -> Cell {
        let number = model.found.numbers.iter().find(|number| same(kind, number));
        number.map_or("–".into(), |number| with_interval(number.value, number.interval)).into()
    };
    let row = |kind: &&Number| -> Vec<Cell> {
        let cells = models.iter().map(|model| cell(model, kind));
        std::iter::once(Cell::from(quantity(&kind.name, &kind.unit))).chain(cells).collect()
    };
    let labels = models.iter().map(|model| model.label.as_str());
    (std::iter::once("").chain(labels).collect(), kinds.iter().map(row).collect())
}

/// Whether a number has an interval.
pub(super) fn any_interval(models: &[&Findings]) -> bool {
    models.iter().any(|model| model.found.numbers.iter().any(|number| number.interval.is_some()))
}

/// Each note once, after the names of the models that it is about where it is not about all.
pub(super) fn notes<'a>(models: &[&'a Findings]) -> Vec<(Option<String>, &'a str)> {
    let mut notes: Vec<(&'a str, Vec<usize>)> = Vec::new();
    for (i, model) in models.iter().copied().enumerate() {
        for note in &model.found.notes {
            match notes.iter().position(|known| known.0 == note.as_str()) {
                Some(at) if notes[at].1.contains(&i) => {}
                Some(at) => notes[at].1.push(i),
                None => notes.push((note.as_str(), vec![i])),
            }
        }
    }
    let names = |whose: &[usize]| -> String {
        let names: Vec<&str> = whose.iter().map(|i| models[*i].label.as_str()).collect();
        names.join(", ")
    };
    let named =
        |(note, whose): (&'a str, Vec<usize>)| ((whose.len() < models.len()).then(|| names(&whose)), note);
    notes.into_iter().map(named).collect()
}

/// What is found beside what: a heading, an explanation, and a table.
pub(super) struct Beside {
    /// Heading.
    pub title: &'static str,
    /// What the verdicts mean.
    pub explained: String,
    /// Headings of the table.
    pub head: [&'static str; 6],
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
}

/// Measured beside published, or recorded; `None` where there is nothing to compare with.
pub(super) fn beside(rows: &[Row]) -> Option<Beside> {
    let recorded = rows.first()?.recorded;
    let cells = |row: &Row| -> Vec<Cell> {
        let measured = row.measured.map(|_| with_interval(row.measured, row.interval));
        vec![
            row.label.as_str().into(),
            row.analysis.as_str().into(),
            quantity(&row.number, &row.unit).into(),
            measured.unwrap_or_else(|| "–".into()).into(),
            with_interval(Some(row.published), row.published_interval).into(),
            Cell { text: row.verdict.name().into(), marked: row.verdict.is_otherwise() },
        ]
    };
    Some(Beside {
        title: if recorded { "Beside our record" } else { "Beside published figures" },
        explained: if recorded { records_explained() } else { published_explained() },
        head: ["model", "analysis", "number", "measured", Published::word(recorded), "verdict"],
        rows: rows.iter().map(cells).collect(),
    })
}

/// What the verdicts on published figures mean.
fn published_explained() -> String {
    format!(
        "Agrees: the 95% intervals in brackets overlap; a published figure without one counts as all that is \
         rounded to it. Where neither has an interval, within {}% of the published figure. Not comparable: \
         not measured, or on another sample than the published figure.",
        written(100.0 * OF_PUBLISHED)
    )
}

/// What the verdicts on recorded figures mean, and how those came to be.
fn records_explained() -> String {
    format!(
        "As recorded: within {}% of the recorded value, or within {LEAST} (of a percentage {}) where that is \
         more; 95% intervals, in brackets, count for nothing here. Not comparable: not measured, or asked \
         otherwise than what is recorded. {}",
        100.0 * OF_RECORDED,
        100.0 * LEAST,
        how_recorded()
    )
}
