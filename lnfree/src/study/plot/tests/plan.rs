//! Schedules, σ over depth, the data that removal needs.

use std::collections::HashSet;

use super::*;
use crate::config::schedule::{Schedule, ScheduleConfig};
use crate::eval::stds::StdDict;

/// The schedule of `configs/gpt2_aux.toml`.
fn schedule(n_layer: usize) -> Schedule {
    let config = ScheduleConfig {
        start_ln2: Some(20),
        gap_ln2: 2,
        start_ln1qk: Some(44),
        gap_ln1qk: 2,
        start_ln1v: Some(68),
        gap_ln1v: 3,
        start_lnf: Some(104),
        start_eot: Some(106),
        start_bos: Some(116),
        ..ScheduleConfig::default()
    };
    Schedule::new(&config, n_layer)
}

fn stds(n_layer: usize, std: impl Fn(f64) -> f64) -> StdDict {
    let mut stds = StdDict::default();
    for layer in 0..n_layer {
        for (i, place) in ["pre", "mid", "post"].into_iter().enumerate() {
            let hook = format!("blocks.{layer}.hook_resid_{place}");
            stds.std_bos_dict.insert(hook.clone(), 50.0 + layer as f64);
            stds.std_dict.insert(hook, std(layer as f64 + 0.5 * i as f64));
        }
    }
    stds
}

#[test]
fn a_schedule_has_a_place_for_every_removal() {
    let plot = json(&removal_schedule(&schedule(12), 12, 300, 524_288));
    assert_eq!(legend(&plot), RemovalKind::ALL.map(RemovalKind::label));
    let symbols: HashSet<_> = traces(&plot).iter().map(|t| t["marker"]["symbol"].as_str().unwrap()).collect();
    let colors: HashSet<_> = traces(&plot).iter().map(|t| t["marker"]["color"].as_str().unwrap()).collect();
    assert_eq!((symbols.len(), colors.len()), (6, 6));
    let ln_1v = &traces(&plot)[2];
    assert_eq!((&ln_1v["x"][11], &ln_1v["y"][11]), (&101.into(), &11.into()));
    assert_eq!(ln_1v["text"][0], "35.7M", "68 steps of 524288 tokens");
    assert_eq!(traces(&plot)[3]["y"], serde_json::json!([12]), "ln_f stands above the last block");
    assert_eq!(plot["layout"]["shapes"][0]["x0"], 116.0);
    let note = plot["layout"]["annotations"][0]["text"].as_str().unwrap();
    assert_eq!(note, "fine-tuning without LN<br>for 184 steps, 96.5M tokens");
}

#[test]
fn removals_that_come_too_late_are_counted_and_not_drawn() {
    let plot = json(&removal_schedule(&schedule(12), 12, 100, 524_288));
    let last =
        traces(&plot).iter().flat_map(|t| t["x"].as_array().unwrap()).map(|x| x.as_u64().unwrap()).max();
    assert_eq!(last, Some(98));
    let note = plot["layout"]["annotations"][0]["text"].as_str().unwrap();
    assert!(note.starts_with("fine-tuning goes on for 2 steps"), "{note}");
    // One ln_1 (v), ln_f, and the special stds of twelve blocks each.
    assert!(note.contains("26 removals planned for step 100 or later"), "{note}");
}

#[test]
fn deep_models_have_not_every_block_numbered() {
    let plot = json(&removal_schedule(&schedule(48), 48, 300, 1));
    let labels = plot["layout"]["yaxis"]["ticktext"].as_array().unwrap();
    assert!(labels.len() <= 15 && labels.last().unwrap() == "ln_f", "{labels:?}");
    assert!(plot.to_string().len() < 12_000);
    for (n_layer, max_steps) in [(0, 0), (1, 1), (1, 0), (0, 300), (200, 10)] {
        json(&removal_schedule(&schedule(n_layer), n_layer, max_steps, 0));
    }
    json(&removal_schedule(&Schedule::empty(), 12, 300, 1));
}

#[test]
fn depth_is_read_where_an_ln_reads() {
    let (released, free) = (stds(2, |at| 1.0 + at), stds(2, |at| 2.0 + at));
    let plot = json(&std_over_depth(&[("gpt2", &released), ("gpt2 LN-free", &free), ("third", &free)]));
    let first = &traces(&plot)[0];
    assert_eq!(first["x"], serde_json::json!([0.0, 0.5, 1.0, 1.5, 2.0]));
    assert_eq!(first["y"], serde_json::json!([1.0, 1.5, 2.0, 2.5, 3.0]));
    assert_eq!(first["text"][3], "block 1, resid_mid");
    assert_eq!((&traces(&plot)[1]["yaxis"], &traces(&plot)[1]["y"][0]), (&"y2".into(), &50.0.into()));
    let color = |i: usize| traces(&plot)[i]["line"]["color"].as_str().unwrap();
    assert_eq!(color(0), theme::role_color(Role::Original, 0));
    assert_eq!(color(2), theme::role_color(Role::LnFree, 0));
    assert!(![color(0), color(2)].contains(&color(4)));
    assert_eq!(plot["layout"]["yaxis"]["type"], Value::Null, "little growth is shown as it is");
    assert_eq!(plot["layout"]["xaxis"]["ticktext"], serde_json::json!(["0", "1", "ln_f"]));
}

#[test]
fn much_growth_is_logarithmic_and_odd_stds_still_draw() {
    let growing = stds(48, |at| 0.3 * 1.1f64.powf(at));
    let plot = json(&std_over_depth(&[("xl", &growing), ("small", &stds(12, |_| 1.0))]));
    assert_eq!(plot["layout"]["yaxis"]["type"], "log");
    assert_eq!(plot["layout"]["yaxis2"]["type"], Value::Null);
    let labels = plot["layout"]["xaxis"]["ticktext"].as_array().unwrap();
    assert!(!labels.contains(&"ln_f".into()), "models of different depth end in different places");
    let mut odd = stds(1, |_| f64::NAN);
    odd.std_dict.insert("ln_final".into(), 1.0);
    odd.std_dict.insert(format!("blocks.{}.hook_resid_pre", usize::MAX), 0.0);
    for profiles in [vec![], vec![("odd", &odd)], vec![("none", &StdDict::default()), ("odd", &odd)]] {
        json(&std_over_depth(&profiles));
    }
}

#[test]
fn sizes_are_joined_in_order_and_own_runs_stay_apart() {
    let point = |name: &str, parameters: f64, tokens: f64, published| SizePoint {
        name: name.into(),
        parameters,
        steps: 300,
        tokens,
        published,
    };
    let plot = json(&data_needed(&[
        point("medium", 355e6, 262e6, true),
        point("small", 124e6, 157e6, true),
        point("nano", 1.9e6, 0.82e6, false),
        point("nothing", 0.0, f64::NAN, true),
    ]));
    assert_eq!(legend(&plot), ["published", "own runs"]);
    let published = &traces(&plot)[0];
    assert_eq!(published["x"], serde_json::json!([124e6, 355e6]));
    assert_eq!(published["mode"], "lines+markers+text");
    assert_eq!(published["text"][0], "small<br>300 steps");
    assert_eq!(traces(&plot)[1]["marker"]["symbol"], "circle-open");
    assert!(plot.to_string().contains("1.9M parameters, 300 steps, 820k tokens"));
    let ticks = plot["layout"]["xaxis"]["ticktext"].as_array().unwrap();
    assert!(ticks.contains(&"200M".into()) && plot["layout"]["xaxis"]["type"] == "log", "{ticks:?}");
    assert_eq!(traces(&json(&data_needed(&[]))).len(), 0);
    json(&data_needed(&[point("tiny", f64::MIN_POSITIVE, f64::MAX, true)]));
}

#[test]
fn counts_have_three_digits_and_a_unit() {
    let counts = [0.0, 7.0, 999.4, 999.9, 12_600.0, 157_286_400.0, 1.56e9, 999_950_000.0, 2e12];
    let texts = ["0", "7", "999", "1k", "12.6k", "157M", "1.56B", "1B", "2T"];
    assert_eq!(counts.map(theme::count), texts.map(String::from));
}
