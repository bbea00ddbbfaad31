//! What an analysis found in several models, drawn or as a table, by the names that findings have.

use super::Findings;
use super::tables;
use crate::study::found::{Curve, Found, Map, Number};
use crate::study::plot::{self, Figure};
use crate::{Error, Result};

/// The map called `name` of every model, side by side: see [`plot::heat_maps`].
///
/// # Errors
/// When no model has a map of that name, which says which there are; or their axes differ.
pub fn map_figure(findings: &[Findings], name: &str) -> Result<Figure> {
    let maps = called(findings, name, |found| found.maps.as_slice(), |map: &Map| map.name.as_str())?;
    plot::heat_maps(&maps)
}

/// The curve called `name` of every model in one figure: see [`plot::curves`].
///
/// # Errors
/// When no model has a curve of that name, which says which there are.
pub fn curve_figure(findings: &[Findings], name: &str) -> Result<Figure> {
    let curves = called(findings, name, |found| found.curves.as_slice(), |of: &Curve| of.name.as_str())?;
    plot::curves(&curves)
}

/// The numbers called `names` of every model with their 95% intervals, and beside them `published` ones of
/// labelled models: see [`plot::numbers_with_intervals`].
///
/// # Errors
/// When no model has a number of one of the names, which says which there are.
pub fn number_figure(findings: &[Findings], names: &[&str], published: &[(&str, Number)]) -> Result<Figure> {
    let mut measured: Vec<(&str, &Number)> = Vec::new();
    for name in names {
        let of_name =
            called(findings, name, |found| found.numbers.as_slice(), |of: &Number| of.name.as_str())?;
        measured.extend(of_name);
    }
    let published: Vec<(&str, &Number)> = published.iter().map(|(label, number)| (*label, number)).collect();
    Ok(plot::numbers_with_intervals(&measured, &published))
}

/// All numbers as text, one line a number and one column a model, with 95% intervals in brackets.
pub fn number_table(findings: &[Findings]) -> String {
    let models: Vec<&Findings> = findings.iter().collect();
    let (head, rows) = tables::numbers(&models);
    let mut lines: Vec<Vec<&str>> = vec![head];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| cell.text.as_str()).collect()));
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=findings.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate();
        // Names begin at the left, numbers end at the right.
        text.extend(cells.map(|(at, (cell, &width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        }));
        text.push('\n');
    }
    text
}

/// What is called `name` among the `things` of each model, with the models' labels.
fn called<'a, T: 'a>(
    findings: &'a [Findings],
    name: &str,
    things: impl Fn(&'a Found) -> &'a [T],
    name_of: impl Fn(&'a T) -> &'a str,
) -> Result<Vec<(&'a str, &'a T)>> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for one in findings {
        for thing in things(&one.found) {
            match name_of(thing) {
                this if this == name => found.push((one.label.as_str(), thing)),
                other if !others.contains(&other) => others.push(other),
                _ => {}
            }
        }
    }
    if found.is_empty() {
        let there = others.join("; ");
        return Err(Error::invalid(format!("nothing found is called ‘{name}’; there are: {there}")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::Request;
    use super::*;
    use crate::study::found::Axis;

    fn findings(label: &str, rate: f64) -> Findings {
        let rate_of_all = Number::new("sink rate", rate, "%").with_interval([rate - 1.0, rate + 1.0]);
        let curve = Curve {
            name: "norm".into(),
            unit: String::new(),
            at: Axis::counted("layer", 2),
            values: vec![Some(rate), None],
        };
        Findings {
            request: Request::Circuits { heads: 4 },
            label: label.into(),
            model: "m".into(),
            original: None,
            seconds: 1.0,
            found: Found {
                numbers: vec![rate_of_all, Number::new("attention", 0.5, "")],
                maps: vec![Map::by_layer("rate by head", "%", "head", &[vec![rate, 2.0]], false)],
                curves: vec![curve],
                ..Found::default()
            },
        }
    }

    #[test]
    fn figures_are_of_what_is_called_so_in_every_model() {
        let both = [findings("original", 13.5), findings("LN-free", 4.5)];
        for figure in [map_figure(&both, "rate by head"), curve_figure(&both, "norm")] {
            let drawn = figure.unwrap().to_json();
            for of_both in ["original", "LN-free", "13.5"] {
                assert!(drawn.contains(of_both), "{of_both}: {drawn}");
            }
        }
        let published = [("GPT-2 medium original", Number::new("sink rate", 55.3, "%"))];
        let drawn = number_figure(&both, &["sink rate"], &published).unwrap().to_json();
        assert!(drawn.contains("sink rate, %") && drawn.contains("GPT-2 medium original"), "{drawn}");
        assert!(!drawn.contains("attention"), "{drawn}");
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let one = [findings("original", 13.5)];
        for (refused, there) in [
            (map_figure(&one, "x"), "rate by head"),
            (curve_figure(&one, "x"), "norm"),
            (number_figure(&one, &["sink rate", "x"], &[]), "sink rate; attention"),
        ] {
            let refused = refused.err().unwrap().to_string();
            assert!(refused.contains("‘x’") && refused.ends_with(there), "{refused}");
        }
    }

    #[test]
    fn the_table_has_a_column_a_model() {
        let table = number_table(&[findings("original", 13.5), findings("LN-free", 4.5)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "sink rate, %  13.50 [12.50, 14.50]  4.5000 [3.5000, 5.5000]");
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["original", "LN-free"]);
        assert_eq!(words[2], ["attention", "0.5000", "0.5000"]);
        assert!(lines.iter().all(|line| line.chars().count() == lines[1].chars().count()), "{table}");
        assert_eq!(number_table(&[]), "\n");
    }
}
