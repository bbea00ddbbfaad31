//! The residual stream's σ from the first block to the last.

use std::collections::BTreeMap;

use plotly::common::{Line, Marker, Mode};
use plotly::layout::{Axis, HoverMode};
use plotly::{Plot, Scatter, Trace};

use super::figure::Figure;
use super::names::{Role, name_of};
use super::series::shown;
use super::theme;
use crate::eval::stds::StdDict;

/// One place in the stream: where it is drawn, what the hover calls it, and its σ.
type Place = (f64, String, f64);

/// σ of the residual stream over depth, one line a model: above over positions 1 and later, below at 0.
///
/// Depth is in blocks: block `l` is read at `l` (before attention) and at `l` + ½ (before the MLP), and
/// `ln_f` reads at the number of blocks. Names that tell a role in the study get its colour; a first name
/// that tells none is taken for the original's. A panel whose σ differ much is logarithmic.
///
/// ```
/// use lnfree::{plot, stds::StdDict};
///
/// let stds = |scale: f64| StdDict {
///     std_dict: [("blocks.0.hook_resid_pre".into(), scale), ("blocks.0.hook_resid_post".into(), 3.0)].into(),
///     std_bos_dict: [("blocks.0.hook_resid_pre".into(), 60.0 * scale)].into(),
/// };
/// let figure = plot::std_over_depth(&[("original", &stds(1.0)), ("LN-free", &stds(1.2))]);
/// assert!(figure.to_json().contains("σ at position 0"));
/// ```
pub fn std_over_depth(profiles: &[(&str, &StdDict)]) -> Figure {
    let roles = profiles.iter().enumerate().map(|(i, (name, _))| match name_of(name).role {
        Role::Other if i == 0 => Role::Original,
        role => role,
    });
    let mut plot = Plot::new();
    for (i, ((name, stds), color)) in profiles.iter().zip(theme::line_colors(roles)).enumerate() {
        // Models hardly differ in many places: thinner on thicker, all are seen.
        let width = [5.0, 3.2, 1.6][i.min(2)];
        let line = Line::new().color(color).width(width);
        plot.add_trace(profile(name, &places(&stds.std_dict), line.clone(), "y"));
        plot.add_trace(profile(name, &places(&stds.std_bos_dict), line, "y2"));
    }
    let upper = sigma_axis("σ at positions ≥ 1", profiles.iter().map(|(_, stds)| &stds.std_dict));
    let lower = sigma_axis("σ at position 0", profiles.iter().map(|(_, stds)| &stds.std_bos_dict));
    plot.set_layout(
        theme::layout(520)
            .hover_mode(HoverMode::Closest)
            .x_axis(depth_axis(profiles))
            .y_axis(upper.domain(&[0.53, 1.0]))
            .y_axis2(lower.domain(&[0.0, 0.47]).anchor("x")),
    );
    plot.into()
}

fn profile(name: &str, places: &[Place], line: Line, axis: &str) -> Box<dyn Trace> {
    let name = theme::escape(name);
    let (x, y) = places.iter().map(|(x, _, std)| (*x, shown(*std))).unzip();
    Scatter::new(x, y)
        .mode(if places.len() > 60 { Mode::Lines } else { Mode::LinesMarkers })
        .name(&name)
        .legend_group(&name)
        .show_legend(axis == "y")
        .y_axis(axis)
        .line(line)
        .marker(Marker::new().size(6))
        .text_array(places.iter().map(|(_, place, _)| place.clone()).collect::<Vec<_>>())
        .hover_template(format!("%{{text}}: σ = %{{y:.4g}} ({name})<extra></extra>"))
}

/// What an LN reads, in the order of the stream: every block's resid_pre and resid_mid, and the last one's
/// resid_post.
fn places(stds: &BTreeMap<String, f64>) -> Vec<Place> {
    let n_layer = n_layer(stds);
    let place = |(hook, std): (&String, &f64)| {
        let (layer, at) = parse(hook)?;
        let (x, text) = match at {
            "pre" => (layer as f64, format!("block {layer}, resid_pre")),
            "mid" => (layer as f64 + 0.5, format!("block {layer}, resid_mid")),
            "post" if layer + 1 == n_layer => (n_layer as f64, format!("block {layer}, resid_post")),
            _ => return None,
        };
        Some((x, text, *std))
    };
    let mut places: Vec<Place> = stds.iter().filter_map(place).collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    places
}

/// `blocks.{layer}.hook_resid_{place}`; `None` for any other hook.
fn parse(hook: &str) -> Option<(usize, &str)> {
    let (layer, hook) = hook.strip_prefix("blocks.")?.split_once('.')?;
    Some((layer.parse().ok()?, hook.strip_prefix("hook_resid_")?))
}

fn n_layer(stds: &BTreeMap<String, f64>) -> usize {
    stds.keys().filter_map(|hook| Some(parse(hook)?.0.saturating_add(1))).max().unwrap_or(0)
}

/// `ln_f` reads what follows the last block, where all models have the same number of them.
fn depth_axis(profiles: &[(&str, &StdDict)]) -> Axis {
    let ends = || profiles.iter().map(|(_, stds)| n_layer(&stds.std_dict));
    let end = ends().max().unwrap_or(0);
    let air = 0.015 * end as f64 + 0.1;
    theme::block_axis(end, ends().all(|one| one == end), [air, air]).anchor("y2")
}

fn sigma_axis<'a>(title: &str, stds: impl Iterator<Item = &'a BTreeMap<String, f64>>) -> Axis {
    theme::sigma_axis(title, stds.flat_map(places).map(|(_, _, std)| std))
}
