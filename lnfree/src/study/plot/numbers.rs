//! Single numbers of several models, and how certain they are.

use plotly::common::MarkerSymbol;

use super::figure::Figure;
use super::forest::{Panel, Row, forest, keys, value_axis};
use super::labels;
use super::names::name_of;
use super::theme;
use crate::study::found::Number;

/// Numbers of named models with their 95% intervals, one panel for each name and unit, each with a range of
/// its own.
///
/// What was published is hollow: on the line of the model that it is named after, or else on a line of its
/// own.
///
/// ```
/// use lnfree::analyses::Number;
///
/// let rate = |value: f64| Number {
///     name: "sink rate".into(),
///     value: Some(value),
///     interval: Some([value - 1.0, value + 1.0]),
///     unit: "%".into(),
/// };
/// let (ours, theirs) = (rate(13.6), rate(55.3));
/// let figure = lnfree::plot::numbers_with_intervals(&[("nano", &ours)], &[("GPT-2 medium", &theirs)]);
/// assert!(figure.to_json().contains("sink rate, %"));
/// ```
pub fn numbers_with_intervals(measured: &[(&str, &Number)], published: &[(&str, &Number)]) -> Figure {
    let models: Vec<&str> = measured.iter().chain(published).map(|(model, _)| *model).collect();
    let mut panels: Vec<Panel> = Vec::new();
    for (numbers, is_published) in [(measured, false), (published, true)] {
        for (model, number) in numbers {
            let mut row = row(model, number, is_published, color(&models, model));
            let panel = panel(&mut panels, number);
            // Beside a number of our own, that one's figure is written.
            if is_published
                && panel.rows.iter().any(|other| other.label == row.label && other.value.is_finite())
            {
                row.written.clear();
            }
            panel.rows.push(row);
        }
    }
    let keys = keys("measured, with its 95% interval", "published", !published.is_empty());
    forest(&panels, value_axis(), "value and 95% interval", keys)
}

/// The panel of a number, made where there is none.
fn panel<'a>(panels: &'a mut Vec<Panel>, number: &Number) -> &'a mut Panel {
    let heading = labels::quantity(&number.name, &number.unit).replace("<br>", " ");
    let at = panels.iter().position(|panel| panel.heading == heading).unwrap_or(panels.len());
    if at == panels.len() {
        panels.push(Panel { heading, rows: Vec::new() });
    }
    &mut panels[at]
}

fn row(model: &str, number: &Number, is_published: bool, color: &'static str) -> Row {
    let (label, value) = (labels::text(model), number.value.unwrap_or(f64::NAN));
    let range = number
        .interval
        .map_or(String::new(), |[low, high]| format!(", 95% interval {} to {}", written(low), written(high)));
    let source = if is_published { ", published" } else { "" };
    Row {
        hover: format!("{label}: {}{}{range}{source}", written(value), labels::behind(&number.unit)),
        label,
        value,
        interval: number.interval,
        color,
        symbol: if is_published { MarkerSymbol::DiamondOpen } else { MarkerSymbol::Circle },
        written: if value.is_finite() { written(value) } else { String::new() },
    }
}

/// The colour of a model's role; further models of one role and family get its other shades.
fn color(models: &[&str], model: &str) -> &'static str {
    let name = name_of(model);
    let mut alike: Vec<&str> = Vec::new();
    for other in models.iter().copied() {
        let of = name_of(other);
        if (of.role, &of.group) == (name.role, &name.group) && !alike.contains(&other) {
            alike.push(other);
        }
    }
    let nth = alike.iter().position(|other| *other == model);
    theme::role_color(name.role, nth.unwrap_or_default())
}

/// As many digits as there is room for beside a panel; a true minus.
fn written(value: f64) -> String {
    let text = match value.abs() {
        small if small > 0.0 && small < 1e-3 => format!("{value:.1e}"),
        usual if usual < 10.0 => format!("{value:.4}"),
        large if large < 1e4 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::study::plot::Role;

    fn drawn(measured: &[(&str, &Number)], published: &[(&str, &Number)]) -> Value {
        serde_json::from_str(&numbers_with_intervals(measured, published).to_json()).unwrap()
    }

    fn on_line<'a>(plot: &'a Value, label: &str) -> Vec<&'a Value> {
        plot["data"].as_array().unwrap().iter().filter(|trace| trace["y"][0] == label).collect()
    }

    fn texts(plot: &Value) -> Vec<&str> {
        let all = plot["layout"]["annotations"].as_array().unwrap();
        all.iter().map(|annotation| annotation["text"].as_str().unwrap()).collect()
    }

    #[test]
    fn each_number_has_a_panel_of_its_own() {
        let rate =
            |value: f64| Number::new("sink rate", value, "%").with_interval([value - 1.0, value + 2.0]);
        let (many, few, loss) = (rate(13.5), rate(4.5), Number::new("loss", 3.5, "nats"));
        let plot = drawn(&[("original", &many), ("LN-free", &few), ("original", &loss)], &[]);
        let headings = texts(&plot);
        assert!(headings.contains(&"<b>sink rate, %</b>") && headings.contains(&"<b>loss, nats</b>"));
        let original = on_line(&plot, "original");
        let [loss, rate] = original[..] else { panic!("{original:?}") };
        assert_eq!((&loss["xaxis"], &loss["x"][0]), (&json!("x"), &json!(3.5)));
        assert_eq!(loss["error_x"], Value::Null);
        assert_eq!((&rate["xaxis"], &rate["x"][0]), (&json!("x2"), &json!(13.5)));
        let whiskers = &rate["error_x"];
        assert_eq!((&whiskers["array"], &whiskers["arrayminus"]), (&json!([2.0]), &json!([1.0])));
        assert_eq!(on_line(&plot, "LN-free")[0]["marker"]["color"], theme::role_color(Role::LnFree, 0));
        assert!(texts(&plot).contains(&"13.50") && texts(&plot).contains(&"4.5000"));
    }

    #[test]
    fn what_was_published_is_hollow_and_beside_its_model() {
        let rate = |value: f64| Number::new("sink rate", value, "%");
        let (ours, theirs, other) = (rate(54.0), rate(55.25), rate(45.5));
        let plot = drawn(
            &[("Medium original", &ours)],
            &[("Medium original", &theirs), ("GPT-2 <medium> LN-free", &other)],
        );
        let both = on_line(&plot, "Medium original");
        let symbols: Vec<&Value> = both.iter().map(|mark| &mark["marker"]["symbol"]).collect();
        assert_eq!(symbols, [&json!("circle"), &json!("diamond-open")]);
        assert_eq!(both[0]["marker"]["color"], both[1]["marker"]["color"]);
        assert_eq!(on_line(&plot, "GPT-2 &lt;medium&gt; LN-free").len(), 1);
        let written = texts(&plot);
        assert!(written.contains(&"54.00") && written.contains(&"45.50"), "{written:?}");
        assert!(!written.contains(&"55.25"), "{written:?}");
    }

    #[test]
    fn small_numbers_keep_their_digits_and_none_is_no_mark() {
        assert_eq!([0.0, 5.2e-4, -0.026, 119.8].map(written), ["0.0000", "5.2e−4", "−0.0260", "119.80"]);
        let none = Number::new("loss", f64::NAN, "nats");
        let plot = drawn(&[("original", &none)], &[]);
        assert_eq!(on_line(&plot, "original")[0]["x"], json!([null]));
        drawn(&[], &[]);
    }
}
