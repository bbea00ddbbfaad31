//! The report page: what was run, the results, the figures, the configs, all in one file.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::page;
use super::pairs::differences;
use super::read::{read_eval, read_run};
use super::sections;
use crate::base::atomic::write_text;
use crate::study::plot::{EvalRow, RunMetrics};
use crate::{Error, Result};

/// Writes one HTML page about `runs` (run directories) and `evals` (files of `lnfree eval --json`) to `out`.
///
/// The page needs no network and no other file: plotly.js is inside. It is written beside `out` and renamed,
/// so that `out` is never half there. Missing folders above `out` are made.
///
/// # Errors
/// Those of [`read_run`] and [`read_eval`]; [`Error::Invalid`] if both lists are empty; [`Error::Io`] if
/// `out` cannot be written.
pub fn write_html(runs: &[PathBuf], evals: &[PathBuf], out: &Path) -> Result<()> {
    if runs.is_empty() && evals.is_empty() {
        return Err(Error::invalid("nothing to report: give a run directory or an evaluation file"));
    }
    let mut read: Vec<RunMetrics> = runs.iter().map(read_run).collect::<Result<_>>()?;
    let rows: Vec<EvalRow> = evals.iter().map(read_eval).collect::<Result<_>>()?;
    name_apart(&mut read, runs);
    let (differences, notes) = differences(&rows);
    let body = html! {
        p.soft { (subtitle(&read, &rows, now())) }
        (sections::what_was_run(&read))
        (sections::results(&rows))
        (sections::losses(&read))
        (sections::stds(&read))
        (sections::optimisation(&read))
        (sections::evaluations(&rows, &differences, &notes))
        (sections::configs(&read))
    };
    write_page(out, title(&read), &body)
}

/// Writes a page with this title and body to `out`, whole or not at all, with all that it needs inside.
pub(crate) fn write_page(out: &Path, title: &str, body: &Markup) -> Result<()> {
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    write_text(out, &format!("{}\n", document(title, body).into_string()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Runs whose directories share a name get the parent's name too, and a number if that is not enough.
fn name_apart(runs: &mut [RunMetrics], dirs: &[PathBuf]) {
    let original: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        if original.iter().filter(|name| **name == run.name).count() > 1
            && let Some(parent) = dirs[i].parent().and_then(Path::file_name)
        {
            run.name = format!("{}/{}", parent.to_string_lossy(), run.name);
        }
    }
    for i in 1..runs.len() {
        let name = runs[i].name.clone();
        let mut n = 1;
        while runs[..i].iter().any(|run| run.name == runs[i].name) {
            n += 1;
            runs[i].name = format!("{name} #{n}");
        }
    }
}

fn document(title: &str, body: &Markup) -> Markup {
    let version = env!("CARGO_PKG_VERSION");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "lnfree " (version) };
                title { (title) }
                style { (PreEscaped(page::STYLE)) }
                (PreEscaped(page::plotly_js()))
            }
            body {
                main {
                    noscript { p.warning { "The figures need JavaScript; the tables do not." } }
                    h1 { (title) }
                    (body)
                    footer {
                        "Written " (page::utc(now())) " by lnfree " (version)
                        ". Figures drawn with plotly.js, which this file contains."
                    }
                }
                script { (PreEscaped(page::SCRIPT)) }
            }
        }
    }
}

fn title(runs: &[RunMetrics]) -> &'static str {
    let pretraining = !runs.is_empty() && runs.iter().all(|run| run.info.mode == "pretrain");
    if pretraining { "Pretraining report" } else { "LayerNorm removal report" }
}

fn subtitle(runs: &[RunMetrics], rows: &[EvalRow], now: u64) -> String {
    let mut parts = Vec::new();
    let mut models: Vec<&str> =
        runs.iter().map(|r| r.info.model.as_str()).filter(|m| !m.is_empty()).collect();
    models.dedup();
    if let [model] = models[..] {
        parts.push(model.to_string());
    }
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    if !runs.is_empty() {
        parts.push(count(runs.len(), "run"));
    }
    if !rows.is_empty() {
        parts.push(count(rows.len(), "evaluation"));
    }
    parts.push(page::utc(now));
    parts.join(" · ")
}
