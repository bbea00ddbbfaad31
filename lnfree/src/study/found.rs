//! What an analysis found, in the shapes that figures and tables are made of.

use serde::{Deserialize, Serialize};

/// Numbers, maps, rankings, curves and texts, each of which is found again in other models by its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// What a reader has to know: one sentence each. Among them whether position 0 begins a text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Single numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<Number>,
    /// Numbers over two axes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<Map>,
    /// Numbers over one axis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Curve>,
    /// Named things in order, or that sum to something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rankings: Vec<Ranking>,
    /// Tokens with a number each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<MarkedText>,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// What it is.
    pub name: String,
    /// `None` where it is not finite.
    pub value: Option<f64>,
    /// 95% interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// `nats`, `%`; empty for a plain number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
}

/// An axis of a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// `layer`, `head`, `position`, …
    pub title: String,
    /// One for each row or column.
    pub labels: Vec<String>,
}

/// Numbers over two axes, for a heat map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// What the numbers are.
    pub name: String,
    /// As of [`Number`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// From top to bottom.
    pub rows: Axis,
    /// From left to right.
    pub columns: Axis,
    /// `[row][column]`; `None` where there is no number.
    pub values: Vec<Vec<Option<f64>>>,
    /// Whether 0 is the middle of the colours: effects, differences.
    pub signed: bool,
}

/// Numbers over one axis, for a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What the numbers are.
    pub name: String,
    /// As of [`Number`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The axis, with a label for each number.
    pub at: Axis,
    /// One for each label.
    pub values: Vec<Option<f64>>,
}

/// Named things with numbers, in the order in which they are to be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// What is ranked.
    pub name: String,
    /// What the things are: `head`, `neuron`, `component`.
    pub what: String,
    /// Heads of the columns of numbers.
    pub columns: Vec<String>,
    /// A thing and its numbers, one for each column.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
    /// What the first column adds up to, where it does: it is drawn as a waterfall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
}

/// Tokens with a number each, shown as text on colours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkedText {
    /// What the numbers are.
    pub name: String,
    /// As of [`Number`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// As the tokenizer writes them, spaces and all.
    pub tokens: Vec<String>,
    /// One for each token; `None` for a token without one.
    pub values: Vec<Option<f64>>,
}

/// A number, if it is finite.
pub(crate) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

impl Number {
    /// Without an interval.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &str) -> Number {
        Number { name: name.into(), value: finite(value), interval: None, unit: unit.into() }
    }

    /// With its 95% interval, left out if an end of it is not finite.
    pub(crate) fn with_interval(self, interval: [f64; 2]) -> Number {
        Number { interval: interval.iter().all(|end| end.is_finite()).then_some(interval), ..self }
    }
}

impl Axis {
    /// Labels 0, 1, …
    pub(crate) fn counted(title: &str, n: usize) -> Axis {
        Axis { title: title.into(), labels: (0..n).map(|at| at.to_string()).collect() }
    }
}

impl Map {
    /// Of numbers by layer (rows) and head, or whatever else `column` counts.
    pub(crate) fn by_layer(
        name: impl Into<String>,
        unit: &str,
        column: &str,
        values: &[Vec<f64>],
        signed: bool,
    ) -> Map {
        Map {
            name: name.into(),
            unit: unit.into(),
            rows: Axis::counted("layer", values.len()),
            columns: Axis::counted(column, values.first().map_or(0, Vec::len)),
            values: values.iter().map(|row| row.iter().map(|value| finite(*value)).collect()).collect(),
            signed,
        }
    }
}
