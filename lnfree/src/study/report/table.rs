//! The results table: models by data sets, and the gaps between the study's three models.

use std::fmt::Write;

use maud::{Markup, html};

use super::page::thousands;
use crate::study::plot::{EvalRow, ModelName, Role, distinct_names};

/// Mean losses of models (rows) on data sets (columns), with the gaps between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The data sets, in the order in which they first appear.
    pub columns: Vec<Column>,
    /// Original, vanilla, LN-free, others, then the gaps; family after family where there are several.
    pub rows: Vec<TableRow>,
    /// What a reader has to know before comparing: one sentence each.
    pub notes: Vec<String>,
}

/// A data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name, without folders.
    pub dataset: String,
    /// Tokens that every model was evaluated on; `None` where unknown or not the same for all.
    pub n_tokens: Option<u64>,
}

/// One model, or the gap between two.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRow {
    /// The model's name, or `a − b`.
    pub label: String,
    /// The family of models that the row belongs to; empty where there is only one.
    pub group: String,
    /// Whether the values are differences of two rows.
    pub is_gap: bool,
    /// Nats per token, one for each column; `None` where the model was not evaluated.
    pub values: Vec<Option<f64>>,
}

/// Arranges evaluations into the table of the study.
///
/// Models are recognised by their label or else their name (see [`ModelName`]). Gaps are made within a
/// family: vanilla − original, LN-free − original, LN-free − vanilla.
pub fn results_table(rows: &[EvalRow]) -> Table {
    let mut columns: Vec<&str> = Vec::new();
    for row in rows {
        if !columns.contains(&row.dataset.as_str()) {
            columns.push(&row.dataset);
        }
    }
    let mut models: Vec<(ModelName, Vec<Option<f64>>)> = Vec::new();
    let mut groups: Vec<String> = Vec::new();
    for (row, name) in rows.iter().zip(distinct_names(rows)) {
        let Some(column) = columns.iter().position(|c| *c == row.dataset) else { continue };
        if !groups.contains(&name.group) {
            groups.push(name.group.clone());
        }
        let at = models.iter().position(|m| m.0 == name).unwrap_or_else(|| {
            models.push((name, vec![None; columns.len()]));
            models.len() - 1
        });
        models[at].1[column] = Some(row.mean);
    }
    let mut table = Table { columns: Vec::new(), rows: Vec::new(), notes: Vec::new() };
    for dataset in columns {
        table.add_column(dataset, rows);
    }
    for group in groups {
        let mut family: Vec<_> = models.iter().filter(|m| m.0.group == group).cloned().collect();
        family.sort_by_key(|m| m.0.role);
        table.add_family(&family);
    }
    table
}

impl Table {
    fn add_column(&mut self, dataset: &str, rows: &[EvalRow]) {
        let of_dataset = || rows.iter().filter(|row| row.dataset == dataset);
        let counts: Vec<u64> = of_dataset().filter_map(|row| row.n_tokens).collect();
        let same = counts.windows(2).all(|pair| pair[0] == pair[1]);
        let name = of_dataset().next().map_or(dataset, EvalRow::dataset_name).to_string();
        if !same {
            self.notes.push(format!(
                "On {name} the models were evaluated on different numbers of tokens: their losses do not compare."
            ));
        }
        for (row, lost) in of_dataset().filter_map(|row| Some((row, row.details.not_finite?))) {
            self.notes.push(format!(
                "{} on {name}: {} of {} tokens have no finite loss, the first in sequence {} at position {}: \
                 it has no mean.",
                row.label.as_ref().unwrap_or(&row.model),
                lost.n_tokens,
                row.n_tokens.map_or("?".into(), |n| n.to_string()),
                lost.sequence,
                lost.position
            ));
        }
        let n_tokens =
            if same && counts.len() == of_dataset().count() { counts.first().copied() } else { None };
        self.columns.push(Column { dataset: name, n_tokens });
    }

    fn add_family(&mut self, family: &[(ModelName, Vec<Option<f64>>)]) {
        for (name, values) in family {
            self.push(name, name.to_string(), false, values.clone());
        }
        let first = |role| family.iter().find(|m| m.0.role == role);
        for (base, of) in
            [(Role::Original, Role::Vanilla), (Role::Original, Role::LnFree), (Role::Vanilla, Role::LnFree)]
        {
            let Some((base_name, base_values)) = first(base) else { continue };
            for (name, values) in family.iter().filter(|m| m.0.role == of) {
                let gaps = values.iter().zip(base_values).map(|(a, b)| Some((*a)? - (*b)?)).collect();
                self.push(name, format!("{name} − {}", base_name.short()), true, gaps);
            }
        }
    }

    fn push(&mut self, name: &ModelName, label: String, is_gap: bool, values: Vec<Option<f64>>) {
        self.rows.push(TableRow { label, group: name.group.clone(), is_gap, values });
    }

    /// A Markdown table, notes below it.
    pub fn to_markdown(&self) -> String {
        let cell = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ");
        let mut out = String::from("| model |");
        for column in &self.columns {
            let _ = write!(out, " {} |", cell(&column.dataset));
        }
        out.push_str("\n|---|");
        out.push_str(&"---:|".repeat(self.columns.len()));
        for row in &self.rows {
            let _ = write!(out, "\n| {} |", cell(&row.label));
            for value in &row.values {
                let _ = write!(out, " {} |", figure(*value, row.is_gap));
            }
        }
        out.push('\n');
        for note in &self.notes {
            let _ = write!(out, "\n{}\n", cell(note));
        }
        out
    }

    /// A table aligned for a terminal, a line between models and gaps, notes below it.
    pub fn to_text(&self) -> String {
        let mut lines = vec![(false, vec!["model".to_string()])];
        lines[0].1.extend(self.columns.iter().map(|c| printable(&c.dataset)));
        for row in &self.rows {
            let values = row.values.iter().map(|value| figure(*value, row.is_gap));
            lines.push((row.is_gap, std::iter::once(printable(&row.label)).chain(values).collect()));
        }
        let width = |i: usize| lines.iter().map(|(_, cells)| cells[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * self.columns.len());
        let mut out = String::new();
        for (i, (is_gap, cells)) in lines.iter().enumerate() {
            if i == 1 || (i > 1 && *is_gap != lines[i - 1].0) {
                let _ = writeln!(out, "{rule}");
            }
            let _ = write!(out, "{:<w$}", cells[0], w = widths[0]);
            for (cell, w) in cells.iter().zip(&widths).skip(1) {
                let _ = write!(out, "  {cell:>w$}");
            }
            out.push('\n');
        }
        self.notes.iter().for_each(|note| out.push_str(&format!("{}\n", printable(note))));
        out
    }

    /// An HTML `<table>`, notes below it.
    pub fn to_html(&self) -> String {
        self.markup().into_string()
    }

    pub(super) fn markup(&self) -> Markup {
        let families = || self.rows.chunk_by(|a, b| a.group == b.group && a.is_gap == b.is_gap);
        html! {
            table.results {
                thead {
                    tr {
                        th scope="col" { "model" }
                        @for column in &self.columns {
                            th.number scope="col" {
                                (column.dataset)
                                @if let Some(n) = column.n_tokens { small { (thousands(n)) " tokens" } }
                            }
                        }
                    }
                }
                @for family in families() {
                    tbody.gaps[family[0].is_gap] {
                        @for row in family {
                            tr {
                                th scope="row" { (row.label) }
                                @for value in &row.values {
                                    td.number { (figure(*value, row.is_gap).replace('-', "−")) }
                                }
                            }
                        }
                    }
                }
            }
            @for note in &self.notes { p.warning { (note) } }
        }
    }
}

/// Four decimals, as the paper prints; gaps with their sign.
fn figure(value: Option<f64>, is_gap: bool) -> String {
    match value {
        None => "–".into(),
        Some(value) if !value.is_finite() => "NaN".into(),
        Some(value) if is_gap => format!("{value:+.4}"),
        Some(value) => format!("{value:.4}"),
    }
}

/// Text from a file without characters that would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
