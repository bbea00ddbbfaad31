//! The sections of the report page, each a piece of HTML, empty where there is nothing to show.

use std::fmt::Write as _;

use super::details;
use super::page::{escape, figure, thousands};
use super::table::results_table;
use crate::study::plot::Difference;
use crate::study::plot::{self, EvalRow, RunMetrics, Step};

/// The last loss of a run is the mean over this many of its last steps.
const LAST_STEPS: usize = 20;

/// The results table, its figure, and the spread over tokens.
pub fn results(rows: &[EvalRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Results</h2>\n<p class=\"note\">Mean cross-entropy in nats per token; below the line, \
         differences of the rows above it.</p>\n<div class=\"scroll\">{}</div>\n\
         <div class=\"scroll\"><div class=\"bars\" style=\"min-width: {}px; max-width: {}px\">{}</div></div>\n{}</section>\n",
        results_table(rows).to_html(),
        // Below this the bars' figures would overlap; and a few bars across a whole page look like walls.
        100 + 24 * rows.len(),
        (160 + 85 * rows.len()).max(480),
        figure(
            "results",
            "Mean loss of each model on each data set, and gaps to the original",
            &plot::results_bars(rows)
        ),
        spread(rows),
    )
}

/// Median and ranges of every evaluation, folded.
fn spread(rows: &[EvalRow]) -> String {
    let mut percents: Vec<&str> = Vec::new();
    for (percent, _) in rows.iter().flat_map(|row| &row.ranges) {
        if !percents.contains(&percent.as_str()) {
            percents.push(percent);
        }
    }
    let mut head = String::from("<th>model</th><th>data set</th><th>format</th>");
    for name in ["tokens", "mean", "median"] {
        let _ = write!(head, "<th class=\"number\">{name}</th>");
    }
    for percent in &percents {
        let _ = write!(head, "<th class=\"number\">{} % of tokens</th>", escape(percent));
    }
    let mut body = String::new();
    for (row, name) in rows.iter().zip(plot::distinct_names(rows)) {
        let (name, dataset) = (escape(&name.to_string()), escape(row.dataset_name()));
        let _ = write!(body, "<tr><td>{name}</td><td>{dataset}</td><td>{}</td>", escape(&row.format));
        let tokens = row.n_tokens.map_or("–".into(), thousands);
        for cell in [tokens, loss(row.mean), loss(row.median)] {
            let _ = write!(body, "<td class=\"number\">{cell}</td>");
        }
        for percent in &percents {
            let range = row.ranges.iter().find(|range| range.0 == *percent);
            let cell =
                range.map_or("–".into(), |(_, [low, high])| format!("{} to {}", loss(*low), loss(*high)));
            let _ = write!(body, "<td class=\"number\">{cell}</td>");
        }
        body.push_str("</tr>\n");
    }
    format!(
        "<details><summary>Medians and ranges over tokens</summary>\n<div class=\"scroll\"><table>\n\
         <thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div></details>\n"
    )
}

/// All that evaluations say beyond their means.
pub fn evaluations(rows: &[EvalRow], differences: &[Difference], notes: &[String]) -> String {
    [
        details::differences(differences, notes),
        details::positions(rows),
        details::quality(rows),
        details::worst(rows),
        details::machine(rows),
    ]
    .concat()
}

/// The loss figure.
pub fn losses(runs: &[RunMetrics]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let any = runs.iter().any(|run| !run.removals.is_empty());
    let marks = if any {
        " Shaded: from the first to the last removal of a kind; each line is one removal."
    } else {
        ""
    };
    format!(
        "<section>\n<h2>Loss</h2>\n<p class=\"note\">Training cross-entropy, each step faintly and the mean of the \
         last steps strongly; diamonds are evaluations.{marks}</p>\n{}\
         </section>\n",
        figure("loss", "Loss against optimizer step with removal events", &plot::loss_curve(runs)),
    )
}

/// One line a run: what it was, how far it went, where its loss began and ended.
pub fn what_was_run(runs: &[RunMetrics]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section>\n<h2>Runs</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>run</th><th>what</th><th>model</th>",
    );
    for name in ["steps", "removals", "first loss", "last loss", "last evaluation", "tokens/s"] {
        let _ = write!(out, "<th class=\"number\">{name}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for run in runs {
        let what = match run.info.mode.as_str() {
            "without_ln" => "LN removal",
            "with_ln" => "vanilla, LN kept",
            "pretrain" => "pretraining",
            other => other,
        };
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(&run.name));
        let _ = write!(out, "<td>{}</td><td>{}</td>", escape(what), escape(&run.info.model));
        for cell in run_figures(run) {
            let _ = write!(out, "<td class=\"number\">{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    let _ = writeln!(
        out,
        "</tbody></table></div>\n<p class=\"note\">Training cross-entropy in nats per token; the last loss is the mean \
         of the last {LAST_STEPS} steps.</p>\n</section>"
    );
    out
}

/// A time like `2025-01-31T14:05:09Z` to the minute; other texts as they are.
fn minutes(time: &str) -> String {
    match (time.get(..10), time.get(10..11), time.get(11..16)) {
        (Some(date), Some("T"), Some(minute)) => format!("{date} {minute}"),
        _ => time.to_string(),
    }
}

/// Steps, removals, first loss, last loss (mean of the last steps), last evaluation, median tokens/s.
fn run_figures(run: &RunMetrics) -> [String; 6] {
    let steps = &run.steps;
    let span = match (steps.first(), steps.last()) {
        (Some(first), Some(last)) if first.step > 0 => format!("{} to {}", first.step, last.step),
        _ => thousands(steps.len() as u64),
    };
    let last: Vec<f64> = steps.iter().rev().take(LAST_STEPS).map(Step::cross_entropy).collect();
    let mut speed: Vec<f64> = steps.iter().map(|s| s.tokens_per_s).filter(|v| v.is_finite()).collect();
    speed.sort_by(f64::total_cmp);
    [
        span,
        thousands(run.removals.len() as u64),
        steps.first().map_or("–".into(), |s| loss(s.cross_entropy())),
        loss(last.iter().sum::<f64>() / last.len() as f64),
        run.evals.last().map_or("–".into(), |(_, value)| loss(*value)),
        speed.get(speed.len() / 2).map_or("–".into(), |v| thousands(v.round() as u64)),
    ]
}

/// One figure of stds for each run that logged them.
pub fn stds(runs: &[RunMetrics]) -> String {
    let mut out = String::new();
    for (i, run) in runs.iter().enumerate().filter(|(_, run)| !run.stds.is_empty()) {
        let id = format!("stds-{i}");
        let plot = plot::std_over_time(run);
        let _ =
            write!(out, "<h3>{}</h3>\n{}", escape(&run.name), figure(&id, "Average std of each LN", &plot));
    }
    if out.is_empty() {
        return out;
    }
    format!(
        "<section>\n<h2>Stds over time</h2>\n<p class=\"note\">Running average of the standard deviation σ that each \
         LN divides by, one line per LN, coloured by layer. Marks show where an LN was removed.</p>\n{out}</section>\n"
    )
}

/// Gradient norm, learning rate, auxiliary loss.
pub fn optimisation(runs: &[RunMetrics]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Optimisation</h2>\n<p class=\"note\">Gradient norm before clipping, learning rate, and the \
         auxiliary loss where there is one.</p>\n{}</section>\n",
        figure("optimisation", "Gradient norm and learning rate", &plot::optimisation(runs)),
    )
}

/// The resolved config of each run, folded.
pub fn configs(runs: &[RunMetrics]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut out =
        String::from("<section>\n<h2>Configs</h2>\n<p class=\"note\">As resolved by each run.</p>\n");
    for run in runs {
        let started = minutes(&run.info.started);
        let version = match run.info.lnfree.as_str() {
            "" => String::new(),
            version => format!("lnfree {version}"),
        };
        let facts = [version.as_str(), run.info.device.as_str(), started.as_str()];
        let facts: Vec<String> = facts.into_iter().filter(|fact| !fact.is_empty()).map(escape).collect();
        let facts = facts.join(" · ");
        let (name, config) = (escape(&run.name), escape(run.config.trim_end()));
        let _ = writeln!(
            out,
            "<details><summary>{name} <span class=\"soft\">{facts}</span></summary>\n<pre>{config}</pre></details>"
        );
    }
    out.push_str("</section>\n");
    out
}

fn loss(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "NaN".into() }
}
