//! The figures, looked at as the JSON that plotly.js gets.

use serde_json::Value;

use super::*;

mod certainty;
mod found;
mod models;
mod plan;

fn json(plot: &Figure) -> Value {
    serde_json::from_str(&plot.to_json()).unwrap()
}

fn traces(plot: &Value) -> &Vec<Value> {
    plot["data"].as_array().unwrap()
}

fn legend(plot: &Value) -> Vec<&str> {
    let entries = traces(plot).iter().filter(|t| t["showlegend"] != false);
    entries.filter_map(|t| t["name"].as_str()).collect()
}

fn step(step: usize, loss: f64) -> Step {
    Step {
        step,
        loss,
        ce_loss: loss,
        aux_loss: 0.0,
        kl_loss: f64::NAN,
        lr: 1e-4,
        grad_norm: 1.0,
        tokens_per_s: 1e4,
    }
}

fn run(name: &str, mode: &str, losses: impl IntoIterator<Item = f64>) -> RunMetrics {
    let info = RunInfo { mode: mode.into(), ..RunInfo::default() };
    let steps = losses.into_iter().enumerate().map(|(i, loss)| step(i, loss)).collect();
    RunMetrics { name: name.into(), info, steps, ..RunMetrics::default() }
}

fn removal(step: usize, kind: RemovalKind, layer: impl Into<Option<usize>>) -> Removal {
    Removal { step, kind, layer: layer.into() }
}

fn eval(label: &str, dataset: &str, mean: f64) -> EvalRow {
    EvalRow { label: Some(label.into()), dataset: dataset.into(), mean, ..EvalRow::default() }
}

#[test]
fn every_kind_of_removal_is_marked_once_in_the_legend() {
    let mut free = run("free", "without_ln", (0..100).map(|i| 3.0 + 0.001 * f64::from(i)));
    free.removals = RemovalKind::ALL
        .into_iter()
        .enumerate()
        .flat_map(|(i, kind)| [removal(10 + 10 * i, kind, 0), removal(13 + 10 * i, kind, 1)])
        .collect();
    free.evals = vec![(49, 3.05)];
    let plot = json(&loss_curve(&[run("vanilla", "with_ln", (0..100).map(|_| 3.0)), free]));
    let kinds = RemovalKind::ALL.map(|kind| format!("{} removed", kind.label()));
    let mut expected = vec!["vanilla", "free", "evaluation"];
    expected.extend(kinds.iter().map(String::as_str));
    assert_eq!(legend(&plot), expected);
    let bands: Vec<_> =
        traces(&plot).iter().filter(|t| t["fill"] == "toself").map(|t| t["x"].clone()).collect();
    assert_eq!(bands.len(), 6);
    assert_eq!(bands[1], serde_json::json!([20, 20, 23, 23]));
    let texts = plot.to_string();
    assert!(texts.contains("ln_1 (v) of block 1") && texts.contains("cross-entropy, nats per token"));
    assert_eq!(plot["layout"]["yaxis2"]["overlaying"], "y");
}

#[test]
fn many_removals_in_one_step_are_counted() {
    let mut free = run("free", "without_ln", [3.0, 3.0]);
    free.removals = (0..12).map(|layer| removal(1, RemovalKind::Eot, layer)).collect();
    let text = json(&loss_curve(&[free])).to_string();
    assert!(text.contains("end-of-text std of block 0 to end-of-text std of block 11 (12)"), "{text}");
}

#[test]
fn high_early_losses_leave_the_range_to_the_rest() {
    let losses = (0..400).map(|i| if i < 6 { 10.0 } else { 3.0 + 0.1 * f64::from(i % 2) });
    let plot = json(&loss_curve(&[run("a", "pretrain", losses)]));
    let range = plot["layout"]["yaxis2"]["range"].as_array().unwrap();
    assert!(range[0].as_f64().unwrap() > 2.9 && range[1].as_f64().unwrap() < 3.5, "{range:?}");
    assert!(plot.to_string().contains("6 values lie above"));
}

#[test]
fn nothing_finite_and_nothing_at_all_still_draw() {
    let nan = run("nan", "with_ln", [f64::NAN; 80]);
    let one = run("one", "with_ln", [3.0]);
    for runs in [vec![], vec![nan.clone()], vec![one.clone()], vec![one, nan]] {
        json(&loss_curve(&runs));
        json(&optimisation(&runs));
        runs.iter().for_each(|run| drop(json(&std_over_time(run))));
    }
    assert_eq!(traces(&json(&results_bars(&[]))).len(), 0);
    let plot = json(&loss_curve(&[run("one", "with_ln", [3.0])]));
    assert_eq!(traces(&plot)[0]["mode"], "markers");
}

#[test]
fn a_distilled_run_has_a_panel_of_its_distance() {
    let plain = run("plain", "without_ln", [3.0, 3.0]);
    let mut taught = run("taught", "without_ln", [3.0, 3.0]);
    taught.steps.iter_mut().for_each(|step| (step.kl_loss, step.aux_loss) = (0.1, 0.2));
    let panels = |runs: &[RunMetrics]| json(&optimisation(runs)).to_string();
    assert!(!panels(std::slice::from_ref(&plain)).contains("KL, nats"));
    let both = panels(&[plain, taught]);
    assert!(both.contains("KL, nats") && both.contains("yaxis4"), "{both}");
}

#[test]
fn runs_of_all_modes_get_colours_of_their_own() {
    let modes = ["with_ln", "with_ln", "without_ln", "without_ln", "pretrain", ""];
    let colors = theme::run_colors(&modes.map(|mode| run("r", mode, [3.0])));
    let distinct: std::collections::HashSet<_> = colors.iter().collect();
    assert_eq!(distinct.len(), 6);
    assert_eq!(colors[0], theme::role_color(Role::Vanilla, 0));
    assert_eq!(colors[2], theme::role_color(Role::LnFree, 0));
}

#[test]
fn stds_have_a_line_per_ln_and_a_mark_where_it_went() {
    let mut free = run("free", "without_ln", (0..50).map(|_| 3.0));
    for (i, ln) in ["ln_f", "h.10.ln_1", "h.2.ln_1", "h.2.ln_2"].into_iter().enumerate() {
        free.stds.insert(LnName(ln.into()), (0..50).map(|s| (s, 10.0 * i as f64 + s as f64 + 1.0)).collect());
    }
    let kinds = [(20, RemovalKind::Ln2), (30, RemovalKind::Ln1Qk), (40, RemovalKind::Ln1V)];
    free.removals = kinds.map(|(at, kind)| removal(at, kind, 2)).to_vec();
    free.removals.push(removal(45, RemovalKind::LnF, None));
    free.removals.push(removal(47, RemovalKind::Eot, 2));
    let plot = json(&std_over_time(&free));
    let lines: Vec<_> = traces(&plot).iter().filter(|t| t["mode"] == "lines").collect();
    let names: Vec<_> = lines.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["h.2.ln_1", "h.2.ln_2", "h.10.ln_1", "ln_f"]);
    let panels: Vec<_> = lines.iter().map(|t| t["yaxis"].as_str().unwrap()).collect();
    assert_eq!(panels, ["y", "y2", "y", "y2"]);
    let mark = |name: &str| {
        let mark = traces(&plot).iter().find(|t| t["name"] == name).unwrap();
        (mark["x"][0].as_u64().unwrap(), mark["y"][0].as_f64().unwrap(), mark["yaxis"].as_str().unwrap())
    };
    assert_eq!(mark("ln_1 (q, k) removed"), (30, 51.0, "y"));
    assert_eq!(mark("ln_1 (v) removed"), (40, 61.0, "y"));
    assert_eq!(mark("ln_2 removed"), (20, 51.0, "y2"));
    assert_eq!(mark("ln_f removed"), (45, 46.0, "y2"));
}

#[test]
fn bars_show_losses_and_gaps_and_cut_explosions() {
    let rows = [
        eval("XL LN-free", "The Pile", 130.2197),
        eval("XL original", "The Pile", 2.4436),
        eval("XL original", "OWT", 2.5567),
        eval("XL LN-free", "OWT", 2.5052),
        eval("XL vanilla", "OWT", 2.4799),
    ];
    let plot = json(&results_bars(&rows));
    assert_eq!(legend(&plot), ["original", "vanilla", "LN-free"]);
    let free: Vec<_> = traces(&plot).iter().filter(|t| t["name"] == "LN-free").collect();
    assert_eq!(free[0]["text"], serde_json::json!(["▲ 130.220", "2.505"]));
    assert!(free[0]["y"][0].as_f64().unwrap() < 4.0);
    assert_eq!(free[1]["yaxis"], "y2");
    assert_eq!(free[1]["text"][1], "−0.052");
    // Without an original there is nothing to take the gap to.
    let plot = json(&results_bars(&rows[..1]));
    assert!(plot["layout"].get("yaxis2").is_none());
}

#[test]
fn text_from_data_is_never_markup() {
    let name = "<a href='javascript:x'>&";
    let mut evil = run(name, "with_ln", [3.0; 80]);
    evil.evals = vec![(3, 3.0)];
    evil.stds.insert(LnName(name.into()), vec![(0, 1.0)]);
    for plot in [loss_curve(&[evil.clone()]), std_over_time(&evil), results_bars(&[eval(name, name, 1.0)])] {
        let text = plot.to_json();
        assert!(!text.contains("<a") && text.contains("&lt;a"), "{text}");
    }
}
