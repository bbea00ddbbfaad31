//! The results as bars: losses, and what was lost against the original.

use plotly::common::{ConstrainText, Font, Marker, TextPosition};
use plotly::layout::{Axis, BarMode, HoverMode};
use plotly::{Bar, Plot, Trace};

use super::data::EvalRow;
use super::figure::Figure;
use super::names::{ModelName, Role, distinct_names};
use super::series::shown;
use super::theme;

/// A mean this many times the median of all is an explosion: its bar is cut and its figure written on top.
pub(super) const CUT_LOSS_ABOVE: f64 = 3.0;
/// The same for gaps, which differ much more among healthy models.
const CUT_GAP_ABOVE: f64 = 50.0;

/// More bars than this have their figures upright, or they would run into each other.
const UPRIGHT_ABOVE: usize = 14;

/// One bar: where it stands, whose it is, and its value.
struct Entry {
    place: String,
    name: ModelName,
    value: f64,
}

/// Mean loss of every model on every data set, and below it the gap to the original where there is one.
///
/// Bars start at zero, so that lengths can be compared; each carries its figure. A data set is a place on the
/// horizontal axis; where several families of models are compared, each family has places of its own.
pub fn results_bars(rows: &[EvalRow]) -> Figure {
    let losses = entries(rows);
    let gaps = gaps(&losses);
    let mut plot = Plot::new();
    let (loss_cut, gap_cut) = (cut(values(&losses), CUT_LOSS_ABOVE), cut(values(&gaps), CUT_GAP_ABOVE));
    plot.add_traces(bars(&losses, "y", loss_cut, |v| format!("{v:.3}")));
    plot.add_traces(bars(&gaps, "y2", gap_cut, |v| signed(v, 3)));
    let split = if gaps.is_empty() { 0.0 } else { 0.46 };
    let mut layout = theme::layout(if gaps.is_empty() { 380 } else { 560 })
        .bar_mode(BarMode::Group)
        .bar_gap(0.28)
        .bar_group_gap(0.06)
        .hover_mode(HoverMode::Closest)
        .x_axis(Axis::new().auto_margin(true).anchor(if gaps.is_empty() { "y" } else { "y2" }))
        .y_axis(loss_axis(&losses, loss_cut).domain(&[split, 1.0]));
    if !gaps.is_empty() {
        let axis = theme::axis("gap to the original, nats").zero_line(true).zero_line_color(theme::TEXT);
        layout = layout.y_axis2(axis.domain(&[0.0, 0.38]).range(gap_range(&gaps, gap_cut)).anchor("x"));
    }
    plot.set_layout(layout);
    plot.into()
}

fn entries(rows: &[EvalRow]) -> Vec<Entry> {
    let names = distinct_names(rows);
    let one_group = names.iter().all(|n| n.group == names[0].group);
    let place = |row: &EvalRow, name: &ModelName| {
        let dataset = theme::escape(row.dataset_name());
        if one_group { dataset } else { format!("{dataset}<br>{}", theme::escape(&name.group)) }
    };
    let entry =
        |(row, name): (&EvalRow, ModelName)| Entry { place: place(row, &name), value: row.mean, name };
    rows.iter().zip(names).map(entry).collect()
}

fn gaps(losses: &[Entry]) -> Vec<Entry> {
    let original = |of: &Entry| {
        let same = |e: &&Entry| e.place == of.place && e.name.group == of.name.group;
        losses.iter().find(|e| same(e) && e.name.role == Role::Original).map(|e| e.value)
    };
    let gap = |e: &Entry| {
        let value = e.value - original(e)?;
        (e.name.role != Role::Original).then(|| Entry { place: e.place.clone(), name: e.name.clone(), value })
    };
    losses.iter().filter_map(gap).collect()
}

/// One trace per model of a group, the same over all groups; gaps share the legend entries of the losses.
fn bars(entries: &[Entry], axis: &str, top: f64, label: fn(f64) -> String) -> Vec<Box<dyn Trace>> {
    let mut models: Vec<(Role, String)> = entries.iter().map(|e| (e.name.role, e.name.short())).collect();
    models.sort_by_key(|m| m.0);
    let mut distinct: Vec<(Role, String)> = Vec::new();
    models.into_iter().for_each(|m| {
        if !distinct.contains(&m) {
            distinct.push(m)
        }
    });
    let trace = |(at, (role, short)): (usize, &(Role, String))| {
        let of_model: Vec<&Entry> =
            entries.iter().filter(|e| e.name.role == *role && e.name.short() == *short).collect();
        let nth = distinct[..at].iter().filter(|m| m.0 == *role).count();
        let heights = of_model.iter().map(|e| shown(e.value.min(top))).collect();
        let text = of_model
            .iter()
            .map(|e| if e.value > top { format!("▲ {}", label(e.value)) } else { label(e.value) });
        let name = theme::escape(short);
        let bar = Bar::new(of_model.iter().map(|e| e.place.clone()).collect(), heights)
            .name(&name)
            .legend_group(&name)
            .offset_group(&name)
            .show_legend(axis == "y")
            .y_axis(axis)
            .marker(Marker::new().color(theme::role_color(*role, nth)))
            .text_array(text.collect())
            .text_position(TextPosition::Outside)
            .text_angle(if entries.len() > UPRIGHT_ABOVE { -90.0 } else { 0.0 })
            .constrain_text(ConstrainText::None)
            .outside_text_font(Font::new().size(11))
            .clip_on_axis(false)
            .hover_template(format!("{name}, %{{x}}: %{{text}}<extra></extra>"));
        bar as Box<dyn Trace>
    };
    distinct.iter().enumerate().map(trace).collect()
}

fn values(entries: &[Entry]) -> impl Iterator<Item = f64> {
    entries.iter().map(|e| e.value)
}

/// The value above which the others are explosions: somewhat more than the largest that is none.
pub(super) fn cut(values: impl Iterator<Item = f64>, factor: f64) -> f64 {
    let mut values: Vec<f64> = values.map(f64::abs).filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::INFINITY };
    // Of two values the lower is the usual one.
    let median = values[last / 2];
    let usual = values.iter().rev().find(|v| **v <= factor * median).copied().unwrap_or(median);
    if values[last] > factor * median { 1.15 * usual } else { f64::INFINITY }
}

/// A difference with its sign.
pub(super) fn signed(value: f64, digits: usize) -> String {
    format!("{value:+.digits$}").replace('-', "−")
}

/// From zero to a little above the highest bar, so that its figure has room.
fn loss_axis(entries: &[Entry], cut: f64) -> Axis {
    let top = entries.iter().map(|e| e.value.min(cut)).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let axis = theme::axis("mean loss, nats per token");
    if top > 0.0 { axis.range(vec![0.0, (1.0 + room(entries)) * top]) } else { axis }
}

/// The part of a bar's height that its figure needs above it.
fn room(entries: &[Entry]) -> f64 {
    if entries.len() > UPRIGHT_ABOVE { 0.26 } else { 0.12 }
}

fn gap_range(entries: &[Entry], cut: f64) -> Vec<f64> {
    let values = entries.iter().map(|e| e.value.min(cut)).filter(|v| v.is_finite());
    let (low, high) = values.fold((0.0f64, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    let pad = (2.0 * room(entries) * (high - low)).max(1e-4);
    vec![if low < 0.0 { low - pad } else { 0.0 }, if high > 0.0 { high + pad } else { 0.0 }]
}
