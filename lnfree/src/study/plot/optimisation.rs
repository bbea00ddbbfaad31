//! What the optimizer did: gradient norm, learning rate, auxiliary loss, distance to a teacher.

use plotly::common::{ExponentFormat, Line, Marker, Mode};
use plotly::layout::Axis;
use plotly::{Plot, Trace};

use super::data::{RunMetrics, Step};
use super::figure::Figure;
use super::loss::line;
use super::theme;

/// A larger ratio between the largest and the median value is shown on a logarithmic axis.
const LOG_ABOVE: f64 = 8.0;

struct Panel {
    title: &'static str,
    value: fn(&Step) -> f64,
}

const PANELS: [Panel; 4] = [
    Panel { title: "gradient norm", value: |s| s.grad_norm },
    Panel { title: "learning rate", value: |s| s.lr },
    Panel { title: "auxiliary loss", value: |s| s.aux_loss },
    Panel { title: "KL, nats", value: |s| s.kl_loss },
];

/// Gradient norm before clipping, learning rate, and where a run has them the auxiliary loss and the KL to
/// its teacher, against step, one panel each for all runs.
pub fn optimisation(runs: &[RunMetrics]) -> Figure {
    let has_values = |panel: &&Panel| {
        let mut values = runs.iter().flat_map(|run| &run.steps).map(panel.value);
        values.any(|v| v.is_finite() && v != 0.0)
    };
    let panels: Vec<&Panel> = PANELS.iter().filter(has_values).collect();
    let colors = theme::run_colors(runs);
    let mut plot = Plot::new();
    let mut layout = theme::layout(80 + 170 * panels.len().max(1));
    let bottom = if panels.len() > 1 { format!("y{}", panels.len()) } else { "y".into() };
    layout = layout.x_axis(theme::step_axis(runs).anchor(&bottom));
    for (at, panel) in panels.iter().enumerate() {
        for (run, color) in runs.iter().zip(&colors) {
            plot.add_trace(panel_line(run, panel, color, at));
        }
        let axis = panel_axis(runs, panel, at, panels.len());
        layout = match at {
            0 => layout.y_axis(axis),
            1 => layout.y_axis2(axis),
            2 => layout.y_axis3(axis),
            _ => layout.y_axis4(axis),
        };
    }
    plot.set_layout(layout);
    plot.into()
}

fn panel_line(run: &RunMetrics, panel: &Panel, color: &'static str, at: usize) -> Box<dyn Trace> {
    let points: Vec<_> = run.steps.iter().map(|s| (s.step, (panel.value)(s))).collect();
    let name = theme::escape(&run.name);
    let axis = if at == 0 { "y".to_string() } else { format!("y{}", at + 1) };
    line(&points)
        .mode(if points.len() == 1 { Mode::Markers } else { Mode::Lines })
        .name(&name)
        .legend_group(&name)
        .show_legend(at == 0)
        .y_axis(axis)
        .line(Line::new().color(color).width(1.4))
        .marker(Marker::new().color(color))
        .hover_template(format!("{} %{{y:.4g}}", panel.title))
}

fn panel_axis(runs: &[RunMetrics], panel: &Panel, at: usize, n: usize) -> Axis {
    let height = 1.0 / n as f64;
    let top = 1.0 - at as f64 * height;
    let mut values: Vec<f64> = runs.iter().flat_map(|run| &run.steps).map(panel.value).collect();
    values.retain(|v| v.is_finite());
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
    let median = values.get(values.len() / 2).copied().unwrap_or(0.0);
    // The learning rate begins at or near zero and its shape is known from a linear axis.
    let log = panel.title != "learning rate" && low > 0.0 && high > LOG_ABOVE * median;
    let axis = if log { theme::log_axis(panel.title, low, high) } else { theme::axis(panel.title) };
    axis.exponent_format(ExponentFormat::SmallE).domain(&[(top - height * 0.86).max(0.0), top]).anchor("x")
}
