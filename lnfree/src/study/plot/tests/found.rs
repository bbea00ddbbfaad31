//! What analyses found: maps, curves, sums.

use super::*;
use crate::study::found::{Axis, Curve, Map, Ranking};

const EVIL: &str = "<a href='javascript:x'>&";

fn axis(title: &str, labels: &[&str]) -> Axis {
    Axis { title: title.into(), labels: labels.iter().map(|label| label.to_string()).collect() }
}

fn map(values: Vec<Vec<Option<f64>>>, signed: bool) -> Map {
    Map {
        name: "effect".into(),
        unit: "nats".into(),
        rows: Axis::counted("layer", values.len()),
        columns: Axis::counted("head", values.first().map_or(0, Vec::len)),
        values,
        signed,
    }
}

fn curve(labels: &[&str], values: &[f64]) -> Curve {
    Curve {
        name: "loss".into(),
        unit: "nats".into(),
        at: axis("layer", labels),
        values: values.iter().map(|value| Some(*value)).collect(),
    }
}

fn ranking(parts: &[(&str, f64)], total: Option<f64>) -> Ranking {
    Ranking {
        name: "components".into(),
        what: "component".into(),
        columns: vec!["logit, nats".into()],
        rows: parts.iter().map(|(name, value)| (name.to_string(), vec![Some(*value)])).collect(),
        total,
    }
}

fn error(drawn: crate::Result<Figure>) -> String {
    match drawn {
        Ok(_) => panic!("drawn"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn maps_stand_side_by_side_on_one_scale() {
    let a = map(vec![vec![Some(0.1), None], vec![Some(-0.5), Some(0.2)]], true);
    let b = map(vec![vec![Some(0.25), Some(0.0)], vec![Some(0.0), Some(f64::NAN)]], true);
    let plot = json(&heat_maps(&[("original", &a), ("LN-free", &b)]).unwrap());
    let panels = traces(&plot);
    assert_eq!(panels[0]["z"], serde_json::json!([[0.1, null], [-0.5, 0.2]]));
    assert_eq!(panels[1]["z"], serde_json::json!([[0.25, 0.0], [0.0, null]]));
    for (panel, x) in panels.iter().zip(["x", "x2"]) {
        assert_eq!((&panel["zmin"], &panel["zmax"]), (&(-0.5).into(), &0.5.into()));
        assert_eq!((&panel["xaxis"], &panel["yaxis"]), (&x.into(), &"y".into()));
        assert_eq!(panel["y"], serde_json::json!(["layer 0", "layer 1"]));
    }
    assert_eq!(panels.iter().filter(|panel| panel["showscale"] == true).count(), 1);
    assert_eq!(panels[1]["hovertemplate"], "%{y}, %{x}: %{z:.4g} nats<extra>LN-free</extra>");
    // Layers run downwards.
    assert_eq!(plot["layout"]["template"]["layout"]["yaxis"]["range"], serde_json::json!([1.5, -0.5]));
    let plain = map(vec![vec![Some(2.0), Some(3.0)]], false);
    let plot = json(&heat_maps(&[("a", &plain)]).unwrap());
    assert_eq!((&traces(&plot)[0]["zmin"], &traces(&plot)[0]["zmax"]), (&2.0.into(), &3.0.into()));
}

#[test]
fn four_maps_make_two_rows_and_many_labels_are_thinned() {
    let wide = map(vec![vec![Some(1.0); 64]], false);
    let plot = json(&heat_maps(&[("a", &wide), ("b", &wide), ("c", &wide), ("d", &wide)]).unwrap());
    assert_eq!((&plot["layout"]["grid"]["rows"], &plot["layout"]["grid"]["columns"]), (&2.into(), &2.into()));
    assert_eq!((&traces(&plot)[3]["xaxis"], &traces(&plot)[3]["yaxis"]), (&"x2".into(), &"y2".into()));
    let labels = &plot["layout"]["template"]["layout"]["xaxis"]["ticktext"];
    assert_eq!((labels.as_array().unwrap().len(), &labels[1]), (13, &"5".into()));
}

#[test]
fn tokens_that_come_again_keep_their_places() {
    let mut twice = map(vec![vec![Some(1.0); 3]], false);
    twice.columns = axis("token", &[" the", " cat", " the"]);
    let plot = json(&heat_maps(&[("a", &twice)]).unwrap());
    let names = serde_json::json!(["token ‘ the’ (0)", "token ‘ cat’ (1)", "token ‘ the’ (2)"]);
    assert_eq!(traces(&plot)[0]["x"], names);
    let line = curve(&[" the", " cat", " the"], &[1.0, 2.0, 3.0]);
    let plot = json(&curves(&[("a", &line)]).unwrap());
    assert_eq!(traces(&plot)[0]["x"], serde_json::json!([0.0, 1.0, 2.0]));
    assert_eq!(plot["layout"]["xaxis"]["ticktext"], serde_json::json!([" the", " cat", " the"]));
}

#[test]
fn labels_of_rows_keep_a_gap_to_the_title_of_their_axis() {
    let of = |label: &str| {
        let map = Map { rows: axis("query", &[label]), ..map(vec![vec![Some(1.0)]], false) };
        let plot = json(&heat_maps(&[("a", &map)]).unwrap());
        let axis = &plot["layout"]["template"]["layout"]["yaxis"];
        assert_eq!(axis["title"]["text"], "query");
        (plot["layout"]["margin"]["l"].as_u64().unwrap(), axis["ticktext"][0].as_str().unwrap().to_string())
    };
    assert_eq!(of("0"), (64, "\u{a0}\u{a0}0".to_string()));
    let (left, label) = of("12 ‘ Constitution’");
    assert_eq!(label, "\u{a0}\u{a0}12 ‘ Constitution’");
    assert_eq!(left, 18 * 7 + 44);
}

#[test]
fn what_does_not_fit_is_named_and_nothing_still_draws() {
    let good = map(vec![vec![Some(1.0), Some(2.0)]], false);
    let mut torn = good.clone();
    torn.values[0].pop();
    assert!(error(heat_maps(&[("a", &torn)])).contains("a: effect: its axes have 1 and 2 labels"));
    let other = map(vec![vec![Some(1.0)]], false);
    assert!(error(heat_maps(&[("a", &good), ("b", &other)])).contains("b: effect: its axes are not those"));
    let short = Curve { values: vec![], ..curve(&["0"], &[1.0]) };
    assert!(error(curves(&[("a", &short)])).contains("a: loss: 0 numbers"));
    let sum = error(waterfall(&[("a", &ranking(&[("x", 1.0)], None))]));
    assert!(sum.contains("a: components does not add up"), "{sum}");
    let empty = map(vec![], true);
    let none = curve(&[], &[]);
    for figure in [heat_maps(&[]), heat_maps(&[("a", &empty)]), curves(&[]), curves(&[("a", &none)])] {
        json(&figure.unwrap());
    }
    json(&waterfall(&[]).unwrap());
    json(&waterfall(&[("a", &ranking(&[], Some(0.0)))]).unwrap());
}

#[test]
fn each_model_has_a_line_of_its_colour() {
    let (a, b) = (curve(&["0", "1", "2"], &[3.0, 2.5, 2.0]), curve(&["0", "1"], &[3.5, 2.25]));
    let plot = json(&curves(&[("nano", &a), ("nano_LNFree200", &b)]).unwrap());
    assert_eq!(legend(&plot), ["nano", "nano_LNFree200"]);
    let lines = traces(&plot);
    assert_eq!(lines[0]["y"], serde_json::json!([3.0, 2.5, 2.0]));
    assert_eq!(lines[1]["x"], serde_json::json!([0.0, 1.0]));
    assert_eq!(lines[1]["y"], serde_json::json!([3.5, 2.25]));
    assert_eq!(lines[0]["line"]["color"], theme::role_color(Role::Original, 0));
    assert_eq!(lines[1]["line"]["color"], theme::role_color(Role::LnFree, 0));
    assert_eq!((&lines[0]["line"]["dash"], &lines[1]["line"]["dash"]), (&"solid".into(), &"solid".into()));
    assert_eq!(lines[1]["text"][1], "layer 1");
    assert_eq!(plot["layout"]["yaxis"]["title"]["text"], "loss, nats");
}

#[test]
fn parts_follow_each_other_down_to_the_total() {
    let parts = ranking(&[("a", 2.0), ("b", -3.0), ("c", 0.5)], Some(-0.5));
    let plot = json(&waterfall(&[("LN-free", &parts)]).unwrap());
    let [base, above, below] = &traces(&plot)[..] else { panic!("{plot}") };
    assert_eq!(base["y"], serde_json::json!(["a  +2.000", "b  −3.000", "c  +0.500", "total  −0.500"]));
    // b goes from 2 to −1, c from −1 to −0.5.
    assert_eq!(base["x"], serde_json::json!([null, null, -0.5, null]));
    assert_eq!(above["x"], serde_json::json!([2.0, 2.0, null, null]));
    assert_eq!(below["x"], serde_json::json!([null, -1.0, -0.5, -0.5]));
    assert_eq!(above["hovertext"][1], "b: −3, from 2 to −1");
    assert_eq!(plot["layout"]["barmode"], "relative");
    assert_eq!(plot["layout"]["xaxis"]["title"]["text"], "logit, nats");
}

#[test]
fn the_small_parts_are_one_bar() {
    let names: Vec<String> = (0..20).map(|i| format!("part {i}")).collect();
    let parts: Vec<(&str, f64)> =
        names.iter().enumerate().map(|(i, name)| (name.as_str(), i as f64)).collect();
    let both = [("a", &ranking(&parts, Some(190.0))), ("b", &ranking(&parts[..2], Some(1.0)))];
    let plot = json(&waterfall(&both).unwrap());
    // The lowest panel comes first.
    let first = traces(&plot).iter().find(|trace| trace["yaxis"] == "y2").unwrap();
    let names: Vec<_> = first["y"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[14]), (17, "part 5  +5.000", "part 19  +19.000"));
    assert_eq!((names[15], names[16]), ("5 others  +10.000", "total  +190.000"));
    assert_eq!(traces(&plot)[0]["y"].as_array().unwrap().len(), 3);
}

#[test]
fn text_of_analyses_is_never_markup() {
    let mut evil = map(vec![vec![Some(1.0)]], false);
    (evil.name, evil.unit) = (EVIL.into(), EVIL.into());
    (evil.rows, evil.columns) = (axis(EVIL, &[EVIL]), axis(EVIL, &[EVIL]));
    let line =
        Curve { name: EVIL.into(), unit: EVIL.into(), at: axis(EVIL, &[EVIL]), values: vec![Some(1.0)] };
    let mut parts = ranking(&[(EVIL, 1.0)], Some(1.0));
    parts.columns = vec![EVIL.into()];
    for figure in [heat_maps(&[(EVIL, &evil)]), curves(&[(EVIL, &line)]), waterfall(&[(EVIL, &parts)])] {
        let text = figure.unwrap().to_json();
        assert!(!text.contains("<a") && text.contains("&lt;a"), "{text}");
    }
}
