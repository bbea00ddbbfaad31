//! What one request found in all models, side by side, as a piece of HTML.

use maud::{Markup, html};

use super::Findings;
use super::tables::{self, any_interval, quantity, together, written};
use crate::Result;
use crate::study::found::{Curve, Map, MarkedText, Ranking};
use crate::study::plot::{self, Plot};
use crate::study::report::{Cell, figure, plain_table};

/// Rows of a ranking that a table has.
const TOP: usize = 10;
/// Pixels that a panel of heat maps needs, and a figure with bars or lines.
const PANEL: usize = 190;
const FIGURE: usize = 480;

/// The section of one request; `id` names it in the page. `models` are in the order of tables.
///
/// # Errors
/// If findings do not fit their axes.
pub(super) fn section(models: &[&Findings], id: &str) -> Result<Markup> {
    let Some(request) = models.first().map(|model| &model.request) else { return Ok(html! {}) };
    let drawn = [maps(models, id)?, curves(models, id)?, rankings(models, id)?];
    Ok(html! {
        section id=(id) {
            h2 { (request.title()) }
            p.note { "Computed on " (request.to_string()) "." }
            (numbers(models))
            @for piece in &drawn { (piece) }
            (texts(models))
            (notes(models))
        }
    })
}

/// One line a number, one column a model.
fn numbers(models: &[&Findings]) -> Markup {
    let (head, rows) = tables::numbers(models);
    html! {
        @if !rows.is_empty() { (plain_table(&head, 1, &rows)) }
        @if any_interval(models) { p.note { "In brackets: 95% intervals." } }
    }
}

/// A heading; with the models' names where it is not about all of them.
fn heading<T>(name: &str, group: &[(&str, T)], models: &[&Findings]) -> Markup {
    let whose: Vec<&str> = group.iter().map(|(label, _)| *label).collect();
    html! {
        h3 {
            (name)
            @if whose.len() < models.len() { " " span.soft { (whose.join(", ")) } }
        }
    }
}

/// A figure that scrolls where the page is narrower than `least` pixels.
fn drawn(id: &str, description: &str, least: usize, plot: &Plot) -> Markup {
    html! {
        div.scroll {
            div.wide style={ "min-width: " (least) "px" } { (figure(id, description, plot)) }
        }
    }
}

fn maps(models: &[&Findings], id: &str) -> Result<Markup> {
    let same =
        |a: &Map, b: &Map| (&a.name, &a.unit, &a.rows, &a.columns) == (&b.name, &b.unit, &b.rows, &b.columns);
    let mut pieces = Vec::new();
    for (i, group) in together(models, |model| model.found.maps.as_slice(), same).iter().enumerate() {
        let Map { name, unit, rows, columns, .. } = group[0].1;
        let name = quantity(name, unit);
        let description = format!("{name} by {} and {}", rows.title, columns.title);
        let least = 120 + PANEL * group.len().min(3);
        let plot = plot::heat_maps(group)?;
        let piece = drawn(&format!("{id}-map-{i}"), &description, least, &plot);
        pieces.push(html! { (heading(&name, group, models)) (piece) });
    }
    Ok(html! { @for piece in &pieces { (piece) } })
}

fn curves(models: &[&Findings], id: &str) -> Result<Markup> {
    let same = |a: &Curve, b: &Curve| (&a.name, &a.unit, &a.at) == (&b.name, &b.unit, &b.at);
    let mut pieces = Vec::new();
    for (i, group) in together(models, |model| model.found.curves.as_slice(), same).iter().enumerate() {
        let Curve { name, unit, at, .. } = group[0].1;
        let name = quantity(name, unit);
        let plot = plot::curves(group)?;
        let piece = drawn(&format!("{id}-curve-{i}"), &format!("{name} by {}", at.title), FIGURE, &plot);
        pieces.push(html! { (heading(&name, group, models)) (piece) });
    }
    Ok(html! { @for piece in &pieces { (piece) } })
}

/// Those with a total as waterfalls, the others as tables.
fn rankings(models: &[&Findings], id: &str) -> Result<Markup> {
    let adds_up = |ranking: &Ranking| ranking.total.is_some_and(f64::is_finite);
    let same = |a: &Ranking, b: &Ranking| (&a.name, adds_up(a)) == (&b.name, adds_up(b));
    let mut pieces = Vec::new();
    for (i, group) in together(models, |model| model.found.rankings.as_slice(), same).iter().enumerate() {
        let name = &group[0].1.name;
        let piece = if adds_up(group[0].1) {
            let description = format!("{name}: its parts and their sum");
            drawn(&format!("{id}-sum-{i}"), &description, FIGURE, &*plot::waterfall(group)?)
        } else {
            html! { div.side { @for (label, ranking) in group { (top(label, ranking)) } } }
        };
        pieces.push(html! { (heading(name, group, models)) (piece) });
    }
    Ok(html! { @for piece in &pieces { (piece) } })
}

fn top(label: &str, ranking: &Ranking) -> Markup {
    let number = |value: &Option<f64>| Cell::from(value.map_or("–".into(), written));
    let row = |(name, numbers): &(String, Vec<Option<f64>>)| -> Vec<Cell> {
        std::iter::once(Cell::from(name.as_str())).chain(numbers.iter().map(number)).collect()
    };
    let columns = ranking.columns.iter().map(String::as_str);
    let head: Vec<&str> = std::iter::once(ranking.what.as_str()).chain(columns).collect();
    let rows: Vec<Vec<Cell>> = ranking.rows.iter().take(TOP).map(row).collect();
    html! {
        div {
            p.soft {
                (label)
                @if ranking.rows.len() > TOP { ", the first " (TOP) " of " (ranking.rows.len()) }
            }
            (plain_table(&head, 1, &rows))
        }
    }
}

fn texts(models: &[&Findings]) -> Markup {
    let same = |a: &MarkedText, b: &MarkedText| (&a.name, &a.unit) == (&b.name, &b.unit);
    let groups = together(models, |model| model.found.texts.as_slice(), same);
    html! {
        @for group in &groups {
            (heading(&quantity(&group[0].1.name, &group[0].1.unit), group, models))
            @for (label, text) in group {
                p.soft { (label) }
                p.tokens { (marked(text, largest(group))) }
            }
        }
    }
}

/// The largest absolute value.
fn largest(texts: &[(&str, &MarkedText)]) -> f64 {
    let values = texts.iter().flat_map(|(_, text)| text.values.iter().flatten());
    values.map(|value| value.abs()).filter(|value| value.is_finite()).fold(0.0, f64::max)
}

/// Tokens on colours, blue above 0 and orange below it; `most` has the strongest.
fn marked(text: &MarkedText, most: f64) -> Markup {
    let color = |value: f64| {
        let rgb = if value < 0.0 { "217,96,26" } else { "31,131,198" };
        let strength = if most > 0.0 { (0.65 * value.abs() / most).min(0.65) } else { 0.0 };
        format!("background: rgba({rgb},{strength:.3})")
    };
    let title = |value: f64| match text.unit.as_str() {
        unit @ ("" | "%") => format!("{}{unit}", written(value)),
        unit => format!("{} {unit}", written(value)),
    };
    let values = text.values.iter().copied().chain(std::iter::repeat(None));
    html! {
        @for (token, value) in text.tokens.iter().zip(values) {
            span style=[value.map(color)] title=[value.map(title)] { (token.replace('\n', "↵\n")) }
        }
    }
}

fn notes(models: &[&Findings]) -> Markup {
    let notes = tables::notes(models);
    html! {
        @if !notes.is_empty() {
            ul.notes {
                @for (whose, note) in &notes {
                    li { @if let Some(whose) = whose { b { (whose) ": " } } (note) }
                }
            }
        }
    }
}
