//! What evaluations say beyond their means, as pieces of HTML, empty where the files do not say it.

use std::fmt::Write as _;

use super::models::StudyModel;
use super::page::{escape, figure, thousands};
use super::text::{self, Cell};
use crate::study::plot::Difference;
use crate::study::plot::{self, EvalRow};

/// Headings and rows as a table that scrolls in itself; the first `n_texts` columns are texts, the others
/// numbers.
pub fn table(head: &[&str], n_texts: usize, rows: &[Vec<Cell>]) -> String {
    let class = |i: usize| if i < n_texts { "" } else { " class=\"number\"" };
    let mut out = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    for (i, name) in head.iter().enumerate() {
        let _ = write!(out, "<th{}>{}</th>", class(i), escape(name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let mark = if cell.marked { " class=\"differs\"" } else { class(i) };
            let mark = if cell.marked && i >= n_texts { " class=\"number differs\"" } else { mark };
            // A cell of running text may break its lines.
            let mark = if cell.text.chars().count() > 60 { " class=\"long\"" } else { mark };
            let _ = write!(out, "<td{mark}>{}</td>", escape(&cell.text));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

fn section(title: &str, note: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p class=\"note\">{note}</p>\n{content}</section>\n")
}

/// The models of a study.
pub fn models(models: &[StudyModel]) -> String {
    let (head, rows) = text::models(models);
    section("Models", text::MODELS, &table(&head, 2, &rows))
}

/// Differences between models on the same sequences.
pub fn differences(differences: &[Difference], notes: &[String]) -> String {
    if differences.is_empty() && notes.is_empty() {
        return String::new();
    }
    let (head, rows) = text::differences(differences);
    let mut content = if rows.is_empty() { String::new() } else { table(&head, 2, &rows) };
    for note in notes {
        let _ = writeln!(content, "<p class=\"warning\">{}</p>", escape(note));
    }
    section("Paired differences", text::DIFFERENCES, &content)
}

/// Loss against position, one figure a data set.
pub fn positions(rows: &[EvalRow]) -> String {
    let mut datasets: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| !row.details.by_position.is_empty()) {
        if !datasets.contains(&row.dataset.as_str()) {
            datasets.push(&row.dataset);
        }
    }
    if datasets.is_empty() {
        return String::new();
    }
    let mut content = String::new();
    for (i, dataset) in datasets.iter().enumerate() {
        let of_dataset: Vec<EvalRow> = rows.iter().filter(|row| row.dataset == *dataset).cloned().collect();
        let name = escape(of_dataset[0].dataset_name());
        let plot = plot::loss_by_position(&of_dataset);
        let _ = write!(
            content,
            "<h3>{name}</h3>\n{}",
            figure(&format!("positions-{i}"), "Loss by position", &plot)
        );
    }
    section(
        "Loss by position",
        "Mean loss over ranges of positions: what context is worth to each model.",
        &content,
    )
}

/// Intervals, trimmed means, perplexity, accuracy, entropy and calibration.
pub fn quality(rows: &[EvalRow]) -> String {
    let (head, cells) = text::quality(rows);
    if cells.is_empty() {
        String::new()
    } else {
        section("Calibration and intervals", text::QUALITY, &table(&head, 2, &cells))
    }
}

/// The sequences of highest loss with their text, folded, one table an evaluation.
pub fn worst(rows: &[EvalRow]) -> String {
    let mut content = String::new();
    for (row, name) in rows.iter().zip(plot::distinct_names(rows)) {
        let worst = &row.details.worst;
        let Some(first) = worst.first() else { continue };
        let _ = write!(
            content,
            "<details><summary>{} on {} <span class=\"soft\">worst sequence {}, {} nats per token</span></summary>\n\
             <div class=\"scroll\"><table class=\"texts\">\n<thead><tr><th class=\"number\">sequence</th>\
             <th class=\"number\">loss</th><th class=\"number\">highest</th><th>text</th></tr></thead>\n<tbody>\n",
            escape(&name.to_string()),
            escape(row.dataset_name()),
            thousands(first.sequence),
            text::nats(first.mean),
        );
        for sequence in worst {
            let _ = writeln!(
                content,
                "<tr><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>",
                thousands(sequence.sequence),
                text::nats(sequence.mean),
                sequence.peak.map_or("–".into(), text::nats),
                escape(&sequence.text)
            );
        }
        content.push_str("</tbody></table></div></details>\n");
    }
    if content.is_empty() {
        return content;
    }
    section("Worst sequences", text::WORST, &content)
}

/// What the evaluations were computed on, and how fast.
pub fn machine(rows: &[EvalRow]) -> String {
    let (head, cells) = text::machine(rows);
    if cells.is_empty() {
        String::new()
    } else {
        section("Speed and memory", text::MACHINE, &table(&head, 2, &cells))
    }
}
