//! How many tokens the removal of LN took, against the size of the model.

use plotly::common::{Font, Line, Marker, MarkerSymbol, Mode, Position};
use plotly::layout::{Axis, HoverMode};
use plotly::{Plot, Scatter, Trace};

use super::figure::Figure;
use super::names::Role;
use super::series::shown;
use super::theme;

/// One model from which LN was removed.
#[derive(Debug, Clone, PartialEq)]
pub struct SizePoint {
    /// What to call it.
    pub name: String,
    /// The model's parameters.
    pub parameters: f64,
    /// Optimizer steps of the fine-tuning.
    pub steps: usize,
    /// Tokens seen in them.
    pub tokens: f64,
    /// Whether others published it; else it is a run of one's own.
    pub published: bool,
}

/// Tokens of fine-tuning against parameters, both logarithmic: published models filled and joined, own runs
/// hollow.
///
/// What is not a positive number has no place on these axes and is left out.
///
/// ```
/// use lnfree::plot::{self, SizePoint};
///
/// let small = SizePoint { name: "small".into(), parameters: 124e6, steps: 300, tokens: 157e6, published: true };
/// assert!(plot::data_needed(&[small]).to_json().contains("small<br>300 steps"));
/// ```
pub fn data_needed(points: &[SizePoint]) -> Figure {
    let positive = |v: f64| v.is_finite() && v > 0.0;
    let mut points: Vec<&SizePoint> =
        points.iter().filter(|p| positive(p.parameters) && positive(p.tokens)).collect();
    points.sort_by(|a, b| a.parameters.total_cmp(&b.parameters));
    let (published, own): (Vec<_>, Vec<_>) = points.iter().partition(|p| p.published);
    let mut plot = Plot::new();
    if !published.is_empty() {
        plot.add_trace(series("published", &published));
    }
    if !own.is_empty() {
        plot.add_trace(series("own runs", &own));
    }
    plot.set_layout(
        theme::layout(420)
            .hover_mode(HoverMode::Closest)
            .x_axis(axis("parameters", points.iter().map(|p| p.parameters)))
            .y_axis(axis("tokens of fine-tuning", points.iter().map(|p| p.tokens))),
    );
    plot.into()
}

fn series(name: &str, points: &[&SizePoint]) -> Box<dyn Trace> {
    let published = name == "published";
    let (color, mode, symbol) = match published {
        true => (theme::role_color(Role::Original, 0), Mode::LinesMarkersText, MarkerSymbol::Circle),
        false => (theme::role_color(Role::LnFree, 0), Mode::MarkersText, MarkerSymbol::CircleOpen),
    };
    // The published line rises: above on the left and below on the right its neighbours' labels do not meet
    // it, nor those of own runs beside it.
    let position = |i: usize| match (published, i % 2) {
        (true, 0) => Position::BottomRight,
        (true, _) => Position::TopLeft,
        (false, _) => Position::BottomLeft,
    };
    let label = |p: &&SizePoint| format!("{}<br>{} steps", theme::escape(&p.name), p.steps);
    let hover = |p: &&SizePoint| {
        let (parameters, tokens) = (theme::count(p.parameters), theme::count(p.tokens));
        format!("{}: {parameters} parameters, {} steps, {tokens} tokens", theme::escape(&p.name), p.steps)
    };
    Scatter::new(
        points.iter().map(|p| shown(p.parameters)).collect(),
        points.iter().map(|p| shown(p.tokens)).collect(),
    )
    .mode(mode)
    .name(name)
    .line(Line::new().color(color).width(1.5))
    .marker(Marker::new().symbol(symbol).size(11).color(color).line(Line::new().color(color).width(2.2)))
    .text_array(points.iter().map(label).collect::<Vec<_>>())
    .text_position_array((0..points.len()).map(position).collect())
    .text_font(Font::new().size(11).color(theme::TEXT))
    .hover_text_array(points.iter().map(hover).collect::<Vec<_>>())
    .hover_template("%{hovertext}<extra></extra>")
}

/// From the smallest to the largest with room for the labels.
fn axis(title: &str, values: impl Iterator<Item = f64>) -> Axis {
    let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return theme::axis(title);
    }
    let (low_log, high_log) = (low.log10(), high.log10());
    let air = 0.13 * (high_log - low_log) + 0.3;
    theme::log_count_axis(title, low, high).range(vec![low_log - air, high_log + air])
}
