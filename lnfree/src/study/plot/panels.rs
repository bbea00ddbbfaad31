//! Several panels in one figure: the numbers of their axes, the grid that they stand in, the text above each.

use plotly::common::Anchor;
use plotly::layout::{Annotation, GridDomain, GridPattern, LayoutGrid, RowOrder};

/// What stands behind the letter of the `i`-th axis, counted from 0: the first one has no number.
pub fn number(i: usize) -> String {
    if i == 0 { String::new() } else { (i + 1).to_string() }
}

/// Text above a panel, from its left end on: `x` and `y` are what it is placed by, `paper` or `y2 domain`.
pub fn above(text: &str, x: &str, y: &str) -> Annotation {
    Annotation::new()
        .text(text)
        .show_arrow(false)
        .x_ref(x)
        .x(0.0)
        .x_anchor(Anchor::Left)
        .y_ref(y)
        .y(1.0)
        .y_anchor(Anchor::Bottom)
}

/// Panels one above the other, the lowest first, each with axes of its own; `gap` is the part of a panel's
/// place that is left free. plotly passes over a grid of one.
pub fn stack(n: usize, gap: f64, domain: GridDomain) -> LayoutGrid {
    LayoutGrid::new()
        .rows(n)
        .columns(1)
        .pattern(GridPattern::Independent)
        .row_order(RowOrder::BottomToTop)
        .y_gap(gap)
        .domain(domain)
}

/// Rows and columns of panels, the first row at the top, that share their axes; `gaps` are the parts of a
/// panel's width and height that are left free, `height` what the grid has of the figure's. plotly passes
/// over a grid of one.
pub fn table([rows, columns]: [usize; 2], [x_gap, y_gap]: [f64; 2], height: [f64; 2]) -> LayoutGrid {
    LayoutGrid::new()
        .rows(rows)
        .columns(columns)
        .pattern(GridPattern::Coupled)
        .row_order(RowOrder::TopToBottom)
        .x_gap(x_gap)
        .y_gap(y_gap)
        .domain(GridDomain::new().y(height.to_vec()))
}
