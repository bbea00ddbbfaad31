//! A whole study as one page: results beside published figures, differences with intervals, what failed.

use std::fmt::Write as _;
use std::path::Path;

use maud::{Markup, html};
use serde::Serialize;

use super::compare::Comparison;
use super::details;
use super::html::write_page;
use super::models::{Failure, StudyModel};
use super::text;
use super::{results_table, sections};
use crate::Result;
use crate::study::plot::Difference;
use crate::study::plot::EvalRow;

/// What a suite of evaluations came to. Its JSON is `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Study {
    /// Heading of the page.
    pub title: String,
    /// What was computed, on what and when: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// The models, in the order of the suite.
    pub models: Vec<StudyModel>,
    /// Where the figures to compare with come from, as a column's heading.
    pub source: &'static str,
    /// How far a measured figure may lie from them, nats.
    pub tolerance: f64,
    /// Every evaluation beside its published figure, in the order of the suite.
    pub comparisons: Vec<Comparison>,
    /// Differences between models on the same tokens.
    pub differences: Vec<Difference>,
    /// What did not work.
    pub failures: Vec<Failure>,
    /// What a reader has to know before comparing: one sentence each.
    pub notes: Vec<String>,
    /// The evaluations themselves.
    pub evaluations: Vec<EvalRow>,
}

impl Study {
    /// What the verdicts mean, in a sentence or two.
    pub fn verdicts_explained(&self) -> String {
        format!(
            "`reproduced`: within {} nats of the published figure beside it, which has four decimals and may have been \
             computed in another precision; `as recorded`: the same of a figure that nobody else published; \
             `differs`: further away; `not comparable`: measured on another sample; \
             `of another step`: the figure is of another step of fine-tuning, so that nothing is compared.",
            self.tolerance
        )
    }

    /// The page as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n\n", self.title);
        for (name, value) in &self.facts {
            let _ = writeln!(out, "- {name}: {}", markdown_cell(value));
        }
        if !self.failures.is_empty() {
            out.push_str("\n## Failed\n\n");
        }
        for Failure { label, dataset, why } in &self.failures {
            let _ = writeln!(out, "- **{label} on {dataset}**: {}", markdown_cell(why));
        }
        if !self.evaluations.is_empty() {
            let table = results_table(&self.evaluations).to_markdown();
            let _ = write!(out, "\n## Results\n\nMean cross-entropy, nats per token.\n\n{table}");
            let (head, rows) = text::comparisons(&self.comparisons, self.source);
            let _ = write!(out, "\n## Beside {}\n\n{}\n\n", self.source, self.verdicts_explained());
            out.push_str(&markdown_table(&head, 2, &rows));
            for note in &self.notes {
                let _ = write!(out, "\n{}\n", markdown_cell(note));
            }
        }
        let quality = text::quality(&self.evaluations);
        let distances = text::distances(&self.evaluations);
        let machine = text::machine(&self.evaluations);
        for (title, note, (head, rows)) in [
            ("Models", text::MODELS, text::models(&self.models)),
            ("Paired differences", text::DIFFERENCES, text::differences(&self.differences)),
            ("Calibration and intervals", text::QUALITY, quality),
            ("Distance to another model", text::DISTANCES, distances),
            ("Speed and memory", text::MACHINE, machine),
        ] {
            if !rows.is_empty() {
                let _ = write!(out, "\n## {title}\n\n{note}\n\n{}", markdown_table(&head, 2, &rows));
            }
        }
        out
    }

    /// Writes the page as one HTML file that needs no network and no other file.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::File`] if `out` cannot be written.
    pub fn write_html(&self, out: &Path) -> Result<()> {
        let body = html! {
            dl.facts {
                @for (name, value) in &self.facts { dt { (name) } dd { (value) } }
            }
            (self.failed())
            (sections::results(&self.evaluations))
            (self.beside_published())
            (sections::evaluations(&self.evaluations, &self.differences, &[]))
            (details::models(&self.models))
        };
        write_page(out, &self.title, &body)
    }

    fn failed(&self) -> Markup {
        let row =
            |f: &Failure| vec![f.label.as_str().into(), f.dataset.as_str().into(), f.why.as_str().into()];
        let rows: Vec<_> = self.failures.iter().map(row).collect();
        html! {
            @if !rows.is_empty() {
                section.failed {
                    h2 { "Failed" }
                    p.warning { "These evaluations gave no result; they are in none of the tables below." }
                    (details::table(&["model", "data set", "why"], 3, &rows))
                }
            }
        }
    }

    fn beside_published(&self) -> Markup {
        let (head, rows) = text::comparisons(&self.comparisons, self.source);
        html! {
            @if !rows.is_empty() {
                section {
                    h2 { "Beside " (self.source) }
                    p.note { (self.verdicts_explained().replace('`', "")) }
                    (details::table(&head, 2, &rows))
                    @for note in &self.notes { p.note { (note) } }
                }
            }
        }
    }
}

/// Text that is no markup, in one line.
pub(crate) fn markdown_cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "\\<").replace(['\n', '\r'], " ")
}

/// A table, its first `n_texts` columns to the left and the others to the right.
pub(crate) fn markdown_table(head: &[&str], n_texts: usize, rows: &[Vec<text::Cell>]) -> String {
    let head: Vec<String> = head.iter().map(|text| markdown_cell(text)).collect();
    let mut out = format!("| {} |\n|", head.join(" | "));
    for i in 0..head.len() {
        out.push_str(if i < n_texts { "---|" } else { "---:|" });
    }
    out.push('\n');
    for row in rows {
        for cell in row {
            let text = markdown_cell(&cell.text);
            let _ = if cell.marked { write!(out, "| **{text}** ") } else { write!(out, "| {text} ") };
        }
        out.push_str("|\n");
    }
    out
}
