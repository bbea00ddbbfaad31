//! Results and differences with their intervals.

use super::*;
use crate::eval::PairedDifference;

fn row(label: &str, dataset: &str, mean: f64) -> EvalRow {
    let details = EvalDetails { mean_interval: Some([mean - 0.01, mean + 0.02]), ..EvalDetails::default() };
    EvalRow { details, ..eval(label, dataset, mean) }
}

fn reference(label: &str, dataset: &str, mean: f64) -> Reference {
    Reference { label: label.into(), dataset: dataset.into(), mean }
}

fn difference(label: &str, dataset: &str, mean: f64, interval: [f64; 2]) -> Difference {
    let difference = PairedDifference { mean, interval, n_sequences: 320 };
    Difference { label: label.into(), dataset: dataset.into(), difference }
}

/// The marks on one line of the panels.
fn on_line<'a>(plot: &'a Value, label: &str) -> Vec<&'a Value> {
    traces(plot).iter().filter(|t| t["y"][0] == label).collect()
}

fn annotations(plot: &Value) -> Vec<&str> {
    let all = plot["layout"]["annotations"].as_array().unwrap();
    all.iter().map(|a| a["text"].as_str().unwrap()).collect()
}

#[test]
fn means_have_their_intervals_and_published_ones_stand_beside_them() {
    let rows = [row("original", "owt", 3.1), row("LN-free", "owt", 3.15), row("LN-free", "data/pile", 4.0)];
    let references = [reference("LN-free", "owt", 3.13), reference("paper LN-free", "pile", 4.1)];
    let plot = json(&results_with_intervals(&rows, &references));
    let marks = on_line(&plot, "LN-free");
    let of_owt: Vec<_> = marks.iter().filter(|t| t["xaxis"] == "x2").collect();
    assert_eq!(of_owt.len(), 2, "the mean and the published one");
    assert_eq!(of_owt[0]["error_x"]["array"], serde_json::json!([0.02]));
    assert_eq!(of_owt[0]["error_x"]["arrayminus"], serde_json::json!([0.01]));
    assert_eq!(of_owt[0]["marker"]["color"], theme::role_color(Role::LnFree, 0));
    assert_eq!((&of_owt[1]["marker"]["symbol"], &of_owt[1]["x"][0]), (&"diamond-open".into(), &3.13.into()));
    assert_eq!(of_owt[1]["error_x"], Value::Null);
    let unknown = on_line(&plot, "paper LN-free");
    assert_eq!((unknown.len(), &unknown[0]["xaxis"]), (1, &"x".into()));
    assert_eq!(legend(&plot), ["mean and 95% interval", "published mean"]);
    assert!(annotations(&plot).contains(&"<b>pile</b>") && annotations(&plot).contains(&"3.1500"));
    assert!(annotations(&plot).contains(&"4.1000") && !annotations(&plot).contains(&"3.1300"));
    assert_eq!(plot["layout"]["xaxis"]["title"]["text"], "mean loss, nats per token");
}

#[test]
fn an_explosion_does_not_set_the_range() {
    let rows = [row("original", "pile", 2.44), row("LN-free", "pile", 130.2197)];
    let plot = json(&results_with_intervals(&rows, &[]));
    let exploded = on_line(&plot, "LN-free")[0];
    let at = exploded["x"][0].as_f64().unwrap();
    assert!(at > 2.46 && at < 2.6, "{at}");
    assert_eq!(exploded["marker"]["symbol"], "triangle-right");
    assert!(annotations(&plot).contains(&"▶ 130.2197"));
    assert!(exploded["hovertemplate"].as_str().unwrap().contains("130.2197 nats"));
}

#[test]
fn more_data_sets_than_plotly_has_axes() {
    let rows: Vec<_> = (0..12).map(|i| row("original", &format!("set{i}"), 3.0)).collect();
    let plot = json(&results_with_intervals(&rows, &[]));
    assert_eq!(traces(&plot).last().unwrap()["xaxis"], "x12");
    assert_eq!(plot["layout"]["grid"]["rows"], 12);
    assert!(plot["layout"]["height"].as_u64().unwrap() >= 12 * 40);
}

#[test]
fn one_panel_leaves_room_for_its_heading_and_its_figures() {
    let plot = json(&results_with_intervals(&[row("original", "owt", 3.0)], &[]));
    let axes = &plot["layout"]["template"]["layout"];
    assert!(axes["xaxis"]["domain"][1].as_f64().unwrap() < 0.9);
    assert!(axes["yaxis"]["domain"][1].as_f64().unwrap() < 0.8);
}

#[test]
fn differences_share_a_range_around_zero() {
    let plot = json(&paired_differences(&[
        difference("LN-free − original", "owt", 0.03, [0.028, 0.034]),
        difference("vanilla - original", "owt", -0.022, [-0.024, -0.02]),
        difference("vanilla - original", "pile", 0.001, [-0.001, 0.12]),
    ]));
    for axis in [&plot["layout"]["xaxis"], &plot["layout"]["template"]["layout"]["xaxis"]] {
        let range = axis["range"].as_array().unwrap();
        assert!(range[0].as_f64().unwrap() < -0.024 && range[1].as_f64().unwrap() > 0.12, "{range:?}");
        assert_eq!(axis["zeroline"], true);
    }
    let vanilla = on_line(&plot, "vanilla - original");
    let symbols: Vec<_> = vanilla.iter().map(|t| t["marker"]["symbol"].as_str().unwrap()).collect();
    assert_eq!(symbols, ["circle-open", "circle"], "the lowest panel comes first");
    assert_eq!(vanilla[0]["marker"]["color"], theme::role_color(Role::Vanilla, 0));
    let free = on_line(&plot, "LN-free − original");
    assert_eq!(free[0]["marker"]["color"], theme::role_color(Role::LnFree, 0));
    assert!(annotations(&plot).contains(&"−0.0220"));
}

#[test]
fn intervals_of_nothing_still_draw() {
    let nan = EvalRow { mean: f64::NAN, ..row("original", "owt", 3.0) };
    let bare = eval("original", "owt", 3.0);
    for rows in [vec![], vec![nan.clone()], vec![bare.clone()], vec![nan, bare, row("LN-free", "owt", 1e9)]] {
        json(&results_with_intervals(&rows, &[]));
        json(&results_with_intervals(&rows, &[reference("", "", f64::NAN)]));
    }
    json(&paired_differences(&[]));
    json(&paired_differences(&[difference("", "", f64::NAN, [f64::NAN; 2])]));
}

#[test]
fn labels_and_data_sets_are_never_markup() {
    let name = "<a href='javascript:x'>&";
    let figures = [
        results_with_intervals(&[row(name, name, 1.0)], &[reference(name, name, 1.0)]),
        paired_differences(&[difference(name, name, 1.0, [0.9, 1.1])]),
    ];
    for figure in figures {
        let text = figure.to_json();
        assert!(!text.contains("<a") && text.contains("&lt;a"), "{text}");
    }
}
