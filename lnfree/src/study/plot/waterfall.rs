//! Parts that add up to a total, one panel a model.

use std::collections::HashSet;

use plotly::common::{HoverInfo, Marker, Orientation};
use plotly::layout::{AxisType, BarMode, GridDomain, HoverMode, LayoutTemplate, Template};
use plotly::{Bar, Layout, Plot, Trace};

use super::bars::signed;
use super::figure::Figure;
use super::labels;
use super::panels;
use super::series::shown;
use super::theme;
use crate::study::found::Ranking;
use crate::{Error, Result};

/// Parts that have a bar of their own; the rest are one.
const LARGEST: usize = 15;
/// Letters of a part's name that are written.
const LETTERS: usize = 26;
/// Pixels from bar to bar, and between two panels: room for a heading and an axis.
const ROW: usize = 20;
const GAP: usize = 52;
/// Colours of what adds and of what takes away, those of signed maps; the total has the text's.
const PLUS: &str = "#1f83c6";
const MINUS: &str = "#d9601a";

/// A bar.
struct Step {
    /// The part.
    name: String,
    value: f64,
    from: f64,
    color: &'static str,
}

impl Step {
    fn to(&self) -> f64 {
        self.from + self.value
    }
}

/// How the first column of a ranking adds up to its total, one panel a named model, all on one scale.
///
/// The fifteen largest parts stand in the ranking's order, each bar where the one before it ended; the others
/// are one bar, and the total starts at 0 again. If the others' bar does not end where the total does, the
/// parts do not add up to it.
///
/// ```
/// use lnfree::analyses::Ranking;
///
/// let part = |name: &str, value: f64| (name.to_string(), vec![Some(value)]);
/// let ranking = Ranking {
///     name: "components of a logit".into(),
///     what: "component".into(),
///     columns: vec!["logit".into()],
///     rows: vec![part("head 3.1", 2.0), part("MLP 5", -0.5)],
///     total: Some(1.5),
/// };
/// let figure = lnfree::plot::waterfall(&[("LN-free", &ranking)])?;
/// assert!(figure.to_json().contains("total  +1.500"));
/// # Ok::<(), lnfree::Error>(())
/// ```
///
/// # Errors
/// When a ranking has no finite total.
pub fn waterfall(models: &[(&str, &Ranking)]) -> Result<Figure> {
    let all: Vec<Vec<Step>> =
        models.iter().map(|(model, ranking)| steps(model, ranking)).collect::<Result<_>>()?;
    let mut layout = layout(models, &all);
    let mut plot = Plot::new();
    // From the last to the first: the lowest panel has the axes without a number, which alone can have a
    // title.
    for (at, ((model, _), steps)) in models.iter().zip(&all).rev().enumerate() {
        let number = panels::number(at);
        plot.add_traces(bars(steps, &number));
        let heading = format!("<b>{}</b>", labels::text(model));
        layout.add_annotation(panels::above(&heading, "paper", &format!("y{number} domain")));
    }
    plot.set_layout(layout);
    Ok(plot.into())
}

/// The bars of a ranking from top to bottom.
fn steps(model: &str, ranking: &Ranking) -> Result<Vec<Step>> {
    let Some(total) = ranking.total.filter(|total| total.is_finite()) else {
        return Err(Error::invalid(format!(
            "{model}: {} does not add up to anything: only a ranking with a total is drawn as a waterfall",
            ranking.name
        )));
    };
    let number = |numbers: &Vec<Option<f64>>| numbers.first().copied().flatten().filter(|v| v.is_finite());
    let parts: Vec<(&String, f64)> =
        ranking.rows.iter().filter_map(|(name, numbers)| Some((name, number(numbers)?))).collect();
    let mut largest: Vec<usize> = (0..parts.len()).collect();
    largest.sort_by(|a, b| parts[*b].1.abs().total_cmp(&parts[*a].1.abs()));
    let rest = largest.split_off(largest.len().min(LARGEST));
    largest.sort_unstable();
    let mut steps: Vec<Step> = Vec::new();
    let mut add = |name: String, value: f64| {
        let color = if value < 0.0 { MINUS } else { PLUS };
        let from = steps.last().map_or(0.0, Step::to);
        steps.push(Step { name, value, from, color });
    };
    for (name, value) in largest.into_iter().map(|at| parts[at]) {
        add(name.clone(), value);
    }
    if !rest.is_empty() {
        let name = format!("{} other{}", rest.len(), if rest.len() == 1 { "" } else { "s" });
        add(name, rest.iter().map(|at| parts[*at].1).sum());
    }
    steps.push(Step { name: "total".into(), value: total, from: 0.0, color: theme::TEXT });
    Ok(steps)
}

/// plotly's own waterfalls are not among the crate's traces: bars upon bars that are not seen. A bar across 0
/// has a part on either side of it.
fn bars(steps: &[Step], number: &str) -> Vec<Box<dyn Trace>> {
    let ends = |step: &Step| (step.from.min(step.to()), step.from.max(step.to()));
    let places = written(steps);
    let bar = |length: &dyn Fn(f64, f64) -> f64| {
        let length = |step: &Step| {
            let (low, high) = ends(step);
            Some(length(low, high)).filter(|length| *length != 0.0).and_then(shown)
        };
        Bar::new(steps.iter().map(length).collect::<Vec<_>>(), places.clone())
            .orientation(Orientation::Horizontal)
            .show_legend(false)
            .x_axis(format!("x{number}"))
            .y_axis(format!("y{number}"))
    };
    let colors: Vec<&'static str> = steps.iter().map(|step| step.color).collect();
    let hover: Vec<String> = steps.iter().map(hover).collect();
    let mut traces: Vec<Box<dyn Trace>> = Vec::new();
    let base = bar(&|low, high| if low > 0.0 { low } else { high.min(0.0) });
    traces.push(base.marker(Marker::new().color("rgba(0,0,0,0)")).hover_info(HoverInfo::Skip));
    let above = bar(&|low, high| high.max(0.0) - low.max(0.0));
    let below = bar(&|low, high| low.min(0.0) - high.min(0.0));
    for seen in [above, below] {
        traces.push(
            seen.marker(Marker::new().color_array(colors.clone()))
                .hover_text_array(hover.clone())
                .hover_template("%{hovertext}<extra></extra>"),
        );
    }
    traces
}

/// What stands on the left: part and number, no two the same.
fn written(steps: &[Step]) -> Vec<String> {
    let most = steps.iter().map(|step| step.value.abs()).fold(0.0, f64::max);
    let digits = if most < 0.1 { 5 } else { 3 };
    let mut seen = HashSet::new();
    let text = |(at, step): (usize, &Step)| {
        let name = labels::text(&labels::cut(&step.name, LETTERS));
        let text = format!("{name}  {}", signed(step.value, digits));
        if seen.insert(text.clone()) { text } else { format!("{text} ({at})") }
    };
    steps.iter().enumerate().map(text).collect()
}

fn hover(step: &Step) -> String {
    let number = |value: f64| shown(value).unwrap_or_default().to_string().replace('-', "−");
    let name = labels::text(&step.name);
    format!("{name}: {}, from {} to {}", number(step.value), number(step.from), number(step.to()))
}

/// Panels of equal height. Their number is not bounded, but the axes that plotly's types have is: a template
/// styles all.
fn layout(models: &[(&str, &Ranking)], panels: &[Vec<Step>]) -> Layout {
    let (n, lines) = (panels.len().max(1), panels.iter().map(Vec::len).max().unwrap_or(1));
    let ends = panels.iter().flatten().flat_map(|step| [step.from, step.to()]);
    let (low, high) = ends.fold((0.0f64, 0.0f64), |(low, high), end| (low.min(end), high.max(end)));
    let air = if high > low { 0.04 * (high - low) } else { 1.0 };
    let x_axis =
        theme::axis("").range(vec![low - air, high + air]).zero_line(true).zero_line_color(theme::TEXT);
    let title = models.first().map(|(_, ranking)| ranking.columns.first().unwrap_or(&ranking.name));
    let title = labels::text(title.map_or("", String::as_str));
    let titled = x_axis.clone().title(theme::axis_title(&title));
    let mut y_axis = theme::axis("")
        .type_(AxisType::Category)
        .range(vec![lines as f64 - 0.5, -0.5])
        .dtick(1.0)
        .show_grid(false)
        .fixed_range(true);
    let inner = n * (ROW * lines + GAP);
    let height = [0.0, 1.0 - (GAP / 2) as f64 / inner as f64];
    // plotly passes over a grid of one.
    if n == 1 {
        y_axis = y_axis.domain(&height);
    }
    let domain = GridDomain::new().y(height.to_vec());
    let grid = panels::stack(n, GAP as f64 / (ROW * lines + GAP) as f64, domain);
    theme::layout(inner + 60)
        .bar_mode(BarMode::Relative)
        .bar_gap(0.25)
        .hover_mode(HoverMode::Closest)
        .template(Template::new().layout(LayoutTemplate::new().x_axis(x_axis).y_axis(y_axis)))
        .grid(grid)
        .x_axis(titled)
}
