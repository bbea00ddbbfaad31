//! What models attend to and what they write.

use tch::{Device, Kind, Tensor};

use super::*;

fn tokens(n: usize) -> Vec<String> {
    (0..n).map(|i| format!(" t{i}")).collect()
}

/// `[head, n, n]`: 0.1234 wherever a query may look, 0.9 where it may not.
fn pattern(heads: i64, n: i64) -> Tensor {
    let past = Tensor::full([heads, n, n], 0.1234, (Kind::Float, Device::Cpu)).tril(0);
    past + Tensor::full([heads, n, n], 0.9, (Kind::Float, Device::Cpu)).triu(1)
}

#[test]
fn every_head_of_every_model_has_a_panel_without_the_future() {
    let (a, b) = (pattern(4, 3), pattern(4, 3));
    let plot = json(&attention_patterns(&[("original", &a), ("LN-free", &b)], &tokens(3)).unwrap());
    assert_eq!(traces(&plot).len(), 8);
    let last = &traces(&plot)[7];
    assert_eq!((&last["xaxis"], &last["yaxis"]), (&"x4".into(), &"y2".into()));
    assert_eq!(last["z"], serde_json::json!([[0.123], [0.123, 0.123], [0.123, 0.123, 0.123]]));
    assert_eq!((&last["zmin"], &last["zmax"]), (&0.0.into(), &1.0.into()));
    assert_eq!(last["y"][1], "‘ t1’ (1)");
    let hover = last["hovertemplate"].as_str().unwrap();
    assert_eq!(hover, "head 3: %{y} attends to %{x}: %{z:.3f}<extra>LN-free</extra>");
    assert_eq!(traces(&plot).iter().filter(|t| t["showscale"] == true).count(), 1);
    assert_eq!((&plot["layout"]["grid"]["rows"], &plot["layout"]["grid"]["columns"]), (&2.into(), &4.into()));
}

#[test]
fn many_heads_go_on_in_further_rows_and_many_tokens_are_numbers() {
    let wide = pattern(12, 64);
    let plot = json(&attention_patterns(&[("a", &wide), ("b", &wide)], &tokens(64)).unwrap());
    assert_eq!((&plot["layout"]["grid"]["rows"], &plot["layout"]["grid"]["columns"]), (&4.into(), &6.into()));
    assert_eq!(traces(&plot)[6]["yaxis"], "y2");
    let axis = &plot["layout"]["template"]["layout"]["xaxis"];
    assert_eq!(axis["title"]["text"], "key position");
    assert_eq!(axis["ticktext"], serde_json::json!(["0", "20", "40", "60"]));
    assert!(plot.to_string().len() < 400_000, "{}", plot.to_string().len());
    let few = json(&attention_patterns(&[("a", &pattern(2, 5))], &tokens(5)).unwrap());
    let axis = &few["layout"]["template"]["layout"]["yaxis"];
    assert_eq!(axis["title"]["text"], "query token");
    assert_eq!(axis["ticktext"][4], "\u{a0}\u{a0} t4");
    let keys = &few["layout"]["template"]["layout"]["xaxis"];
    assert_eq!(keys["ticktext"][4], " t4");
}

#[test]
fn long_tokens_have_room_and_a_gap_to_the_title() {
    let margin = |token: &str| {
        let tokens = [token, "a", "b"].map(String::from);
        let plot = json(&attention_patterns(&[("a", &pattern(1, 3))], &tokens).unwrap());
        let label = plot["layout"]["template"]["layout"]["yaxis"]["ticktext"][0].as_str().unwrap();
        (plot["layout"]["margin"]["l"].as_u64().unwrap(), label.to_string())
    };
    let (short, label) = margin("the");
    assert_eq!((short, label.as_str()), (64, "\u{a0}\u{a0}the"));
    let (long, label) = margin("antidisestablishmentarianism");
    assert_eq!(label, "\u{a0}\u{a0}antidisestablishmen…");
    // Twenty letters and the title.
    assert!(long >= 20 * 6 + 40, "{long}");
}

#[test]
fn wrong_shapes_are_named_and_odd_ones_still_draw() {
    let good = pattern(2, 3);
    let error = |patterns: &[(&str, &Tensor)]| match attention_patterns(patterns, &tokens(3)) {
        Ok(_) => panic!("drawn"),
        Err(error) => error.to_string(),
    };
    let batched = error(&[("a", &good.unsqueeze(0))]);
    assert_eq!(batched, "a: an attention pattern over 3 tokens is [head, 3, 3], not [1, 2, 3, 3]");
    assert!(error(&[("a", &pattern(2, 4))]).contains("not [2, 4, 4]"));
    assert!(
        error(&[("a", &good), ("b", &pattern(3, 3))])
            .contains("b: an attention pattern over 3 tokens is [2, 3, 3]")
    );
    let nan = Tensor::full([1, 1, 1], f64::NAN, (Kind::Double, Device::Cpu));
    let plot = json(&attention_patterns(&[("a", &nan)], &tokens(1)).unwrap());
    assert_eq!(traces(&plot)[0]["z"], serde_json::json!([[null]]));
    let empty = Tensor::zeros([0, 0, 0], (Kind::Half, Device::Cpu));
    assert_eq!(traces(&json(&attention_patterns(&[("a", &empty)], &[]).unwrap())).len(), 0);
    json(&attention_patterns(&[("a", &Tensor::zeros([2, 0, 0], (Kind::Float, Device::Cpu)))], &[]).unwrap());
    json(&attention_patterns(&[], &tokens(2)).unwrap());
}

fn generation(model: &str, prompt: &str, text: &str) -> Generation {
    Generation { model: model.into(), prompt: prompt.into(), text: text.into() }
}

#[test]
fn texts_stand_under_their_model_and_beside_their_prompt() {
    let plot = json(&generations(&[
        generation("original", "Once", " upon\na time"),
        generation("LN-free", "Then", "Then it ended"),
        generation("LN-free", "Once", " more"),
        generation("LN-free", "Once", " again"),
    ]));
    let table = &traces(&plot)[0];
    assert_eq!(table["header"]["values"], serde_json::json!(["<b>original</b>", "<b>LN-free</b>"]));
    assert_eq!(table["cells"]["values"][0], serde_json::json!(["<b>Once</b> upon ↵ a time", "—", "—"]));
    let free = serde_json::json!(["<b>Once</b> more", "<b>Then</b> it ended", "<b>Once</b> again"]);
    assert_eq!(table["cells"]["values"][1], free);
}

#[test]
fn long_texts_make_a_high_table() {
    let height = |text: &str| {
        let rows = ["a", "b", "c"].map(|model| generation(model, "p", text));
        json(&generations(&rows))["layout"]["height"].as_u64().unwrap()
    };
    assert!(height(&"word ".repeat(200)) > height("word") + 300);
    json(&generations(&[]));
    json(&generations(&[generation("", "", "")]));
    let many: Vec<_> = (0..100).map(|i| generation(&i.to_string(), "p", "text")).collect();
    json(&generations(&many));
}

#[test]
fn tokens_and_texts_are_never_markup() {
    let name = "<a href='javascript:x'>&";
    let attention = attention_patterns(&[(name, &pattern(1, 1))], &[name.into()]).unwrap();
    for figure in [attention, generations(&[generation(name, name, name)])] {
        let text = figure.to_json();
        assert!(!text.contains("<a") && text.contains("&lt;a"), "{text}");
    }
}
