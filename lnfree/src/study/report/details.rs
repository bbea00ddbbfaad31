//! What evaluations say beyond their means, as pieces of HTML, empty where the files do not say it.

use maud::{Markup, html};

use super::models::StudyModel;
use super::page::{figure, thousands};
use super::text::{self, Cell};
use crate::study::plot::Difference;
use crate::study::plot::{self, EvalRow};

/// A cell longer than this is running text, which may break its lines.
const LONG: usize = 60;

/// Headings and rows as a table that scrolls in itself; the first `n_texts` columns are texts, the others
/// numbers.
pub fn table(head: &[&str], n_texts: usize, rows: &[Vec<Cell>]) -> Markup {
    let long = |cell: &Cell| cell.text.chars().count() > LONG;
    html! {
        div.scroll {
            table {
                thead {
                    tr { @for (i, name) in head.iter().enumerate() { th.number[i >= n_texts] { (name) } } }
                }
                tbody {
                    @for row in rows {
                        tr {
                            @for (i, cell) in row.iter().enumerate() {
                                @if long(cell) {
                                    td.long { (cell.text) }
                                } @else {
                                    td.number[i >= n_texts].differs[cell.marked] { (cell.text) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A section with a heading and a note below it, or nothing where there is no content.
pub fn section(title: &str, note: &str, content: Option<Markup>) -> Markup {
    html! {
        @if let Some(content) = content {
            section {
                h2 { (title) }
                p.note { (note) }
                (content)
            }
        }
    }
}

/// The models of a study.
pub fn models(models: &[StudyModel]) -> Markup {
    let (head, rows) = text::models(models);
    section("Models", text::MODELS, Some(table(&head, 2, &rows)))
}

/// Differences between models on the same sequences.
pub fn differences(differences: &[Difference], notes: &[String]) -> Markup {
    let (head, rows) = text::differences(differences);
    let content = (!rows.is_empty() || !notes.is_empty()).then(|| {
        html! {
            @if !rows.is_empty() { (table(&head, 2, &rows)) }
            @for note in notes { p.warning { (note) } }
        }
    });
    section("Paired differences", text::DIFFERENCES, content)
}

/// Loss against position, one figure a data set.
pub fn positions(rows: &[EvalRow]) -> Markup {
    let mut datasets: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| !row.details.by_position.is_empty()) {
        if !datasets.contains(&row.dataset.as_str()) {
            datasets.push(&row.dataset);
        }
    }
    let of =
        |dataset: &str| rows.iter().filter(|row| row.dataset == dataset).cloned().collect::<Vec<EvalRow>>();
    let content = (!datasets.is_empty()).then(|| {
        html! {
            @for (i, rows) in datasets.iter().map(|dataset| of(dataset)).enumerate() {
                h3 { (rows[0].dataset_name()) }
                (figure(&format!("positions-{i}"), "Loss by position", &plot::loss_by_position(&rows)))
            }
        }
    });
    section(
        "Loss by position",
        "Mean loss over ranges of positions: what context is worth to each model.",
        content,
    )
}

/// Intervals, trimmed means, perplexity, accuracy, entropy and calibration.
pub fn quality(rows: &[EvalRow]) -> Markup {
    let (head, cells) = text::quality(rows);
    let content = (!cells.is_empty()).then(|| table(&head, 2, &cells));
    section("Calibration and intervals", text::QUALITY, content)
}

/// How far models lie from others.
pub fn distances(rows: &[EvalRow]) -> Markup {
    let (head, cells) = text::distances(rows);
    let content = (!cells.is_empty()).then(|| table(&head, 3, &cells));
    section("Distance to another model", &text::DISTANCES.replace('`', ""), content)
}

/// The sequences of highest loss with their text, folded, one table an evaluation.
pub fn worst(rows: &[EvalRow]) -> Markup {
    let names = plot::distinct_names(rows);
    let named: Vec<_> = rows.iter().zip(names).filter(|(row, _)| !row.details.worst.is_empty()).collect();
    let content = (!named.is_empty()).then(|| {
        html! {
            @for (row, name) in named { (worst_of(row, &name.to_string())) }
        }
    });
    section("Worst sequences", text::WORST, content)
}

fn worst_of(row: &EvalRow, name: &str) -> Markup {
    let worst = &row.details.worst;
    html! {
        details {
            summary {
                (name) " on " (row.dataset_name()) " "
                span.soft {
                    "worst sequence " (thousands(worst[0].sequence)) ", " (text::nats(worst[0].mean))
                    " nats per token"
                }
            }
            div.scroll {
                table.texts {
                    thead {
                        tr {
                            @for name in ["sequence", "loss", "highest"] { th.number { (name) } }
                            th { "text" }
                        }
                    }
                    tbody {
                        @for sequence in worst {
                            tr {
                                td.number { (thousands(sequence.sequence)) }
                                td.number { (text::nats(sequence.mean)) }
                                td.number { (sequence.peak.map_or("–".into(), text::nats)) }
                                td { (sequence.text) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What the evaluations were computed on, and how fast.
pub fn machine(rows: &[EvalRow]) -> Markup {
    let (head, cells) = text::machine(rows);
    let content = (!cells.is_empty()).then(|| table(&head, 2, &cells));
    section("Speed and memory", text::MACHINE, content)
}
