//! The loss by position in the sequence: what context is worth to each model.

use plotly::common::{DashType, Line, Marker, Mode};
use plotly::layout::HoverMode;
use plotly::{Plot, Scatter};

use super::data::{EvalRow, PositionLoss};
use super::figure::Figure;
use super::names::distinct_names;
use super::series::shown;
use super::theme;

/// How the lines of one family of models are drawn, family after family.
const DASHES: [DashType; 4] = [DashType::Solid, DashType::Dash, DashType::Dot, DashType::DashDot];

/// A mean this many times the median of all does not set the vertical range; the first position's is about
/// three times it.
const EXPLOSION_ABOVE: f64 = 5.0;

/// Mean loss against position, one line a model; `rows` are evaluations on one data set.
///
/// Positions are on a logarithmic axis, for most of what context is worth comes from its first few tokens.
/// Colours tell the part in the study, dashes the family of models. Means that have exploded do not set the
/// vertical range.
pub fn loss_by_position(rows: &[EvalRow]) -> Figure {
    let names = distinct_names(rows);
    let mut groups: Vec<&str> = Vec::new();
    let mut plot = Plot::new();
    for (i, (row, name)) in rows.iter().zip(&names).enumerate() {
        let points = &row.details.by_position;
        if points.is_empty() {
            continue;
        }
        if !groups.contains(&name.group.as_str()) {
            groups.push(&name.group);
        }
        let family = groups.iter().position(|group| *group == name.group).unwrap_or_default();
        let nth = names[..i].iter().filter(|n| n.role == name.role && n.group == name.group).count();
        let color = theme::role_color(name.role, nth);
        let line = Line::new().color(color).width(2.0).dash(DASHES[family % DASHES.len()].clone());
        let trace = Scatter::new(
            points.iter().map(middle).collect(),
            points.iter().map(|point| shown(point.mean)).collect(),
        );
        let hover: Vec<String> = points.iter().map(positions).collect();
        plot.add_trace(
            trace
                .mode(Mode::LinesMarkers)
                .name(theme::escape(&name.to_string()))
                .line(line)
                .marker(Marker::new().color(color).size(5))
                .text_array(hover)
                .hover_template("%{y:.4f} at %{text}"),
        );
    }
    let all = || rows.iter().flat_map(|row| &row.details.by_position);
    let last = all().map(middle).fold(1.0, f64::max);
    let mut loss_axis = theme::axis("mean loss, nats per token");
    if let Some(range) = range(all().map(|point| point.mean).collect()) {
        loss_axis = loss_axis.range(range);
    }
    plot.set_layout(
        theme::layout(360)
            .hover_mode(HoverMode::Closest)
            .x_axis(theme::log_axis("position in the sequence, from 1", 1.0, last))
            .y_axis(loss_axis),
    );
    plot.into()
}

/// From the lowest mean to the highest that is no explosion, with a little air; `None` if none is finite.
fn range(mut means: Vec<f64>) -> Option<Vec<f64>> {
    means.retain(|mean| mean.is_finite());
    means.sort_by(f64::total_cmp);
    let limit = EXPLOSION_ABOVE * means.get(means.len() / 2)?;
    let (low, high) = (*means.first()?, *means.iter().rfind(|mean| **mean <= limit)?);
    let air = (0.06 * (high - low)).max(1e-3);
    Some(vec![low - air, high + air])
}

/// The middle of a range of positions, counted from 1.
fn middle(point: &PositionLoss) -> f64 {
    (point.from + point.to.max(point.from + 1) + 1) as f64 / 2.0
}

fn positions(point: &PositionLoss) -> String {
    match (point.from + 1, point.to) {
        (first, last) if last <= first => format!("position {first}"),
        (first, last) => format!("positions {first} to {last}"),
    }
}
