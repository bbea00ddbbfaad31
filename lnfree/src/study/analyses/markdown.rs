//! Findings of several models as Markdown.

use std::fmt::Write as _;

use super::tables::{Beside, any_interval, beside, by_request, in_order, notes, numbers, together, written};
use super::{Findings, Ranking, Row};
use crate::study::report::{markdown_cell, markdown_table};

/// Rows of a ranking that its line has.
const TOP: usize = 3;

/// What failed, `rows` (measured beside published or recorded) and a section for each request of `findings`:
/// a table of its numbers, one line a number and one column a model, with 95% intervals in brackets; the
/// first three rows of each model's rankings, with the numbers of their first column; notes.
///
/// Models are in the order of [`super::write_page`]. Maps, curves and texts are left to that page.
pub fn markdown(findings: &[Findings], rows: &[Row], failures: &[String]) -> String {
    let mut out = String::from("# Interpretability\n");
    if !failures.is_empty() {
        out.push_str("\n## Failed\n\n");
        failures.iter().for_each(|failure| item(&mut out, failure));
    }
    if let Some(Beside { title, explained, head, rows }) = beside(rows) {
        let table = markdown_table(&head, 3, &rows);
        let _ = write!(out, "\n## {title}\n\n{explained}\n\n{table}");
    }
    by_request(findings).iter().for_each(|group| section(&mut out, &in_order(group)));
    out
}

/// The section of one request.
fn section(out: &mut String, models: &[&Findings]) {
    let Some(request) = models.first().map(|model| &model.request) else { return };
    let _ = write!(out, "\n## {}\n\n", request.title());
    let _ = writeln!(out, "Computed on {}.", markdown_cell(&request.to_string()));
    let (head, rows) = numbers(models);
    if !rows.is_empty() {
        let _ = write!(out, "\n{}", markdown_table(&head, 1, &rows));
    }
    if any_interval(models) {
        out.push_str("\nIn brackets: 95% intervals.\n");
    }
    let same = |a: &Ranking, b: &Ranking| a.name == b.name;
    let rankings = together(models, |model| model.found.rankings.as_slice(), same);
    let lines = rankings.iter().flatten().map(|(label, ranking)| first(label, ranking));
    items(out, lines);
    let notes = notes(models).into_iter().map(|(whose, note)| match whose {
        Some(whose) => format!("{whose}: {note}"),
        None => note.to_string(),
    });
    items(out, notes);
}

/// The first rows of a model's ranking in one line, and what their numbers are.
fn first(label: &str, ranking: &Ranking) -> String {
    let row = |(name, numbers): &(String, Vec<Option<f64>>)| match numbers.first() {
        Some(number) => format!("{name} {}", number.map_or("–".into(), written)),
        None => name.clone(),
    };
    let rows: Vec<String> = ranking.rows.iter().take(TOP).map(row).collect();
    let rows = if rows.is_empty() { "–".to_string() } else { rows.join(", ") };
    let unit = ranking.columns.first().map_or_else(String::new, |column| format!(" ({column})"));
    format!("{}, {label}: {rows}{unit}", ranking.name)
}

/// A list after an empty line, if it has any items.
fn items(out: &mut String, items: impl Iterator<Item = String>) {
    for (i, text) in items.enumerate() {
        if i == 0 {
            out.push('\n');
        }
        item(out, &text);
    }
}

fn item(out: &mut String, text: &str) {
    let _ = writeln!(out, "- {}", markdown_cell(text));
}

#[cfg(test)]
mod tests {
    use super::super::{Found, Number, Request, Sample, Verdict};
    use super::*;

    fn findings(label: &str, data: &str, scale: f64) -> Findings {
        let ranked = |name: &str, part: f64| (name.to_string(), vec![Some(part * scale), None]);
        let heads = Ranking {
            name: "heads that cost most".into(),
            what: "head".into(),
            columns: vec!["change of loss, nats".into(), "± (95%)".into()],
            rows: vec![
                ranked("L0H1", 1.0),
                ranked("L2|3", 0.5),
                ("L1H0".into(), vec![None]),
                ranked("L3H0", 0.1),
            ],
            total: None,
        };
        Findings {
            request: Request::Ablation(Sample { data: data.into(), sequences: 2, positions: 3 }),
            label: label.into(),
            model: format!("models/{label}"),
            original: None,
            seconds: 1.0,
            found: Found {
                notes: vec!["Position 0 is end-of-text.".into(), format!("Of scale {scale}.")],
                numbers: vec![Number::new("loss", scale, "nats").with_interval([1.0, 2.0])],
                rankings: vec![heads],
                ..Found::default()
            },
        }
    }

    #[test]
    fn a_request_is_a_section_with_the_original_first() {
        let mut all = [findings("LN-free", "a|b", 0.25), findings("original", "a|b", 0.5)];
        all[0].found.numbers.push(Number::new("rate", 1.5, ""));
        let expected = "# Interpretability\n\n\
            ## Loss without a head or an MLP\n\n\
            Computed on the first 2 sequences of a\\|b, 3 positions.\n\n\
            |  | original | LN-free |\n|---|---:|---:|\n\
            | loss, nats | 0.5000 [1, 2] | 0.2500 [1, 2] |\n\
            | rate | – | 1.5000 |\n\n\
            In brackets: 95% intervals.\n\n\
            - heads that cost most, original: L0H1 0.5000, L2\\|3 0.2500, L1H0 – (change of loss, nats)\n\
            - heads that cost most, LN-free: L0H1 0.2500, L2\\|3 0.1250, L1H0 – (change of loss, nats)\n\n\
            - Position 0 is end-of-text.\n\
            - original: Of scale 0.5.\n\
            - LN-free: Of scale 0.25.\n";
        assert_eq!(markdown(&all, &[], &[]), expected);
    }

    #[test]
    fn other_requests_have_their_own_sections_and_labels_are_escaped() {
        let text = markdown(&[findings("x|y", "a", 1.5), findings("x|y", "b", 2.5)], &[], &[]);
        assert_eq!(text.matches("\n## Loss").count(), 2);
        assert_eq!(text.matches("|  | x\\|y |\n").count(), 2, "{text}");
        assert!(text.contains("- heads that cost most, x\\|y: L0H1 1.5000"), "{text}");
    }

    #[test]
    fn failures_and_verdicts_come_first() {
        let row = Row::of_a_sink_rate();
        let text = markdown(&[findings("original", "a", 1.5)], &[row], &["sinks of XL: no\nmemory".into()]);
        let failed = text.find("- sinks of XL: no memory\n").unwrap();
        let line =
            "| Medium original | sinks | sink rate, % | 12.50 | 55.30 [53.10, 58.10] | **differs** |\n";
        let beside = text.find(line).unwrap();
        assert!(failed < beside && beside < text.find("## Loss").unwrap(), "{text}");
        assert_eq!(markdown(&[], &[], &[]), "# Interpretability\n");
    }

    #[test]
    fn a_record_is_called_one() {
        let row = Row { recorded: true, verdict: Verdict::NotAsRecorded, ..Row::of_a_sink_rate() };
        let text = markdown(&[], &[row.clone(), Row { verdict: Verdict::AsRecorded, ..row }], &[]);
        for said in [
            "\n## Beside our record\n",
            "within 0.1% of the recorded value, or within 0.0001 (of a percentage 0.01)",
            "| measured | recorded | verdict |\n",
            "| **not as recorded** |\n",
            "| as recorded |\n",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
