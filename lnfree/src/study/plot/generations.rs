//! What models write, side by side.

use plotly::Plot;
use plotly::traces::table::{Align, Cells, Fill, Header, Line, Table};

use super::figure::Figure;
use super::theme;

/// The line height of a table's text and what a row adds to it, in pixels.
const LINE: usize = 17;
const PADDING: usize = 13;
/// The header's height, and room for a line that wraps where the estimate sees none.
const HEADER: usize = 32;
const SPARE: usize = LINE;
/// Below a table there is no axis.
const BOTTOM: usize = 8;
/// Pixels of a table and of one of its letters, on an ordinary page.
const TABLE_WIDTH: usize = 770;
const LETTER: f64 = 7.0;

/// How a model continues a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Generation {
    /// What to call the model.
    pub model: String,
    /// What it was given.
    pub prompt: String,
    /// What it wrote; with or without the prompt before it.
    pub text: String,
}

/// Texts as a table: models as columns, prompts as rows, the prompt bold before its continuation.
///
/// Several texts of one model for one prompt stand below each other.
///
/// ```
/// use lnfree::plot::{self, Generation};
///
/// let row = Generation { model: "LN-free".into(), prompt: "Once".into(), text: " upon a time".into() };
/// assert!(plot::generations(&[row]).to_json().contains("<b>Once</b> upon a time"));
/// ```
pub fn generations(rows: &[Generation]) -> Figure {
    let mut models: Vec<&str> = Vec::new();
    let mut lines: Vec<(&str, usize)> = Vec::new();
    let mut placed: Vec<(usize, usize, &Generation)> = Vec::new();
    for row in rows {
        let column = place(&mut models, row.model.as_str());
        let earlier = placed.iter().filter(|(c, _, r)| *c == column && r.prompt == row.prompt).count();
        placed.push((column, place(&mut lines, (row.prompt.as_str(), earlier)), row));
    }
    let mut cells = vec![vec![String::from("—"); lines.len()]; models.len()];
    let mut height = vec![1usize; lines.len()];
    let letters = ((TABLE_WIDTH / models.len().max(1)) as f64 / LETTER - 2.0).max(8.0) as usize;
    for (column, line, row) in placed {
        let continuation = row.text.strip_prefix(&row.prompt).unwrap_or(&row.text);
        cells[column][line] = format!("<b>{}</b>{}", flat(&row.prompt), flat(continuation));
        let n = row.prompt.chars().count() + continuation.chars().count();
        // Words are not cut: lines are not quite full.
        height[line] = height[line].max((1.05 * n as f64 / letters as f64).ceil() as usize);
    }
    let headings = models.iter().map(|model| format!("<b>{}</b>", theme::escape(model))).collect();
    let rows: usize = height.iter().map(|n| n * LINE + PADDING).sum();
    let mut plot = Plot::new();
    plot.add_trace(table(headings, cells));
    plot.set_layout(theme::layout(rows + HEADER + SPARE + 16 + BOTTOM).margin(theme::margin(BOTTOM)));
    plot.into()
}

/// Where `of` stands in `all`, at the end if it is new.
fn place<T: PartialEq>(all: &mut Vec<T>, of: T) -> usize {
    all.iter().position(|one| *one == of).unwrap_or_else(|| {
        all.push(of);
        all.len() - 1
    })
}

/// Line ends as signs: plotly's tables break lines by themselves, or at given places only.
fn flat(text: &str) -> String {
    theme::escape(text).replace('\n', " ↵ ")
}

fn table(headings: Vec<String>, cells: Vec<Vec<String>>) -> Box<Table<String, String>> {
    let line = || Line::new().color(theme::GRID).width(1.0);
    let fill = |color: &'static str| Fill::new().color(color);
    let header =
        Header::new(headings).align(Align::Left).height(HEADER as f64).line(line()).fill(fill(theme::FAINT));
    let cells = Cells::new(cells)
        .align(Align::Left)
        .height((LINE + PADDING) as f64)
        .line(line())
        .fill(fill("rgba(0,0,0,0)"));
    Table::new(header, cells)
}
