//! The paper's figure 1: loss against step with the removal events marked.

use std::collections::BTreeMap;

use plotly::common::{Anchor, Fill, Font, HoverInfo, Line, Marker, MarkerSymbol, Mode};
use plotly::layout::{Annotation, Axis};
use plotly::{Plot, Scatter, Trace};

use super::data::RunMetrics;
use super::figure::Figure;
use super::series::{focus_range, shown, thin, trailing_mean};
use super::theme;
use crate::config::norm::RemovalKind;

/// More points than this would slow the page down and show nothing more.
pub(super) const MAX_POINTS: usize = 3000;
/// Runs of fewer steps are drawn as they are, without a mean.
const MIN_STEPS_FOR_MEAN: usize = 60;
/// The loss axis lies over a hidden axis from 0 to 1 on which the removal marks span the height.
const LOSS_AXIS: &str = "y2";

/// Cross-entropy against step for several runs, removal events marked by kind, evaluations as diamonds.
///
/// Long runs are drawn twice: faintly as logged, strongly as a trailing mean. A few very high values, as at
/// the start of a pretraining, do not set the vertical range; a note says how many lie above it.
pub fn loss_curve(runs: &[RunMetrics]) -> Figure {
    let mut plot = Plot::new();
    let mut values = Vec::new();
    let colors = theme::run_colors(runs);
    for (run, color) in runs.iter().zip(&colors) {
        let points: Vec<_> = run.steps.iter().map(|s| (s.step, s.cross_entropy())).collect();
        values.extend(points.iter().chain(&run.evals).map(|p| p.1));
        plot.add_traces(run_lines(run, color, &points));
    }
    let mut in_legend = true;
    for (run, color) in runs.iter().zip(&colors).filter(|(run, _)| !run.evals.is_empty()) {
        plot.add_trace(evaluations(run, color, in_legend));
        in_legend = false;
    }
    // Behind the lines although added last: the marks' axis lies below the loss axis.
    plot.add_traces(removal_marks(runs));
    let mut layout = theme::layout(480).x_axis(theme::step_axis(runs)).y_axis(marks_axis());
    let mut loss_axis = theme::axis("cross-entropy, nats per token").overlaying("y").anchor("x");
    if let Some((range, above)) = focus_range(values.into_iter()) {
        loss_axis = loss_axis.range(range.to_vec());
        if above > 0 {
            layout = layout.annotations(vec![above_note(above)]);
        }
    }
    plot.set_layout(layout.y_axis2(loss_axis));
    plot.into()
}

fn run_lines(run: &RunMetrics, color: &'static str, points: &[(usize, f64)]) -> Vec<Box<dyn Trace>> {
    let smooth = points.len() >= MIN_STEPS_FOR_MEAN;
    let name = theme::escape(&run.name);
    let raw = line(points).name(&name).legend_group(&name).y_axis(LOSS_AXIS).hover_template("%{y:.4f}");
    if !smooth {
        let mode = if points.len() == 1 { Mode::Markers } else { Mode::Lines };
        return vec![
            raw.mode(mode).line(Line::new().color(color).width(2.0)).marker(Marker::new().color(color)),
        ];
    }
    let window = (points.len() / 40).clamp(5, 20);
    let mean = line(&trailing_mean(points, window))
        .name(&name)
        .legend_group(&name)
        .y_axis(LOSS_AXIS)
        .line(Line::new().color(color).width(2.2))
        .hover_template(format!("%{{y:.4f}} (mean of {window} steps)"));
    let raw = raw.line(Line::new().color(color).width(1.0)).opacity(0.38).show_legend(false);
    vec![raw, mean]
}

/// A line through `points`, thinned, with gaps where values are not finite.
pub(super) fn line(points: &[(usize, f64)]) -> Box<Scatter<usize, Option<f64>>> {
    let points = thin(points, MAX_POINTS);
    let (x, y) = points.into_iter().map(|(step, value)| (step, shown(value))).unzip();
    Scatter::new(x, y).mode(Mode::Lines)
}

fn evaluations(run: &RunMetrics, color: &'static str, in_legend: bool) -> Box<dyn Trace> {
    line(&run.evals)
        .mode(Mode::Markers)
        .name("evaluation")
        .legend_group("evaluation")
        .show_legend(in_legend)
        .y_axis(LOSS_AXIS)
        .marker(Marker::new().symbol(MarkerSymbol::Diamond).size(9).color(color))
        .hover_template(format!(
            "%{{y:.4f}} at step %{{x}} ({})<extra>evaluation</extra>",
            theme::escape(&run.name)
        ))
}

/// A band from the first to the last removal of each kind and a fine line at each removal, one legend entry a
/// kind.
fn removal_marks(runs: &[RunMetrics]) -> Vec<Box<dyn Trace>> {
    let mut traces: Vec<Box<dyn Trace>> = Vec::new();
    for kind in RemovalKind::ALL {
        let at = removals_of(runs, kind);
        let (Some(first), Some(last)) = (at.keys().next(), at.keys().next_back()) else { continue };
        if first < last {
            traces.push(band(kind, *first, *last));
        }
        traces.push(marks(kind, &at));
        traces.push(legend_entry(kind));
    }
    traces
}

/// Steps at which some run removed something of `kind`, with what was removed there.
fn removals_of(runs: &[RunMetrics], kind: RemovalKind) -> BTreeMap<usize, String> {
    let same = runs
        .iter()
        .filter(|r| !r.removals.is_empty())
        .all(|r| runs.iter().filter(|o| !o.removals.is_empty()).all(|o| o.removals == r.removals));
    let mut at: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for run in runs {
        for removal in run.removals.iter().filter(|r| r.kind == kind) {
            let text = match same {
                true => removal.to_string(),
                false => format!("{removal} ({})", theme::escape(&run.name)),
            };
            let here = at.entry(removal.step).or_default();
            if !here.contains(&text) {
                here.push(text);
            }
        }
    }
    at.into_iter().map(|(step, texts)| (step, shorten(&texts))).collect()
}

/// Many removals at one step are told by their number.
fn shorten(texts: &[String]) -> String {
    match texts {
        [first, .., last] if texts.len() > 4 => format!("{first} to {last} ({})", texts.len()),
        _ => texts.join(", "),
    }
}

fn band(kind: RemovalKind, first: usize, last: usize) -> Box<dyn Trace> {
    Scatter::new(vec![first, first, last, last], vec![0.0, 1.0, 1.0, 0.0])
        .mode(Mode::Lines)
        .fill(Fill::ToSelf)
        .fill_color(theme::rgba(theme::kind_rgb(kind), 0.13))
        .line(Line::new().width(0.0))
        .legend_group(kind.name())
        .show_legend(false)
        .hover_info(HoverInfo::Skip)
}

fn marks(kind: RemovalKind, at: &BTreeMap<usize, String>) -> Box<dyn Trace> {
    let (mut x, mut y, mut text) = (Vec::new(), Vec::new(), Vec::new());
    for (step, what) in at {
        x.extend([Some(*step), Some(*step), None]);
        y.extend([Some(0.0), Some(1.0), None]);
        text.extend([what.as_str(), what.as_str(), ""]);
    }
    // Dozens of layers stand close together: fainter, they stay apart from the band's edge.
    let (opacity, width) = if at.len() > 16 { (0.4, 1.0) } else { (0.75, 1.4) };
    Scatter::new(x, y)
        .mode(Mode::Lines)
        .legend_group(kind.name())
        .show_legend(false)
        .line(Line::new().color(theme::rgba(theme::kind_rgb(kind), opacity)).width(width))
        .hover_text_array(text)
        .hover_template("%{hovertext} at step %{x}<extra>removed</extra>")
}

/// A line without points: the legend shows the kind's full colour however faint the marks are.
fn legend_entry(kind: RemovalKind) -> Box<dyn Trace> {
    Scatter::new(vec![None::<f64>], vec![None::<f64>])
        .mode(Mode::Lines)
        .name(format!("{} removed", kind.label()))
        .legend_group(kind.name())
        .line(Line::new().color(theme::rgba(theme::kind_rgb(kind), 1.0)).width(2.0))
}

fn marks_axis() -> Axis {
    Axis::new().range(vec![0.0, 1.0]).fixed_range(true).visible(false)
}

fn above_note(above: usize) -> Annotation {
    let steps = if above == 1 { "value lies" } else { "values lie" };
    Annotation::new()
        .text(format!("▲ {above} {steps} above; double-click shows all"))
        .font(Font::new().size(11))
        .show_arrow(false)
        .x_ref("paper")
        .y_ref("paper")
        .x(1.0)
        .y(1.0)
        .x_anchor(Anchor::Right)
        .y_anchor(Anchor::Top)
}
