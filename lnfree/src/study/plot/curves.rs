//! Numbers over one axis, one line a model.

use std::collections::HashMap;

use plotly::common::{DashType, Line, Marker, Mode};
use plotly::layout::{Axis, HoverMode};
use plotly::{Plot, Scatter};

use super::data::EvalRow;
use super::figure::Figure;
use super::labels::{self, Ticks};
use super::names::{ModelName, Role, distinct_names};
use super::series::shown;
use super::theme;
use crate::study::found::Curve;
use crate::{Error, Result};

/// How the lines of one family of models are drawn, family after family.
const DASHES: [DashType; 4] = [DashType::Solid, DashType::Dash, DashType::Dot, DashType::DashDot];
/// Pixels of the axis on an ordinary page.
const WIDTH: usize = 740;
/// Pixels left of it: numbers may be small, and the title of two lines.
const LEFT: usize = 96;
/// More points than this have no marks of their own.
const MAX_MARKS: usize = 60;

/// One line a named model, all over one axis.
///
/// Where all labels are numbers they are taken for their places; else places follow each other in the order
/// in which labels first appear. Colours tell the part in the study, dashes the family of models; a first
/// name that tells no part is taken for the original's.
///
/// ```
/// use lnfree::analyses::{Axis, Curve};
///
/// let curve = |scale: f64| Curve {
///     name: "loss by layer".into(),
///     unit: "nats".into(),
///     at: Axis { title: "layer".into(), labels: vec!["0".into(), "1".into()] },
///     values: vec![Some(2.0 * scale), Some(scale)],
/// };
/// let figure = lnfree::plot::curves(&[("original", &curve(1.0)), ("LN-free", &curve(1.1))])?;
/// assert!(figure.to_json().contains("loss by layer, nats"));
/// # Ok::<(), lnfree::Error>(())
/// ```
///
/// # Errors
/// When a curve has not one number for each label.
pub fn curves(models: &[(&str, &Curve)]) -> Result<Figure> {
    for (model, curve) in models {
        if curve.values.len() != curve.at.labels.len() {
            return Err(Error::invalid(format!(
                "{model}: {}: {} numbers do not fit the {} labels of its axis",
                curve.name,
                curve.values.len(),
                curve.at.labels.len()
            )));
        }
    }
    let mut plot = Plot::new();
    let Some((_, first)) = models.first() else {
        plot.set_layout(theme::layout(360));
        return Ok(plot.into());
    };
    let (places, axis, below) = places(models, &labels::text(&first.at.title));
    for (((model, curve), x), (color, dash)) in models.iter().zip(places).zip(styles(models)) {
        let title = labels::text(&curve.at.title);
        let hover = curve.at.labels.iter().map(|label| format!("{title} {}", labels::text(label)));
        let y: Vec<Option<f64>> = curve.values.iter().map(|value| value.and_then(shown)).collect();
        plot.add_trace(
            Scatter::new(x, y)
                .mode(if curve.values.len() > MAX_MARKS { Mode::Lines } else { Mode::LinesMarkers })
                .name(labels::text(model))
                .show_legend(true)
                .line(Line::new().color(color).width(2.0).dash(dash))
                .marker(Marker::new().color(color).size(5))
                .text_array(hover.collect::<Vec<_>>())
                .hover_template(format!("%{{text}}: %{{y:.4g}}{}", labels::behind(&curve.unit))),
        );
    }
    plot.set_layout(
        theme::layout(312 + below)
            .margin(theme::margin(below).left(LEFT))
            .hover_mode(HoverMode::Closest)
            .x_axis(axis)
            .y_axis(theme::axis(&labels::quantity(&first.name, &first.unit))),
    );
    Ok(plot.into())
}

/// The colour and the dash of each line.
fn styles(models: &[(&str, &Curve)]) -> Vec<(&'static str, DashType)> {
    let row = |model: &str| EvalRow { label: Some(model.into()), ..EvalRow::default() };
    let rows: Vec<EvalRow> = models.iter().map(|(model, _)| row(model)).collect();
    let mut names: Vec<ModelName> = distinct_names(&rows);
    if let Some(first) = names.first_mut().filter(|first| first.role == Role::Other) {
        first.role = Role::Original;
    }
    let mut groups: Vec<&str> = Vec::new();
    let mut styles = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if !groups.contains(&name.group.as_str()) {
            groups.push(&name.group);
        }
        let family = groups.iter().position(|group| *group == name.group).unwrap_or_default();
        let nth = names[..i].iter().filter(|n| n.role == name.role && n.group == name.group).count();
        styles.push((theme::role_color(name.role, nth), DASHES[family % DASHES.len()].clone()));
    }
    styles
}

/// Where each curve's points are, their axis, and the pixels that it needs below the figure.
fn places(models: &[(&str, &Curve)], title: &str) -> (Vec<Vec<f64>>, Axis, usize) {
    let number = |label: &String| label.parse::<f64>().ok().filter(|number| number.is_finite());
    let numbers: Option<Vec<Vec<f64>>> =
        models.iter().map(|(_, curve)| curve.at.labels.iter().map(number).collect::<Option<_>>()).collect();
    if let Some(numbers) = numbers {
        let all = || numbers.iter().flatten().copied();
        let span = all().fold(f64::NEG_INFINITY, f64::max) - all().fold(f64::INFINITY, f64::min);
        let few = span < 8.0 && all().all(|number| number.fract() == 0.0);
        // Layers are whole: left alone, plotly would put ticks between them.
        let axis = if few { theme::axis(title).dtick(1.0) } else { theme::axis(title) };
        return (numbers, axis, theme::MARGIN_BOTTOM);
    }
    let mut known: HashMap<(&str, usize), usize> = HashMap::new();
    let mut written: Vec<String> = Vec::new();
    let mut places = Vec::new();
    for (_, curve) in models {
        // A label that comes again is another place.
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut of_curve = Vec::new();
        for label in &curve.at.labels {
            let nth = seen.entry(label.as_str()).or_insert(0);
            let place = *known.entry((label.as_str(), *nth)).or_insert_with(|| {
                written.push(label.clone());
                written.len() - 1
            });
            *nth += 1;
            of_curve.push(place as f64);
        }
        places.push(of_curve);
    }
    let ticks = Ticks::across(&written, WIDTH);
    (places, ticks.on(theme::axis(title)), ticks.below())
}
