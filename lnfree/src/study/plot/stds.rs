//! The running average σ of every LN over time.

use plotly::common::{DashType, HoverInfo, Line, Marker, Mode};
use plotly::layout::{Axis, HoverMode};
use plotly::{Plot, Scatter, Trace};

use super::data::{LnName, RunMetrics};
use super::figure::Figure;
use super::loss::line;
use super::series::thin;
use super::theme;
use crate::config::norm::RemovalKind;

/// A hundred lines of this many points each still draw quickly.
const MAX_POINTS: usize = 600;

/// Running average σ of each LN against step, one line per LN, coloured by depth: above ln_1, below ln_2 and
/// ln_f.
///
/// A mark shows where an LN was removed: from there on its σ is the constant that replaces it. For ln_1 an
/// open circle is the removal for queries and keys, a full one that for values.
pub fn std_over_time(run: &RunMetrics) -> Figure {
    let mut plot = Plot::new();
    let n_layer = run.stds.keys().filter_map(LnName::layer).max().map_or(1, |last| last + 1);
    for (ln, points) in &run.stds {
        plot.add_trace(ln_line(ln, points, n_layer));
    }
    for kind in RemovalKind::ALL {
        plot.add_traces(removal_marks(run, kind, n_layer).into_iter().collect());
    }
    if n_layer > 1 {
        plot.add_trace(depth_bar(n_layer));
    }
    let upper = sigma_axis("σ at ln_1", run).domain(&[0.53, 1.0]);
    let lower = sigma_axis("σ at ln_2, ln_f", run).domain(&[0.0, 0.47]).anchor("x");
    let layout = theme::layout(620)
        .hover_mode(HoverMode::Closest)
        .x_axis(theme::step_axis(std::slice::from_ref(run)).anchor("y2"))
        .y_axis(upper)
        .y_axis2(lower);
    plot.set_layout(layout);
    plot.into()
}

fn ln_line(ln: &LnName, points: &[(usize, f64)], n_layer: usize) -> Box<dyn Trace> {
    let style = match ln.layer() {
        Some(layer) => Line::new().color(theme::depth_color(layer, n_layer)).width(1.5),
        None => Line::new()
            .color(theme::rgba(theme::kind_rgb(RemovalKind::LnF), 1.0))
            .width(2.2)
            .dash(DashType::Dash),
    };
    let mode = if points.len() == 1 { Mode::Markers } else { Mode::Lines };
    let name = theme::escape(&ln.0);
    line(&thin(points, MAX_POINTS))
        .mode(mode)
        .name(&name)
        .legend_group(&name)
        .show_legend(ln.layer().is_none())
        .y_axis(panel(ln))
        .line(style)
        .hover_template("step %{x}: σ = %{y:.4g}")
}

/// The upper panel is ln_1's, the lower one everything else's.
fn panel(ln: &LnName) -> &'static str {
    if ln.is_ln_1() { "y" } else { "y2" }
}

/// Marks of one kind, one trace a panel, each on the line of the LN that it is about.
fn removal_marks(run: &RunMetrics, kind: RemovalKind, n_layer: usize) -> Option<Box<dyn Trace>> {
    let (mut x, mut y, mut colors, mut text, mut on) = (vec![], vec![], vec![], vec![], "y");
    for removal in run.removals.iter().filter(|r| r.kind == kind) {
        let Some((ln, points)) = run.stds.iter().find(|(ln, _)| is_about(kind, removal.layer, ln)) else {
            continue;
        };
        let Some(value) = value_at(points, removal.step) else { continue };
        x.push(removal.step);
        y.push(value);
        colors.push(match removal.layer {
            Some(layer) => theme::depth_color(layer, n_layer),
            None => theme::rgba(theme::kind_rgb(RemovalKind::LnF), 1.0),
        });
        text.push(format!("{removal} removed at step {}", removal.step));
        on = panel(ln);
    }
    if x.is_empty() {
        return None;
    }
    let line = Line::new().width(1.3).color("rgba(128,128,128,0.7)");
    Some(
        Scatter::new(x, y)
            .mode(Mode::Markers)
            .name(format!("{} removed", kind.label()))
            .y_axis(on)
            .marker(
                Marker::new()
                    .symbol(theme::kind_symbol(kind))
                    .size(if n_layer > 16 { 6 } else { 8 })
                    .color_array(colors)
                    .line(line),
            )
            .hover_text_array(text)
            .hover_template("%{hovertext}: σ = %{y:.4g}<extra></extra>"),
    )
}

/// Whether a removal of `kind` in `layer` removes `ln`, or the face of it that carries the name.
fn is_about(kind: RemovalKind, layer: Option<usize>, ln: &LnName) -> bool {
    ln.layer() == layer
        && match kind {
            RemovalKind::Ln1Qk | RemovalKind::Ln1V => ln.is_ln_1(),
            RemovalKind::Ln2 => ln.0.contains(".ln_2"),
            RemovalKind::LnF => ln.0 == "ln_f",
            RemovalKind::Eot | RemovalKind::Bos => false,
        }
}

/// The value at `step`, or the last one before it, or else the first after it.
fn value_at(points: &[(usize, f64)], step: usize) -> Option<f64> {
    let after = points.partition_point(|p| p.0 <= step);
    points.get(after.saturating_sub(1)).map(|p| p.1).filter(|v| v.is_finite())
}

/// A trace without a point that carries the colour bar.
fn depth_bar(n_layer: usize) -> Box<dyn Trace> {
    let bar = theme::color_bar("layer").n_ticks(n_layer.min(13)).tick_format("d");
    let marker = Marker::new()
        .color_array(vec![0.0])
        .color_scale(theme::depth_scale())
        .cmin(0.0)
        .cmax((n_layer - 1) as f64)
        .show_scale(true)
        .color_bar(bar);
    Scatter::new(vec![None::<f64>], vec![None::<f64>])
        .mode(Mode::Markers)
        .marker(marker)
        .show_legend(false)
        .hover_info(HoverInfo::Skip)
}

/// The same scale for both panels.
fn sigma_axis(title: &str, run: &RunMetrics) -> Axis {
    theme::sigma_axis(title, run.stds.values().flatten().map(|p| p.1))
}
