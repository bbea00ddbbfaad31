//! Where heads look.

use plotly::common::{Font, TickMode};
use plotly::layout::{Axis, AxisType, HoverMode, LayoutTemplate, Template};
use plotly::{HeatMap, Layout, Plot, Trace};
use tch::{Kind, Tensor};

use super::figure::Figure;
use super::labels;
use super::panels;
use super::theme;
use crate::{Error, Result};

/// More heads than this go on in another row.
const MAX_COLUMNS: usize = 8;
/// Pixels of all panels of a row together, on an ordinary page, and from row to row.
const WIDTH: usize = 660;
const GAP: usize = 44;
/// Pixels that a token's text needs, and the number of tokens above which there is never room.
const TOKEN: usize = 10;
const MAX_TOKENS: usize = 24;
/// Pixels of a letter of a token.
const LETTER: usize = 6;

/// Attention patterns of one layer, `[head, query_pos, key_pos]` probabilities of each named model over
/// `tokens`: a row a model, a column a head, all on one scale from 0 to 1.
///
/// More than eight heads go on in further rows. Keys after their query are blank, whatever the tensors hold
/// there. Axes have the tokens' texts where there is room for them, else positions from 0. Of 12 heads over
/// 64 tokens, a model takes about 150 kB of the page.
///
/// ```
/// use lnfree::{plot, prelude::{Device, Kind, Tensor}};
///
/// let pattern = Tensor::full([2, 3, 3], 0.25, (Kind::Float, Device::Cpu));
/// let tokens = ["a", " b", " c"].map(String::from);
/// let figure = plot::attention_patterns(&[("original", &pattern)], &tokens)?;
/// assert!(figure.to_json().contains("attends to"));
/// # Ok::<(), lnfree::Error>(())
/// ```
///
/// # Errors
/// When a tensor has another shape than `[head, tokens, tokens]`, or not as many heads as the first.
pub fn attention_patterns(patterns: &[(&str, &Tensor)], tokens: &[String]) -> Result<Figure> {
    let heads = check(patterns, tokens.len())?;
    let per_model = heads.div_ceil(MAX_COLUMNS).max(1);
    let columns = heads.div_ceil(per_model).max(1);
    let size = (WIDTH / columns).clamp(80, 300);
    let names: Vec<String> = tokens.iter().enumerate().map(|(at, token)| name(token, at)).collect();
    let mut plot = Plot::new();
    let rows = (per_model * patterns.len()).max(1);
    let mut layout = layout(rows, columns, size, tokens);
    for (m, (model, pattern)) in patterns.iter().enumerate() {
        let model = theme::escape(model);
        for head in 0..heads {
            let (row, column) = (m * per_model + head / columns, head % columns);
            let axes =
                [("x", column), ("y", row)].map(|(letter, i)| format!("{letter}{}", panels::number(i)));
            let z = triangle(&pattern.get(head as i64), tokens.len())?;
            let text = format!("head {head}");
            plot.add_trace(panel(&text, &model, &names, z, &axes, m == 0 && head == 0));
            let [x, y] = axes.each_ref().map(|axis| format!("{axis} domain"));
            layout.add_annotation(panels::above(&text, &x, &y).font(Font::new().size(11)));
            if head == 0 {
                let name = format!("<b>{model}</b>");
                layout.add_annotation(panels::above(&name, &x, &y).y_shift(14.0));
            }
        }
    }
    plot.set_layout(layout);
    Ok(plot.into())
}

/// The number of heads, of which all have as many.
fn check(patterns: &[(&str, &Tensor)], n_tokens: usize) -> Result<usize> {
    let mut heads = None;
    for (model, pattern) in patterns {
        let n = n_tokens as i64;
        match pattern.size()[..] {
            [of_this, queries, keys]
                if queries == n && keys == n && *heads.get_or_insert(of_this) == of_this => {}
            ref other => {
                let heads = heads.map_or("head".into(), |n| n.to_string());
                return Err(Error::invalid(format!(
                    "{model}: an attention pattern over {n} tokens is [{heads}, {n}, {n}], not {other:?}"
                )));
            }
        }
    }
    Ok(heads.unwrap_or(0) as usize)
}

/// The probabilities of each query's own and earlier keys, to three decimals; plotly leaves the rest of a row
/// blank.
fn triangle(pattern: &Tensor, n: usize) -> Result<Vec<Vec<Option<f64>>>> {
    let all = Vec::<f64>::try_from(pattern.to_kind(Kind::Double).contiguous().view(-1))?;
    let rounded = |p: &f64| p.is_finite().then_some((1e3 * p).round() / 1e3);
    Ok(all
        .chunks(n.max(1))
        .enumerate()
        .map(|(query, row)| row.iter().take(query + 1).map(rounded).collect())
        .collect())
}

/// What the hover calls a token; no two are the same.
fn name(token: &str, at: usize) -> String {
    format!("‘{}’ ({at})", labels::text(token))
}

fn panel(
    head: &str,
    model: &str,
    names: &[String],
    z: Vec<Vec<Option<f64>>>,
    [x, y]: &[String; 2],
    scale: bool,
) -> Box<dyn Trace> {
    HeatMap::new(names.to_vec(), names.to_vec(), z)
        .x_axis(x)
        .y_axis(y)
        .zmin(0.0)
        .zmax(1.0)
        .color_scale(theme::depth_scale())
        .show_scale(scale)
        .color_bar(theme::color_bar("probability"))
        .hover_on_gaps(false)
        .hover_template(format!("{head}: %{{y}} attends to %{{x}}: %{{z:.3f}}<extra>{model}</extra>"))
}

/// Columns share the key axis, rows the query axis. There may be more than plotly's types have: a template
/// styles all.
fn layout(rows: usize, columns: usize, size: usize, tokens: &[String]) -> Layout {
    let last = tokens.len() as f64 - 0.5;
    let keys = token_axis("key", "", tokens, size).range(vec![-0.5, last]);
    let mut queries = token_axis("query", labels::AIR, tokens, size).range(vec![last, -0.5]);
    let inner = rows * (size + GAP);
    // The first row's headings stand above it.
    let height = [0.0, 1.0 - (GAP - 8) as f64 / inner as f64];
    // plotly passes over a grid of one.
    if rows * columns == 1 {
        queries = queries.domain(&height);
    }
    let template = Template::new().layout(LayoutTemplate::new().x_axis(keys).y_axis(queries));
    let grid = panels::table([rows, columns], [0.1, GAP as f64 / (size + GAP) as f64], height);
    let bottom = below(tokens, size);
    theme::layout(inner + 32 + bottom)
        .margin(theme::margin(bottom).left(beside(tokens, size)))
        .hover_mode(HoverMode::Closest)
        .template(template)
        .grid(grid)
}

fn written(tokens: &[String], size: usize) -> bool {
    tokens.len() <= MAX_TOKENS && tokens.len() * TOKEN <= size
}

/// Letters of the longest label, 0 where tokens are not written.
fn letters(tokens: &[String], size: usize) -> usize {
    if written(tokens, size) { labels::letters(tokens) } else { 0 }
}

/// Pixels for what stands below the figure: keys written upright, and the title of their axis.
fn below(tokens: &[String], size: usize) -> usize {
    theme::MARGIN_BOTTOM + letters(tokens, size) * LETTER
}

/// Pixels for what stands left of the figure: queries, and the title of their axis.
fn beside(tokens: &[String], size: usize) -> usize {
    theme::MARGIN_LEFT.max(letters(tokens, size) * LETTER + labels::TITLE)
}

/// `air` stands before each token.
fn token_axis(title: &str, air: &str, tokens: &[String], size: usize) -> Axis {
    let n = tokens.len();
    let written = written(tokens, size);
    let every = [1, 2, 5, 10, 20, 50, 100].into_iter().find(|every| n <= 6 * every).unwrap_or(n / 4);
    let label = |at: usize| match written {
        true => format!("{air}{}", labels::text(&labels::cut(&tokens[at], labels::MAX_LETTERS))),
        false => at.to_string(),
    };
    let at: Vec<usize> = (0..n).step_by(if written { 1 } else { every.max(1) }).collect();
    let title = if written { format!("{title} token") } else { format!("{title} position") };
    theme::axis(&title)
        .type_(AxisType::Category)
        .tick_mode(TickMode::Array)
        .tick_values(at.iter().map(|at| *at as f64).collect())
        .tick_text(at.into_iter().map(label).collect::<Vec<_>>())
        .tick_font(Font::new().size(if written { 10 } else { 11 }))
        .tick_color(theme::GRID)
        .show_grid(false)
}
