//! A value with its interval in every row, rows in panels: what results and differences are drawn with.

use plotly::common::{Anchor, DashType, ErrorData, ErrorType, Font, Line, Marker, MarkerSymbol, Mode};
use plotly::layout::{Annotation, Axis, AxisType, GridDomain, HoverMode, LayoutTemplate, Template};
use plotly::{Layout, Plot, Scatter, Trace};

use super::figure::Figure;
use super::panels;
use super::series::shown;
use super::theme;

/// Pixels from row to row, and between two panels: room for a heading and an axis.
const ROW: usize = 26;
const GAP: usize = 52;
/// The part of the width that is left to the figures on the right.
const WRITTEN: f64 = 0.11;

/// A value with its interval.
pub(super) struct Row {
    /// What stands on the left, escaped.
    pub label: String,
    /// What is marked; NaN marks nothing.
    pub value: f64,
    /// Its 95% interval.
    pub interval: Option<[f64; 2]>,
    pub color: &'static str,
    pub symbol: MarkerSymbol,
    /// What is written on the right.
    pub written: String,
    /// What the hover says, escaped.
    pub hover: String,
}

/// Rows with a heading. Rows of the same label share a line.
pub(super) struct Panel {
    /// Escaped.
    pub heading: String,
    pub rows: Vec<Row>,
}

impl Panel {
    /// Its labels in order, each once.
    fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = Vec::new();
        self.rows.iter().map(|row| row.label.as_str()).for_each(|label| {
            if !labels.contains(&label) {
                labels.push(label)
            }
        });
        labels
    }
}

/// Draws `panels` one above the other; `x_axis` is the style of every panel's axis, `title` stands below the
/// last.
pub(super) fn forest(panels: &[Panel], x_axis: Axis, title: &str, legend: Vec<Box<dyn Trace>>) -> Figure {
    let lines = panels.iter().map(|panel| panel.labels().len()).max().unwrap_or(0).max(1);
    let n = panels.len().max(1);
    let inner = n * (ROW * lines + GAP);
    let mut plot = Plot::new();
    let titled = x_axis.clone().title(theme::axis_title(title));
    let mut layout = layout(inner, n, lines, x_axis).x_axis(titled);
    // From the last to the first: the lowest panel has the axes without a number, which alone can have a
    // title.
    for (at, panel) in panels.iter().rev().enumerate() {
        let number = panels::number(at);
        for row in &panel.rows {
            plot.add_trace(dot(row, &number));
            if !row.written.is_empty() {
                layout.add_annotation(written(row, &number));
            }
        }
        let heading = format!("<b>{}</b>", panel.heading);
        layout.add_annotation(panels::above(&heading, "paper", &format!("y{number} domain")));
    }
    plot.add_traces(legend);
    plot.set_layout(layout);
    plot.into()
}

/// Panels of equal height. Their number is not bounded, but the axes that plotly's types have is: a template
/// styles all.
fn layout(inner: usize, n: usize, lines: usize, mut x_axis: Axis) -> Layout {
    let mut y_axis = theme::axis("")
        .type_(AxisType::Category)
        .range(vec![lines as f64 - 0.5, -0.5])
        .show_grid(false)
        .fixed_range(true);
    let (x, y) = ([0.0, 1.0 - WRITTEN], [0.0, 1.0 - (GAP / 2) as f64 / inner as f64]);
    // plotly passes over a grid of one.
    if n == 1 {
        (x_axis, y_axis) = (x_axis.domain(&x), y_axis.domain(&y));
    }
    let template = Template::new().layout(LayoutTemplate::new().x_axis(x_axis).y_axis(y_axis));
    let domain = GridDomain::new().x(x.to_vec()).y(y.to_vec());
    let grid = panels::stack(n, GAP as f64 / (ROW * lines + GAP) as f64, domain);
    theme::layout(inner + 60).hover_mode(HoverMode::Closest).template(template).grid(grid)
}

fn dot(row: &Row, number: &str) -> Box<dyn Trace> {
    let trace = Scatter::new(vec![shown(row.value)], vec![row.label.clone()])
        .mode(Mode::Markers)
        .show_legend(false)
        .x_axis(format!("x{number}"))
        .y_axis(format!("y{number}"))
        .marker(marker(row.symbol.clone(), row.color))
        .hover_template(format!("{}<extra></extra>", row.hover));
    let Some([low, high]) = row.interval.filter(|ends| ends.iter().all(|v| v.is_finite())) else {
        return trace;
    };
    let length = |v: f64| shown(v.max(0.0)).unwrap_or_default();
    trace.error_x(
        ErrorData::new(ErrorType::Data)
            .symmetric(false)
            .array(vec![length(high - row.value)])
            .array_minus(vec![length(row.value - low)])
            .color(row.color)
            .thickness(2.0)
            .width(5),
    )
}

/// A diamond is drawn around the dot that it may stand on.
fn marker(symbol: MarkerSymbol, color: &'static str) -> Marker {
    let size = if matches!(symbol, MarkerSymbol::DiamondOpen) { 14 } else { 8 };
    Marker::new().symbol(symbol).size(size).color(color).line(Line::new().color(color).width(1.6))
}

/// What a symbol means, for the legend.
fn key(name: &str, symbol: MarkerSymbol) -> Box<dyn Trace> {
    Scatter::new(vec![None::<f64>], vec![None::<f64>])
        .mode(Mode::Markers)
        .name(name)
        .marker(marker(symbol, theme::TEXT))
}

/// The legend of what is `measured` beside what is `published`; none where nothing is.
pub(super) fn keys(measured: &str, published: &str, any_published: bool) -> Vec<Box<dyn Trace>> {
    match any_published {
        true => vec![key(measured, MarkerSymbol::Circle), key(published, MarkerSymbol::DiamondOpen)],
        false => Vec::new(),
    }
}

/// An axis for the panels of a forest.
pub(super) fn value_axis() -> Axis {
    theme::axis("").n_ticks(8).spike_color(theme::TEXT).spike_thickness(1).spike_dash(DashType::Dot)
}

fn written(row: &Row, number: &str) -> Annotation {
    Annotation::new()
        .text(&row.written)
        .font(Font::new().size(12))
        .show_arrow(false)
        .x_ref("paper")
        .x(1.0)
        .x_anchor(Anchor::Right)
        .y_ref(format!("y{number}"))
        .y(row.label.clone())
}
