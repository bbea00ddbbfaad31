//! The sections of the report page, each a piece of HTML, empty where there is nothing to show.

use maud::{Markup, html};

use super::details::{self, section};
use super::page::{figure, thousands};
use super::table::results_table;
use super::text;
use crate::study::plot::Difference;
use crate::study::plot::{self, EvalRow, RunMetrics, Step};

/// The last loss of a run is the mean over this many of its last steps.
const LAST_STEPS: usize = 20;

/// The results table, its figure, and the spread over tokens.
pub fn results(rows: &[EvalRow]) -> Markup {
    // Below the least width the bars' figures would overlap; a few bars across a whole page look like walls.
    let (least, most) = (100 + 24 * rows.len(), (160 + 85 * rows.len()).max(480));
    let content = (!rows.is_empty()).then(|| {
        let bars = plot::results_bars(rows);
        html! {
            div.scroll { (results_table(rows).markup()) }
            div.scroll {
                div.bars style={ "min-width: " (least) "px; max-width: " (most) "px" } {
                    (figure("results", "Mean loss of each model on each data set, and gaps to the original", &bars))
                }
            }
            (spread(rows))
        }
    });
    section(
        "Results",
        "Mean cross-entropy in nats per token; below the line, differences of the rows above it.",
        content,
    )
}

/// Median and ranges of every evaluation, folded.
fn spread(rows: &[EvalRow]) -> Markup {
    let mut percents: Vec<&str> = Vec::new();
    for (percent, _) in rows.iter().flat_map(|row| &row.ranges) {
        if !percents.contains(&percent.as_str()) {
            percents.push(percent);
        }
    }
    let range = |row: &EvalRow, percent: &str| {
        let range = row.ranges.iter().find(|range| range.0 == percent);
        range
            .map_or("–".into(), |(_, [low, high])| format!("{} to {}", text::nats(*low), text::nats(*high)))
    };
    html! {
        details {
            summary { "Medians and ranges over tokens" }
            div.scroll {
                table {
                    thead {
                        tr {
                            @for name in ["model", "data set", "format"] { th { (name) } }
                            @for name in ["tokens", "mean", "median"] { th.number { (name) } }
                            @for percent in &percents { th.number { (percent) " % of tokens" } }
                        }
                    }
                    tbody {
                        @for (row, name) in rows.iter().zip(plot::distinct_names(rows)) {
                            tr {
                                @for cell in [&name.to_string(), row.dataset_name(), &row.format] { td { (cell) } }
                                td.number { (row.n_tokens.map_or("–".into(), thousands)) }
                                @for value in [row.mean, row.median] { td.number { (text::nats(value)) } }
                                @for percent in &percents { td.number { (range(row, percent)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// All that evaluations say beyond their means.
pub fn evaluations(rows: &[EvalRow], differences: &[Difference], notes: &[String]) -> Markup {
    html! {
        (details::differences(differences, notes))
        (details::positions(rows))
        (details::quality(rows))
        (details::distances(rows))
        (details::worst(rows))
        (details::machine(rows))
    }
}

/// The loss figure.
pub fn losses(runs: &[RunMetrics]) -> Markup {
    let any = runs.iter().any(|run| !run.removals.is_empty());
    let marks = match any {
        true => " Shaded: from the first to the last removal of a kind; each line is one removal.",
        false => "",
    };
    let content = (!runs.is_empty())
        .then(|| figure("loss", "Loss against optimizer step with removal events", &plot::loss_curve(runs)));
    let note = "Training cross-entropy, each step faintly and the mean of the last steps strongly; diamonds are \
                evaluations.";
    section("Loss", &format!("{note}{marks}"), content)
}

/// One line a run: what it was, how far it went, where its loss began and ended.
pub fn what_was_run(runs: &[RunMetrics]) -> Markup {
    let numbers = ["steps", "removals", "first loss", "last loss", "last evaluation", "tokens/s"];
    html! {
        @if !runs.is_empty() {
            section {
                h2 { "Runs" }
                div.scroll {
                    table {
                        thead {
                            tr {
                                @for name in ["run", "what", "model"] { th { (name) } }
                                @for name in numbers { th.number { (name) } }
                            }
                        }
                        tbody {
                            @for run in runs {
                                tr {
                                    th scope="row" { (run.name) }
                                    td { (what(&run.info.mode)) }
                                    td { (run.info.model) }
                                    @for cell in run_figures(run) { td.number { (cell) } }
                                }
                            }
                        }
                    }
                }
                p.note {
                    "Training cross-entropy in nats per token; the last loss is the mean of the last " (LAST_STEPS)
                    " steps."
                }
            }
        }
    }
}

/// A run's mode in words.
fn what(mode: &str) -> &str {
    match mode {
        "without_ln" => "LN removal",
        "with_ln" => "vanilla, LN kept",
        "pretrain" => "pretraining",
        other => other,
    }
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
        steps.first().map_or("–".into(), |s| text::nats(s.cross_entropy())),
        text::nats(last.iter().sum::<f64>() / last.len() as f64),
        run.evals.last().map_or("–".into(), |(_, value)| text::nats(*value)),
        speed.get(speed.len() / 2).map_or("–".into(), |v| thousands(v.round() as u64)),
    ]
}

/// One figure of stds for each run that logged them.
pub fn stds(runs: &[RunMetrics]) -> Markup {
    let logged: Vec<&RunMetrics> = runs.iter().filter(|run| !run.stds.is_empty()).collect();
    let content = (!logged.is_empty()).then(|| {
        html! {
            @for (i, run) in logged.iter().enumerate() {
                h3 { (run.name) }
                (figure(&format!("stds-{i}"), "Average std of each LN", &plot::std_over_time(run)))
            }
        }
    });
    section(
        "Stds over time",
        "Running average of the standard deviation σ that each LN divides by, one line per LN, coloured by layer. \
         Marks show where an LN was removed.",
        content,
    )
}

/// Gradient norm, learning rate, auxiliary loss.
pub fn optimisation(runs: &[RunMetrics]) -> Markup {
    let content = (!runs.is_empty())
        .then(|| figure("optimisation", "Gradient norm and learning rate", &plot::optimisation(runs)));
    section(
        "Optimisation",
        "Gradient norm before clipping, learning rate, and where there are any the auxiliary loss and the KL to the \
         teacher.",
        content,
    )
}

/// The resolved config of each run, folded.
pub fn configs(runs: &[RunMetrics]) -> Markup {
    let facts = |run: &RunMetrics| {
        let version = match run.info.lnfree.as_str() {
            "" => String::new(),
            version => format!("lnfree {version}"),
        };
        let facts = [version, run.info.device.clone(), minutes(&run.info.started)];
        facts.into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" · ")
    };
    let content = (!runs.is_empty()).then(|| {
        html! {
            @for run in runs {
                details {
                    summary { (run.name) " " span.soft { (facts(run)) } }
                    pre { (run.config.trim_end()) }
                }
            }
        }
    });
    section("Configs", "As resolved by each run.", content)
}
