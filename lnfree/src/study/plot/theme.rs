//! Colours and layout shared by all figures.

use plotly::common::{
    Anchor, ColorBar, ColorScale, ColorScaleElement, DashType, Font, Label, MarkerSymbol, Orientation,
    ThicknessMode, TickMode, Title,
};
use plotly::configuration::{DisplayModeBar, ModeBarButtonName};
use plotly::layout::{Axis, AxisType, HoverMode, ItemSizing, Legend, Margin, ModeBar};
use plotly::{Configuration, Layout};

use super::data::RunMetrics;
use super::names::Role;
use super::series::shown;
use crate::config::norm::RemovalKind;

/// Text that reads on white and on near-black alike; a page that knows its background may set a better one.
pub const TEXT: &str = "#7d828a";
/// The reader's own interface font.
const FAMILY: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
/// What a reader must not overlook, on white and on near-black alike.
pub const CAPTION: &str = "#c2641a";
/// Pixels below a figure, where its axis has its title.
pub const MARGIN_BOTTOM: usize = 48;
/// Pixels left of a figure, for an axis' numbers and its title.
pub const MARGIN_LEFT: usize = 64;
/// Grid lines, faint on any background.
pub const GRID: &str = "rgba(128,128,128,0.22)";

/// A fill that sets a part of a figure off, on any background.
pub const FAINT: &str = "rgba(128,128,128,0.12)";

/// Run colours: the Okabe-Ito palette ("Color Universal Design", 2008) less its black and yellow, each at a
/// middle lightness.
const RUNS: [&str; 6] = ["#0f9d78", "#b0609a", "#1f83c6", "#d9601a", "#5fb0e0", "#c98a00"];

/// One colour a run: that of its role in the study, then, for further runs, the palette's others.
pub fn run_colors(runs: &[RunMetrics]) -> Vec<&'static str> {
    let role = |run: &RunMetrics| match run.info.mode.as_str() {
        "without_ln" => Role::LnFree,
        "with_ln" => Role::Vanilla,
        _ => Role::Other,
    };
    line_colors(runs.iter().map(role))
}

/// One colour a line, no two the same while the palette lasts: that of its role, then the palette's others.
pub fn line_colors(roles: impl Iterator<Item = Role>) -> Vec<&'static str> {
    let mut colors: Vec<&'static str> = Vec::new();
    for role in roles {
        let own = (role != Role::Other).then(|| role_color(role, 0));
        let free = own.into_iter().chain(RUNS).find(|color| !colors.contains(color));
        colors.push(free.unwrap_or(RUNS[colors.len() % RUNS.len()]));
    }
    colors
}

/// The colour of the `i`-th model of a role.
pub fn role_color(role: Role, i: usize) -> &'static str {
    match role {
        Role::Original => ["#858b95", "#a9aeb7", "#666b73"][i % 3],
        Role::Vanilla => ["#d9601a", "#eb9a68", "#a8480f"][i % 3],
        Role::LnFree => ["#1f83c6", "#6fb4e3", "#155d8d"][i % 3],
        Role::Other => ["#0f9d78", "#b0609a", "#c98a00"][i % 3],
    }
}

/// The colour of a kind of removal as red, green, blue: Okabe-Ito's, ln_f's moved to crimson, away from
/// vanilla's.
///
/// Any two are at least 13 apart (CIE 1976) as seen with full protanopia, deuteranopia or tritanopia,
/// simulated with the matrices of Machado, Oliveira and Fernandes (2009).
pub fn kind_rgb(kind: RemovalKind) -> [u8; 3] {
    match kind {
        RemovalKind::Ln2 => [86, 180, 233],
        RemovalKind::Ln1Qk => [0, 158, 115],
        RemovalKind::Ln1V => [204, 121, 167],
        RemovalKind::LnF => [196, 42, 84],
        RemovalKind::Eot => [201, 152, 0],
        RemovalKind::Bos => [120, 94, 190],
    }
}

/// The mark of a kind of removal: who cannot tell the colours tells the shapes.
pub fn kind_symbol(kind: RemovalKind) -> MarkerSymbol {
    match kind {
        RemovalKind::Ln2 => MarkerSymbol::Square,
        RemovalKind::Ln1Qk => MarkerSymbol::CircleOpen,
        RemovalKind::Ln1V => MarkerSymbol::Circle,
        RemovalKind::LnF => MarkerSymbol::Diamond,
        RemovalKind::Eot => MarkerSymbol::TriangleUp,
        RemovalKind::Bos => MarkerSymbol::X,
    }
}

/// A CSS colour from red, green, blue and opacity.
pub fn rgba([r, g, b]: [u8; 3], opacity: f64) -> String {
    format!("rgba({r},{g},{b},{opacity})")
}

/// The depth scale, shallow to deep: viridis (van der Walt and Smith, 2015) without its darkest and lightest
/// ends, which vanish on dark and on white pages. Its steps in lightness are equal, so it serves for amounts,
/// too.
const DEPTH: [[u8; 3]; 5] = [[86, 82, 160], [49, 120, 170], [31, 158, 137], [74, 190, 100], [190, 200, 40]];

/// The colour of `layer` among `n_layer`.
pub fn depth_color(layer: usize, n_layer: usize) -> String {
    let last = DEPTH.len() - 1;
    let at = last as f64 * layer as f64 / n_layer.saturating_sub(1).max(1) as f64;
    let i = (at as usize).min(last - 1);
    let mix = |c: usize| {
        let (a, b) = (f64::from(DEPTH[i][c]), f64::from(DEPTH[i + 1][c]));
        (a + (b - a) * (at - i as f64).min(1.0)).round() as u8
    };
    rgba([mix(0), mix(1), mix(2)], 1.0)
}

/// The depth scale as plotly takes it.
pub fn depth_scale() -> ColorScale {
    let last = (DEPTH.len() - 1) as f64;
    let element = |(i, rgb): (usize, &[u8; 3])| ColorScaleElement(i as f64 / last, rgba(*rgb, 1.0));
    ColorScale::Vector(DEPTH.iter().enumerate().map(element).collect())
}

/// The scale of what is signed: below 0, 0, above. 0 is nearly the page, light or dark.
pub fn signed_scale() -> ColorScale {
    let colors = [
        "rgba(168,72,15,1)",
        "rgba(217,96,26,1)",
        "rgba(128,128,128,0.25)",
        "rgba(31,131,198,1)",
        "rgba(21,93,141,1)",
    ];
    let last = (colors.len() - 1) as f64;
    let element = |(i, color): (usize, &str)| ColorScaleElement(i as f64 / last, color.into());
    ColorScale::Vector(colors.into_iter().enumerate().map(element).collect())
}

/// A colour bar on the right.
pub fn color_bar(title: &str) -> ColorBar {
    ColorBar::new()
        .title(Title::with_text(title).font(Font::new().size(12)))
        .thickness(12)
        .thickness_mode(ThicknessMode::Pixels)
        .outline_width(0)
}

/// The layout that every figure starts from, `height` in pixels.
pub fn layout(height: usize) -> Layout {
    Layout::new()
        .height(height)
        .auto_size(true)
        .paper_background_color("rgba(0,0,0,0)")
        .plot_background_color("rgba(0,0,0,0)")
        .font(Font::new().family(FAMILY).size(13).color(TEXT))
        .margin(margin(MARGIN_BOTTOM))
        .hover_mode(HoverMode::XUnified)
        .hover_label(Label::new().font(Font::new().family(FAMILY).size(12)).name_length(-1))
        .mode_bar(ModeBar::new().background_color("rgba(0,0,0,0)").color(TEXT).active_color("#1f83c6"))
        .legend(legend())
}

/// The margins of every figure but for the one below it, in pixels.
pub fn margin(bottom: usize) -> Margin {
    Margin::new().left(MARGIN_LEFT).right(16).top(16).bottom(bottom)
}

/// One or more rows above the figure: there it can grow without meeting an axis title.
pub fn legend() -> Legend {
    Legend::new()
        .orientation(Orientation::Horizontal)
        .x(0.0)
        .x_anchor(Anchor::Left)
        .y(1.02)
        .y_anchor(Anchor::Bottom)
        .item_sizing(ItemSizing::Constant)
        .font(Font::new().size(12))
}

/// An axis with a title, a faint grid and no zero line.
pub fn axis(title: &str) -> Axis {
    Axis::new().title(axis_title(title)).grid_color(GRID).zero_line(false).auto_margin(true)
}

/// The title of an axis.
pub fn axis_title(title: &str) -> Title {
    Title::with_text(title).font(Font::new().size(13))
}

/// The step axis, from the first to the last step of `runs` with a little air.
pub fn step_axis(runs: &[RunMetrics]) -> Axis {
    let steps = runs.iter().flat_map(|run| &run.steps).map(|s| s.step as f64);
    let (first, last) = steps.fold((f64::INFINITY, 0.0f64), |(a, b), s| (a.min(s), b.max(s)));
    steps_axis(first, last)
}

/// The step axis from `first` to `last`; as plotly likes where `first` is not finite.
pub fn steps_axis(first: f64, last: f64) -> Axis {
    let axis = axis("optimizer step")
        .separate_thousands(true)
        .spike_color(TEXT)
        .spike_thickness(1)
        .spike_dash(DashType::Dot);
    let air = (0.012 * (last - first)).max(0.5);
    // Steps are whole: left alone, plotly would put ticks between them.
    let axis = if last - first < 5.0 { axis.dtick(1.0) } else { axis };
    if first.is_finite() { axis.range(vec![first - air, last + air]) } else { axis }
}

/// An axis over blocks, from 0 to beyond `ln_f` above the last; not every block has its number where there
/// are many. Without `ln_f`, the place above the last has no label.
pub fn block_axis(n_layer: usize, ln_f: bool, air: [f64; 2]) -> Axis {
    let every = [1, 2, 4, 8].into_iter().find(|every| n_layer / every <= 14).unwrap_or(n_layer / 12);
    // The last number must not run into ln_f.
    let numbered = (0..n_layer).step_by(every).filter(|l| n_layer - l >= every.div_ceil(2));
    let mut ticks: Vec<(f64, String)> = numbered.map(|l| (l as f64, l.to_string())).collect();
    if ln_f {
        ticks.push((n_layer as f64, "ln_f".into()));
    }
    let (at, labels): (Vec<f64>, Vec<String>) = ticks.into_iter().unzip();
    let range = vec![-air[0], n_layer as f64 + air[1]];
    axis("block").tick_mode(TickMode::Array).tick_values(at).tick_text(labels).range(range)
}

/// A larger ratio between the largest and the smallest σ is shown on a logarithmic axis.
const LOG_SIGMA_ABOVE: f64 = 12.0;

/// An axis for standard deviations: logarithmic if they differ much.
pub fn sigma_axis(title: &str, stds: impl Iterator<Item = f64>) -> Axis {
    let stds = stds.filter(|v| v.is_finite());
    let (low, high) = stds.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    if low > 0.0 && high > LOG_SIGMA_ABOVE * low { log_axis(title, low, high) } else { axis(title) }
}

/// A logarithmic value axis for values from `low` to `high`, both above zero.
///
/// Labelled in full at 1, 2 and 5 times the powers of ten, or at these alone over many decades: plotly on its
/// own writes single digits, of which a reader has to find the power.
pub fn log_axis(title: &str, low: f64, high: f64) -> Axis {
    let full = |v: f64| {
        if (1e-4..1e5).contains(&v) { shown(v).unwrap_or(v).to_string() } else { format!("{v:.0e}") }
    };
    log_axis_labelled(title, low, high, full)
}

/// The same for counts, written as `200M`.
pub fn log_count_axis(title: &str, low: f64, high: f64) -> Axis {
    log_axis_labelled(title, low, high, count)
}

fn log_axis_labelled(title: &str, low: f64, high: f64, label: impl Fn(f64) -> String) -> Axis {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let digits: &[f64] = if last - first > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let every = ((last - first) / 6).max(1) as usize;
    let decades = (first..=last).step_by(if digits.len() == 1 { every } else { 1 });
    let ticks: Vec<f64> = decades.flat_map(|d| digits.iter().map(move |m| m * 10f64.powi(d))).collect();
    let labels: Vec<String> = ticks.iter().map(|v| label(*v)).collect();
    axis(title).type_(AxisType::Log).tick_mode(TickMode::Array).tick_values(ticks).tick_text(labels)
}

/// A count to three digits with its unit of thousands: `355M`, `1.56B`, `12.6k`.
pub fn count(n: f64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    // What rounds up to a thousand of one unit is one of the next.
    let found = units.into_iter().find(|(unit, _)| n.abs() >= 0.9995 * unit);
    let (unit, name) = found.unwrap_or((1.0, ""));
    let digits = match n.abs() / unit {
        scaled if scaled < 9.995 => 2,
        scaled if scaled < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{:.digits$}", n / unit);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{name}")
}

/// Fits the page's width; of plotly's buttons only those that are of use here.
pub fn configuration() -> Configuration {
    Configuration::new()
        .responsive(true)
        .display_logo(false)
        .display_mode_bar(DisplayModeBar::Hover)
        .mode_bar_buttons_to_remove(vec![
            ModeBarButtonName::Select2d,
            ModeBarButtonName::Lasso2d,
            ModeBarButtonName::ZoomIn2d,
            ModeBarButtonName::ZoomOut2d,
        ])
}

/// Text from files as plotly shows it: its labels understand a little HTML, which must not be taken from
/// data.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
