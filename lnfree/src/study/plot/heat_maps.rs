//! Numbers over two axes as colours, one panel a model.

use std::collections::HashSet;

use plotly::common::{Anchor, ColorScale, Font};
use plotly::layout::{Annotation, Axis, AxisType, HoverMode, LayoutTemplate, Template};
use plotly::{HeatMap, Layout, Plot, Trace};

use super::figure::Figure;
use super::labels::{self, Ticks};
use super::panels;
use super::series::shown;
use super::theme;
use crate::study::found::{Axis as Places, Map};
use crate::{Error, Result};

/// More models than this go on in another row.
const MAX_COLUMNS: usize = 3;
/// Pixels of all panels of a row together, on an ordinary page, and from row to row.
const WIDTH: usize = 660;
const GAP: usize = 34;
/// Pixels of the line that says what is drawn.
const HEADING: usize = 26;
/// Pixels of a row of numbers, and of a panel at least and at most.
const ROW: usize = 18;
const HEIGHT: [usize; 2] = [60, 380];

/// One map of each named model side by side, three in a row, all on one colour scale, with equal axes.
///
/// Rows run downwards. Where a map is signed, 0 is the middle of the colours: orange is below, blue above.
/// Where there is no number, there is no colour. Labels of axes are left out where there are too many.
///
/// ```
/// use lnfree::analyses::{Axis, Map};
///
/// let labels = vec!["0".to_string(), "1".into()];
/// let axis = |title: &str| Axis { title: title.into(), labels: labels.clone() };
/// let map = Map {
///     name: "effect of a patch".into(),
///     unit: "nats".into(),
///     rows: axis("layer"),
///     columns: axis("head"),
///     values: vec![vec![Some(0.1), None], vec![Some(-0.2), Some(0.3)]],
///     signed: true,
/// };
/// let figure = lnfree::plot::heat_maps(&[("original", &map), ("LN-free", &map)])?;
/// assert!(figure.to_json().contains("effect of a patch, nats"));
/// # Ok::<(), lnfree::Error>(())
/// ```
///
/// # Errors
/// When a map's numbers do not fit its axes, or these are not the first map's.
pub fn heat_maps(models: &[(&str, &Map)]) -> Result<Figure> {
    check(models)?;
    let mut plot = Plot::new();
    let Some((_, first)) = models.first() else {
        plot.set_layout(theme::layout(HEIGHT[0]));
        return Ok(plot.into());
    };
    let rows = models.len().div_ceil(MAX_COLUMNS);
    let columns = models.len().div_ceil(rows);
    let mut layout = layout(first, rows, columns);
    let scale = Scale::of(models);
    let names = [names(&first.columns), names(&first.rows)];
    for (m, (model, map)) in models.iter().enumerate() {
        let axes = [("x", m % columns), ("y", m / columns)];
        let axes = axes.map(|(letter, i)| format!("{letter}{}", panels::number(i)));
        let model = labels::text(model);
        plot.add_trace(panel(&model, map, &names, &axes, &scale, m == 0));
        let [x, y] = axes.each_ref().map(|axis| format!("{axis} domain"));
        layout.add_annotation(panels::above(&format!("<b>{model}</b>"), &x, &y));
    }
    layout.add_annotation(
        Annotation::new()
            .text(labels::quantity(&first.name, &first.unit).replace("<br>", " "))
            .font(Font::new().size(12))
            .show_arrow(false)
            .x_ref("paper")
            .x(0.0)
            .x_anchor(Anchor::Left)
            .y_ref("paper")
            .y(1.0)
            .y_anchor(Anchor::Top),
    );
    plot.set_layout(layout);
    Ok(plot.into())
}

fn check(models: &[(&str, &Map)]) -> Result<()> {
    let Some((_, first)) = models.first() else { return Ok(()) };
    for (model, map) in models {
        let (rows, columns) = (map.rows.labels.len(), map.columns.labels.len());
        if map.values.len() != rows || map.values.iter().any(|row| row.len() != columns) {
            return Err(Error::invalid(format!(
                "{model}: {}: its axes have {rows} and {columns} labels, which its numbers do not fit",
                map.name
            )));
        }
        if (&map.rows, &map.columns) != (&first.rows, &first.columns) {
            return Err(Error::invalid(format!(
                "{model}: {}: its axes are not those of the first map: draw it in a figure of its own",
                map.name
            )));
        }
    }
    Ok(())
}

/// The colours of all panels.
struct Scale {
    low: f64,
    high: f64,
    colors: ColorScale,
}

impl Scale {
    fn of(models: &[(&str, &Map)]) -> Scale {
        let all = models.iter().flat_map(|(_, map)| map.values.iter().flatten().flatten().copied());
        let (low, high) = all
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if models.iter().any(|(_, map)| map.signed) {
            let most = if low <= high { low.abs().max(high.abs()) } else { 0.0 };
            let most = if most > 0.0 { most } else { 1.0 };
            return Scale { low: -most, high: most, colors: theme::signed_scale() };
        }
        let (low, high) = match (low, high) {
            (low, high) if low < high => (low, high),
            (low, high) if low == high => (low, low + 1.0),
            _ => (0.0, 1.0),
        };
        Scale { low, high, colors: theme::depth_scale() }
    }
}

/// What the hover calls the places of an axis: no two the same, and none a number, which plotly would take
/// for a place.
fn names(axis: &Places) -> Vec<String> {
    let mut seen = HashSet::new();
    let repeated = axis.labels.iter().any(|label| !seen.insert(label));
    let title = labels::text(&axis.title);
    let name = |(at, label): (usize, &String)| {
        let label = labels::text(label);
        if repeated { format!("{title} ‘{label}’ ({at})") } else { format!("{title} {label}") }
    };
    axis.labels.iter().enumerate().map(name).collect()
}

fn panel(
    model: &str,
    map: &Map,
    [columns, rows]: &[Vec<String>; 2],
    [x, y]: &[String; 2],
    scale: &Scale,
    bar: bool,
) -> Box<dyn Trace> {
    let numbers = |row: &Vec<Option<f64>>| row.iter().map(|value| value.and_then(shown)).collect();
    let z: Vec<Vec<Option<f64>>> = map.values.iter().map(numbers).collect();
    let unit = labels::behind(&map.unit);
    HeatMap::new(columns.clone(), rows.clone(), z)
        .x_axis(x)
        .y_axis(y)
        .zmin(scale.low)
        .zmax(scale.high)
        .color_scale(scale.colors.clone())
        .show_scale(bar)
        .color_bar(theme::color_bar(""))
        .hover_on_gaps(false)
        .hover_template(format!("%{{y}}, %{{x}}: %{{z:.4g}}{unit}<extra>{model}</extra>"))
}

/// Panels below each other share their columns, those beside each other their rows. There may be more than
/// plotly's types have: a template styles all.
fn layout(map: &Map, rows: usize, columns: usize) -> Layout {
    let size = (map.rows.labels.len() * ROW).clamp(HEIGHT[0], HEIGHT[1]);
    let ticks = Ticks::across(&map.columns.labels, WIDTH / columns);
    let ends = |places: &Places| [-0.5, places.labels.len() as f64 - 0.5];
    let [left, right] = ends(&map.columns);
    let x_axis = ticks.on(places_axis(&map.columns)).range(vec![left, right]);
    let [top, bottom] = ends(&map.rows);
    let down = Ticks::down(&map.rows.labels, size);
    let mut y_axis = down.on(places_axis(&map.rows)).range(vec![bottom, top]);
    let inner = rows * (size + GAP) + HEADING;
    // The first row's headings stand above it.
    let height = [0.0, 1.0 - (GAP + HEADING - 8) as f64 / inner as f64];
    // plotly passes over a grid of one.
    if rows * columns == 1 {
        y_axis = y_axis.domain(&height);
    }
    let grid = panels::table([rows, columns], [0.08, GAP as f64 / (size + GAP) as f64], height);
    theme::layout(inner + 16 + ticks.below())
        .margin(theme::margin(ticks.below()).left(down.beside()))
        .hover_mode(HoverMode::Closest)
        .template(Template::new().layout(LayoutTemplate::new().x_axis(x_axis).y_axis(y_axis)))
        .grid(grid)
}

fn places_axis(places: &Places) -> Axis {
    theme::axis(&labels::text(&places.title))
        .type_(AxisType::Category)
        .tick_color(theme::GRID)
        .show_grid(false)
}
