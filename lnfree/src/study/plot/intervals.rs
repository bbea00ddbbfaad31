//! Results and differences with what resampling says of their certainty.

use plotly::common::MarkerSymbol;

use super::bars::{CUT_LOSS_ABOVE, cut, signed};
use super::data::{EvalRow, last_component};
use super::figure::Figure;
use super::forest::{Panel, Row, forest, keys, value_axis};
use super::names::{ModelName, Role, distinct_names, name_of};
use super::theme;
use serde::Serialize;

use crate::eval::PairedDifference;

/// A published figure to see an evaluation beside.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The model as the rows call it, like `LN-free`; another name gets a line of its own.
    pub label: String,
    /// The data set's name.
    pub dataset: String,
    /// Mean cross-entropy, nats per token.
    pub mean: f64,
}

/// How much more one model loses than another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// What is compared: `LN-free − original`.
    pub label: String,
    /// The data set's name.
    pub dataset: String,
    /// First less second.
    #[serde(flatten)]
    pub difference: PairedDifference,
}

/// Mean loss of every model with its 95% bootstrap interval, one panel a data set, each with a range of its
/// own; published figures as hollow diamonds beside them.
///
/// Unlike [`results_bars`](super::results_bars) the axes do not start at zero: positions are compared, not
/// lengths. A mean that has exploded stands at the right edge, with its figure.
///
/// ```
/// use lnfree::plot::{self, EvalDetails, EvalRow, Reference};
///
/// let details = EvalDetails { mean_interval: Some([3.0, 3.2]), ..EvalDetails::default() };
/// let row = EvalRow { model: "gpt2".into(), dataset: "owt".into(), mean: 3.1, details, ..EvalRow::default() };
/// let published = Reference { label: "gpt2".into(), dataset: "owt".into(), mean: 3.1006 };
/// assert!(plot::results_with_intervals(&[row], &[published]).to_json().contains("diamond-open"));
/// ```
pub fn results_with_intervals(rows: &[EvalRow], references: &[Reference]) -> Figure {
    let names = distinct_names(rows);
    let means = rows.iter().map(|row| row.mean).chain(references.iter().map(|reference| reference.mean));
    let top = cut(means, CUT_LOSS_ABOVE);
    let mut panels: Vec<Panel> = Vec::new();
    for (i, (row, name)) in rows.iter().zip(&names).enumerate() {
        panel(&mut panels, row.dataset_name()).rows.push(result(row, name, color(&names, i)));
    }
    for reference in references {
        let name = name_of(&reference.label);
        let nth = names.iter().position(|n| *n == name);
        let color = nth.map_or(theme::role_color(name.role, 0), |i| color(&names, i));
        let panel = panel(&mut panels, last_component(&reference.dataset));
        let mut row = published(reference, &name, color);
        // Beside a mean of our own, that one's figure is written.
        if !panel.rows.iter().any(|other| other.label == row.label) {
            row.written = format!("{:.4}", row.value);
        }
        panel.rows.push(row);
    }
    panels.iter_mut().for_each(|panel| cut_explosions(panel, top));
    let keys = keys("mean and 95% interval", "published mean", !references.is_empty());
    forest(&panels, value_axis(), "mean loss, nats per token", keys)
}

/// Differences in mean loss over the same tokens with their 95% bootstrap intervals, one panel a data set,
/// all with the same range around zero. A hollow mark is a difference whose interval holds zero.
///
/// ```
/// use lnfree::{eval::PairedDifference, plot::{self, Difference}};
///
/// let difference = PairedDifference { mean: 0.031, interval: [0.028, 0.034], n_sequences: 320 };
/// let row = Difference { label: "LN-free − original".into(), dataset: "owt".into(), difference };
/// assert!(plot::paired_differences(&[row]).to_json().contains("+0.0310"));
/// ```
pub fn paired_differences(rows: &[Difference]) -> Figure {
    let mut panels: Vec<Panel> = Vec::new();
    for row in rows {
        panel(&mut panels, last_component(&row.dataset)).rows.push(difference(row));
    }
    let values = rows.iter().flat_map(|row| row.difference.interval.into_iter().chain([row.difference.mean]));
    let (low, high) =
        values.filter(|v| v.is_finite()).fold((0.0f64, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    let air = (0.06 * (high - low)).max(1e-4);
    let axis = value_axis()
        .zero_line(true)
        .zero_line_color(theme::TEXT)
        .zero_line_width(2)
        .range(vec![low - air, high + air]);
    forest(&panels, axis, "difference in mean loss, nats per token", Vec::new())
}

/// The panel of a data set, made where there is none.
fn panel<'a>(panels: &'a mut Vec<Panel>, dataset: &str) -> &'a mut Panel {
    let heading = theme::escape(dataset);
    let at = panels.iter().position(|panel| panel.heading == heading).unwrap_or(panels.len());
    if at == panels.len() {
        panels.push(Panel { heading, rows: Vec::new() });
    }
    &mut panels[at]
}

/// The colour of the `i`-th row's role; further models of one role and family get its other shades.
fn color(names: &[ModelName], i: usize) -> &'static str {
    let mut variants: Vec<&str> = Vec::new();
    for name in names.iter().filter(|n| (n.role, &n.group) == (names[i].role, &names[i].group)) {
        if !variants.contains(&name.variant.as_str()) {
            variants.push(&name.variant);
        }
    }
    let nth = variants.iter().position(|variant| *variant == names[i].variant);
    theme::role_color(names[i].role, nth.unwrap_or_default())
}

fn result(row: &EvalRow, name: &ModelName, color: &'static str) -> Row {
    let label = theme::escape(&name.to_string());
    let interval = row.details.mean_interval;
    let range = interval.map_or(String::new(), |[low, high]| format!(", 95% interval {low:.4} to {high:.4}"));
    Row {
        hover: format!("{label}: {:.4} nats{range}", row.mean),
        label,
        value: row.mean,
        interval,
        color,
        symbol: MarkerSymbol::Circle,
        written: format!("{:.4}", row.mean),
    }
}

fn published(reference: &Reference, name: &ModelName, color: &'static str) -> Row {
    let label = theme::escape(&name.to_string());
    Row {
        hover: format!("{label}: {:.4} nats, published", reference.mean),
        label,
        value: reference.mean,
        interval: None,
        color,
        symbol: MarkerSymbol::DiamondOpen,
        written: String::new(),
    }
}

/// Puts what lies above `top` a little to the right of all that does not.
fn cut_explosions(panel: &mut Panel, top: f64) {
    let ends = |row: &Row| row.interval.unwrap_or([row.value; 2]).into_iter().chain([row.value]);
    let usual = panel.rows.iter().filter(|row| row.value <= top).flat_map(ends).filter(|v| v.is_finite());
    let (low, high) = usual.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low > high {
        return;
    }
    for row in panel.rows.iter_mut().filter(|row| row.value > top) {
        row.value = high + (0.12 * (high - low)).max(0.01 * high.abs());
        row.interval = None;
        row.symbol = match row.symbol {
            MarkerSymbol::DiamondOpen => MarkerSymbol::TriangleRightOpen,
            _ => MarkerSymbol::TriangleRight,
        };
        if !row.written.is_empty() {
            row.written = format!("▶ {}", row.written);
        }
    }
}

fn difference(row: &Difference) -> Row {
    let PairedDifference { mean, interval: [low, high], n_sequences } = row.difference;
    let label = theme::escape(&row.label);
    let certain = low > 0.0 || high < 0.0;
    Row {
        hover: format!(
            "{label}: {} nats, 95% interval {} to {}, {n_sequences} sequences",
            signed(mean, 4),
            signed(low, 4),
            signed(high, 4)
        ),
        label,
        value: mean,
        interval: Some([low, high]),
        // What is compared with the original has the colour.
        color: theme::role_color(first_role(&row.label), 0),
        symbol: if certain { MarkerSymbol::Circle } else { MarkerSymbol::CircleOpen },
        written: signed(mean, 4),
    }
}

/// The role of the first of the two models.
fn first_role(label: &str) -> Role {
    let first = label.split(['−', '–']).next().unwrap_or(label);
    name_of(first.split(" - ").next().unwrap_or(first)).role
}
