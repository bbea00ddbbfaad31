//! Findings of several models as one page.

use std::path::Path;

use maud::{Markup, html};

use super::sections::section;
use super::tables::{Beside, beside, by_request, in_order};
use super::{Findings, Request, Row, Verdict};
use crate::study::report::{self, Cell, plain_table};
use crate::{Error, Result};

/// Writes one HTML page about `findings` to `out`: a section for each request, with its models side by side;
/// above them `rows`, measured beside published or recorded, and what failed.
///
/// The page needs no network and no other file. It is written beside `out` and renamed, so that `out` is
/// never half there. Missing folders above `out` are made.
///
/// # Errors
/// [`Error::Invalid`] if there is nothing to show, or findings do not fit their axes; [`Error::Io`] or
/// [`Error::File`] if `out` cannot be written.
pub fn write_page(findings: &[Findings], rows: &[Row], failures: &[String], out: &Path) -> Result<()> {
    if findings.is_empty() && rows.is_empty() && failures.is_empty() {
        return Err(Error::invalid("nothing to show: give the findings of an analysis"));
    }
    let groups = by_request(findings);
    let sections: Vec<Markup> = groups
        .iter()
        .enumerate()
        .map(|(i, group)| section(&in_order(group), &id(i)))
        .collect::<Result<_>>()?;
    let requests: Vec<&Request> = groups.iter().map(|group| &group[0].request).collect();
    let body = html! {
        p.soft { (subtitle(findings, requests.len())) }
        (failed(failures))
        (beside_figures(rows))
        (contents(&requests))
        @for section in &sections { (section) }
        (models(findings))
    };
    report::write_page(out, "Interpretability", &body)
}

/// The name of the `i`-th section.
fn id(i: usize) -> String {
    format!("analysis-{i}")
}

fn subtitle(findings: &[Findings], requests: usize) -> String {
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let mut labels: Vec<&str> = findings.iter().map(|one| one.label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    [count(labels.len(), "model", "models"), count(requests, "analysis", "analyses")].join(" · ")
}

fn failed(failures: &[String]) -> Markup {
    html! {
        @if !failures.is_empty() {
            section.failed {
                h2 { "Failed" }
                p.warning { "These analyses gave no result; they are in none of the sections below." }
                ul { @for failure in failures { li { (failure) } } }
            }
        }
    }
}

/// Folded where all is as recorded: a line for every number, of which none says more.
fn beside_figures(rows: &[Row]) -> Markup {
    let Some(Beside { title, explained, head, rows: lines }) = beside(rows) else { return html! {} };
    let table = plain_table(&head, 3, &lines);
    html! {
        section {
            h2 { (title) }
            p.note { (explained) }
            @if rows.iter().all(|row| row.verdict == Verdict::AsRecorded) {
                details {
                    summary { (rows.len()) " as recorded" }
                    (table)
                }
            } @else {
                (table)
            }
        }
    }
}

/// Links to the sections, where there are some to choose from.
fn contents(requests: &[&Request]) -> Markup {
    html! {
        @if requests.len() > 2 {
            ul.contents {
                @for (i, request) in requests.iter().enumerate() {
                    li {
                        a href={ "#" (id(i)) } { (request.title()) }
                        " " span.soft { (request.to_string()) }
                    }
                }
            }
        }
    }
}

/// What was analysed, and how long that took.
fn models(findings: &[Findings]) -> Markup {
    let mut known: Vec<(&str, &str, Option<&str>, f64)> = Vec::new();
    for one in findings {
        let (label, model, original) = (one.label.as_str(), one.model.as_str(), one.original.as_deref());
        match known.iter().position(|known| (known.0, known.1, known.2) == (label, model, original)) {
            Some(at) => known[at].3 += one.seconds,
            None => known.push((label, model, original, one.seconds)),
        }
    }
    let cells = |(label, model, original, seconds): &(&str, &str, Option<&str>, f64)| -> Vec<Cell> {
        let seconds = format!("{seconds:.1}");
        vec![(*label).into(), (*model).into(), original.unwrap_or("–").into(), seconds.into()]
    };
    let rows: Vec<Vec<Cell>> = known.iter().map(cells).collect();
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "Models" }
                p.note { "Seconds for all analyses above; loading and downloads are not in them." }
                (plain_table(&["model", "path or name", "compared with", "seconds"], 3, &rows))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;
    use crate::study::found::{Axis, Curve, Found, Map, MarkedText, Number, Ranking};

    fn found(scale: f64) -> Found {
        let columns = Axis { title: "token".into(), labels: vec!["<b>".into(), " x".into()] };
        let parts = |name: &str, total| Ranking {
            name: name.into(),
            what: "head".into(),
            columns: vec!["logit".into()],
            rows: vec![("3.1".into(), vec![Some(scale)]), ("<i>".into(), vec![None])],
            total,
        };
        Found {
            notes: vec!["Position 0 is end-of-text.".into(), format!("Of scale {scale}.")],
            numbers: vec![Number::new("sink rate", 10.0 * scale, "%").with_interval([1.0, 2.0])],
            maps: vec![Map {
                name: "effect".into(),
                unit: "nats".into(),
                rows: Axis::counted("layer", 1),
                columns: columns.clone(),
                values: vec![vec![Some(scale), None]],
                signed: true,
            }],
            curves: vec![Curve {
                name: "norm".into(),
                unit: String::new(),
                at: columns,
                values: vec![Some(scale), None],
            }],
            rankings: vec![parts("with a sum", Some(scale)), parts("without", None)],
            texts: vec![MarkedText {
                name: "loss".into(),
                unit: "nats".into(),
                tokens: vec!["<b>".into(), " x".into()],
                values: vec![Some(-0.5 * scale), None],
            }],
        }
    }

    fn findings(label: &str, data: &str, scale: f64) -> Findings {
        Findings {
            request: Request::Sinks(Sample { data: data.into(), sequences: 2, positions: 3 }),
            label: label.into(),
            model: format!("models/{label}"),
            original: None,
            seconds: 1.0,
            found: found(scale),
        }
    }

    fn page(findings: &[Findings], rows: &[Row], failures: &[String]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/page.html");
        write_page(findings, rows, failures, &out).unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        text.split_once("<main>").unwrap().1.to_string()
    }

    #[test]
    fn equal_requests_share_a_section_with_the_original_first() {
        let all =
            [findings("LN-free", "a", 0.25), findings("other", "b", 1.5), findings("original", "a", 0.5)];
        let page = page(&all, &[], &[]);
        assert_eq!(page.matches("<section id=").count(), 2);
        assert!(page.contains("the first 2 sequences of a, 3 positions"), "{page}");
        let head = "<th class=\"number\">original</th><th class=\"number\">LN-free</th>";
        assert!(page.contains(head), "{page}");
        assert!(page.contains("2.5000 [1, 2]"), "{page}");
        // Two sections, each with a map, a curve and a waterfall.
        assert_eq!(page.matches("data-figure=").count(), 6);
        // What all models say has no names before it.
        assert!(page.contains("<li>Position 0 is end-of-text.</li>"), "{page}");
        assert!(page.contains("<li><b>LN-free: </b>Of scale 0.25.</li>"), "{page}");
    }

    #[test]
    fn tokens_are_coloured_and_never_markup() {
        let page = page(&[findings("<u>", "a", 1.0)], &[], &[]);
        let span =
            "<span style=\"background: rgba(217,96,26,0.650)\" title=\"−0.5000 nats\">&lt;b&gt;</span>";
        assert!(page.contains(span), "{page}");
        assert!(page.contains("<span> x</span>"), "{page}");
        assert!(!page.contains("<u>") && !page.contains("<i>"), "{page}");
    }

    #[test]
    fn failures_and_verdicts_come_first() {
        let row = Row::of_a_sink_rate();
        let page = page(&[], &[row], &["sinks of XL: no memory".into()]);
        assert!(page.contains("<li>sinks of XL: no memory</li>"), "{page}");
        for cell in ["sink rate, %", "12.50", "55.30 [53.10, 58.10]", "differs"] {
            assert!(page.contains(&format!(">{cell}</td>")), "{cell}: {page}");
        }
        let out = std::env::temp_dir().join("never-written.html");
        assert!(write_page(&[], &[], &[], &out).unwrap_err().to_string().contains("nothing to show"));
    }

    #[test]
    fn what_is_as_recorded_is_folded_and_what_is_not_is_shown() {
        let row = |measured, verdict| Row {
            measured: Some(measured),
            recorded: true,
            verdict,
            ..Row::of_a_sink_rate()
        };
        let same = row(55.31, Verdict::AsRecorded);
        let folded = page(&[], std::slice::from_ref(&same), &[]);
        for said in ["<h2>Beside our record</h2>", ">recorded</th>", "<summary>1 as recorded</summary>"] {
            assert!(folded.contains(said), "{said}: {folded}");
        }
        let shown = page(&[], &[same, row(12.5, Verdict::NotAsRecorded)], &[]);
        assert!(!shown.contains("<details>") && shown.contains(">not as recorded</td>"), "{shown}");
    }
}
