//! Labels from data at axes: as many as there is room for, cut where they are long, upright where they are
//! many.

use plotly::common::{Font, TickMode};
use plotly::layout::Axis;

use super::theme;

/// Letters of a label that are written; the hover has all of them.
pub const MAX_LETTERS: usize = 20;
/// Labels of no more letters than this are left out rather than turned.
const SHORT: usize = 4;
/// Pixels of a letter, and from one line to the next.
const LETTER: usize = 7;
const LINE: usize = 14;
/// What stands before labels that end at their axis: plotly leaves two pixels to the title beside them.
pub const AIR: &str = "\u{a0}\u{a0}";
/// Pixels that the title of an axis takes beside such labels.
pub const TITLE: usize = 44;
/// Letters of a line of an axis' title.
const TITLE_LETTERS: usize = 42;

/// Labels of the places 0, 1, … of an axis, those that there is room for.
pub struct Ticks {
    at: Vec<f64>,
    texts: Vec<String>,
    letters: usize,
    upright: bool,
}

impl Ticks {
    /// Along an axis from left to right, of that many pixels.
    pub fn across(labels: &[String], pixels: usize) -> Ticks {
        let flat = letters(labels) * LETTER + 8;
        let upright = letters(labels) > SHORT && labels.len() * flat > pixels;
        Ticks::new(labels, if upright { LINE } else { flat }, pixels, upright)
    }

    /// Along an axis from top to bottom.
    pub fn down(labels: &[String], pixels: usize) -> Ticks {
        let ticks = Ticks::new(labels, LINE, pixels, false);
        let texts = ticks.texts.iter().map(|text| format!("{AIR}{text}")).collect();
        Ticks { texts, ..ticks }
    }

    fn new(labels: &[String], each: usize, pixels: usize, upright: bool) -> Ticks {
        let n = labels.len();
        let every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
        let every = every.into_iter().find(|every| n.div_ceil(*every) * each <= pixels).unwrap_or(n.max(1));
        let at = || (0..n).step_by(every);
        Ticks {
            at: at().map(|at| at as f64).collect(),
            texts: at().map(|at| text(&cut(&labels[at], MAX_LETTERS))).collect(),
            letters: letters(labels),
            upright,
        }
    }

    /// The axis with these labels.
    pub fn on(&self, axis: Axis) -> Axis {
        let axis = axis
            .tick_mode(TickMode::Array)
            .tick_values(self.at.clone())
            .tick_text(self.texts.clone())
            .tick_font(Font::new().size(11));
        if self.upright { axis.tick_angle(-90.0) } else { axis }
    }

    /// Pixels below a figure that has them below it.
    pub fn below(&self) -> usize {
        theme::MARGIN_BOTTOM + if self.upright { self.letters * LETTER } else { 0 }
    }

    /// Pixels left of a figure that has them there, with the axis' title: plotly moves that no further than
    /// the margin goes.
    pub fn beside(&self) -> usize {
        theme::MARGIN_LEFT.max(self.letters * LETTER + TITLE)
    }
}

/// Letters of the longest label as it is written.
pub fn letters(labels: &[String]) -> usize {
    labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).min(MAX_LETTERS)
}

/// A label of at most so many letters.
pub fn cut(label: &str, letters: usize) -> String {
    if label.chars().count() <= letters {
        return label.into();
    }
    label.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// A label as plotly shows it, on one line.
pub fn text(label: &str) -> String {
    theme::escape(label).replace(['\n', '\r'], "↵")
}

/// A number's unit as it stands behind it.
pub fn behind(unit: &str) -> String {
    match unit {
        "" | "%" => unit.into(),
        unit => format!(" {}", text(unit)),
    }
}

/// What numbers are and their unit, for the title of an axis, on as many lines as it takes.
pub fn quantity(name: &str, unit: &str) -> String {
    let whole = if unit.is_empty() { name.to_string() } else { format!("{name}, {unit}") };
    let mut lines: Vec<String> = Vec::new();
    for word in whole.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < TITLE_LETTERS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines.iter().map(|line| text(line)).collect::<Vec<_>>().join("<br>")
}
