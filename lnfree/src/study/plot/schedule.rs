//! Which LN goes when, as planned.

use plotly::common::{Anchor, Font, Line, Marker, Mode};
use plotly::layout::{Annotation, HoverMode, Shape, ShapeLayer, ShapeLine, ShapeType};
use plotly::{Plot, Scatter, Trace};

use super::figure::Figure;
use super::theme;
use crate::config::norm::RemovalKind;
use crate::config::schedule::{Removal, Schedule};

/// The removals of a training of `max_steps` optimizer steps of `tokens_per_step` tokens: step against block,
/// `ln_f` on top, one colour and one symbol a kind.
///
/// What follows the last removal is shaded and says how long it is. Removals planned for `max_steps` or later
/// never happen; they are not drawn, and counted in a note.
///
/// ```
/// use lnfree::{plot, schedule::{Schedule, ScheduleConfig}};
///
/// let config = ScheduleConfig { start_ln2: Some(20), gap_ln2: 2, start_lnf: Some(50), ..ScheduleConfig::default() };
/// let figure = plot::removal_schedule(&Schedule::new(&config, 12), 12, 300, 524_288);
/// assert!(figure.to_json().contains("for 250 steps, 131M tokens"));
/// ```
pub fn removal_schedule(
    schedule: &Schedule,
    n_layer: usize,
    max_steps: usize,
    tokens_per_step: usize,
) -> Figure {
    let due = max_steps.checked_sub(1).map_or(&[][..], |last| schedule.states_at(last));
    let mut plot = Plot::new();
    for kind in RemovalKind::ALL {
        let of_kind: Vec<&Removal> = due.iter().filter(|r| r.kind == kind).collect();
        if !of_kind.is_empty() {
            plot.add_trace(marks(kind, &of_kind, n_layer, tokens_per_step));
        }
    }
    let mut layout = theme::layout(150 + (24 * (n_layer + 1)).clamp(140, 460)).hover_mode(HoverMode::Closest);
    let mut notes = Vec::new();
    if let Some(last) = due.last() {
        layout.add_shape(shade(last.step, max_steps));
        notes.push(remainder(due, n_layer, max_steps - last.step, tokens_per_step));
    }
    let late = schedule.removals().len() - due.len();
    if late > 0 {
        notes.push(format!("{late} removals planned for step {max_steps} or later never happen"));
    }
    let from = due.last().map_or(max_steps, |last| last.step);
    // A note that finds no room in the shaded part stands below the first block.
    let below = !notes.is_empty() && (late > 0 || 3 * (max_steps - from) < max_steps);
    let air = if below { (0.06 * n_layer as f64).max(1.1) } else { 0.7 };
    if below {
        let text = notes.join("; ").replace("<br>", " ");
        layout.add_annotation(note(text).x_ref("paper").x(1.0).y(-0.55 * air).x_anchor(Anchor::Right));
    } else if let Some(text) = notes.pop() {
        layout.add_annotation(note(text).x((from + max_steps) as f64 / 2.0).y(n_layer as f64 / 2.0));
    }
    let steps = theme::steps_axis(0.0, max_steps as f64);
    plot.set_layout(layout.x_axis(steps).y_axis(theme::block_axis(n_layer, true, [air, 0.7])));
    plot.into()
}

fn marks(kind: RemovalKind, removals: &[&Removal], n_layer: usize, tokens_per_step: usize) -> Box<dyn Trace> {
    let rows = removals.iter().map(|r| r.layer.unwrap_or(n_layer)).collect();
    let tokens = |r: &&Removal| theme::count(r.step as f64 * tokens_per_step as f64);
    let place = if kind == RemovalKind::LnF { "" } else { " of block %{y}" };
    let color = theme::rgba(theme::kind_rgb(kind), 1.0);
    Scatter::new(removals.iter().map(|r| r.step).collect(), rows)
        .mode(Mode::Markers)
        .name(kind.label())
        .marker(
            Marker::new()
                .symbol(theme::kind_symbol(kind))
                .size(if n_layer > 24 { 6 } else { 9 })
                .color(color.clone())
                .line(Line::new().color(color).width(if n_layer > 24 { 1.2 } else { 1.8 })),
        )
        .text_array(removals.iter().map(tokens).collect::<Vec<_>>())
        .hover_template(format!(
            "{}{place} removed at step %{{x}}, after %{{text}} tokens<extra></extra>",
            kind.label()
        ))
}

/// What the training does in the `steps` after the last removal, on two lines.
fn remainder(due: &[Removal], n_layer: usize, steps: usize, tokens_per_step: usize) -> String {
    let gone = |kind, n| due.iter().filter(|r| r.kind == kind).count() >= n;
    let blocks = [RemovalKind::Ln2, RemovalKind::Ln1Qk, RemovalKind::Ln1V];
    let all = gone(RemovalKind::LnF, 1) && blocks.into_iter().all(|kind| gone(kind, n_layer));
    let tokens = theme::count(steps as f64 * tokens_per_step as f64);
    let what = if all { "fine-tuning without LN" } else { "fine-tuning goes on" };
    format!("{what}<br>for {steps} steps, {tokens} tokens")
}

fn shade(from: usize, to: usize) -> Shape {
    Shape::new()
        .shape_type(ShapeType::Rect)
        .layer(ShapeLayer::Below)
        .x_ref("x")
        .y_ref("paper")
        .x0(from as f64)
        .x1(to as f64)
        .y0(0.0)
        .y1(1.0)
        .fill_color(theme::FAINT)
        .line(ShapeLine::new().width(0.0))
}

fn note(text: String) -> Annotation {
    Annotation::new().text(text).font(Font::new().size(12)).show_arrow(false)
}
