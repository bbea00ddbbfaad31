//! Differences between models on the same tokens, sequence by sequence, with intervals.

use serde::Serialize;

use crate::eval::paired_difference;
use crate::plot::{EvalRow, ModelName, Role, distinct_names};

/// How much higher one model's loss is than another's on the same sequences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// `a − b`.
    pub label: String,
    /// The data set's name.
    pub dataset: String,
    /// Mean difference, nats per token.
    pub mean: f64,
    /// Bootstrap 95% interval over sequences.
    pub interval: [f64; 2],
    /// Sequences that both were evaluated on.
    pub n_sequences: usize,
}

/// Vanilla − original, LN-free − original and LN-free − vanilla of every family on every data set, where both were
/// evaluated on the same tokens and left the losses of their sequences; and one sentence for each pair that could not be
/// compared although it should be.
pub fn differences(rows: &[EvalRow]) -> (Vec<Difference>, Vec<String>) {
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let named: Vec<(&EvalRow, ModelName)> = rows.iter().zip(distinct_names(rows)).collect();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (row, name) in &named {
        let place = (name.group.as_str(), row.dataset.as_str());
        if seen.contains(&place) {
            continue;
        }
        seen.push(place);
        let of = |role| {
            let there = move |(r, n): &&(&EvalRow, ModelName)| {
                (n.group.as_str(), r.dataset.as_str(), n.role) == (place.0, place.1, role)
            };
            named.iter().filter(there)
        };
        for (base, role) in
            [(Role::Original, Role::Vanilla), (Role::Original, Role::LnFree), (Role::Vanilla, Role::LnFree)]
        {
            let Some(b) = of(base).next() else { continue };
            for a in of(role) {
                match difference(a, b) {
                    Ok(found) => out.extend(found),
                    Err(why) => notes.push(why),
                }
            }
        }
    }
    (out, notes)
}

/// `a` less `b`; `None` where one of them left no losses of its sequences.
fn difference(a: &(&EvalRow, ModelName), b: &(&EvalRow, ModelName)) -> Result<Option<Difference>, String> {
    let label = format!("{} − {}", a.1, b.1.short());
    let (Some(of_a), Some(of_b)) = (&a.0.sequences, &b.0.sequences) else { return Ok(None) };
    let cannot = |why: &str| format!("{label} on {}: {why}.", a.0.dataset_name());
    let tokens = (&a.0.details.data_sha256, &b.0.details.data_sha256);
    if let (Some(of_a), Some(of_b)) = tokens
        && of_a != of_b
    {
        return Err(cannot("they were evaluated on different tokens"));
    }
    let found = paired_difference(of_a, of_b).map_err(|error| cannot(&error.to_string()))?;
    Ok(Some(Difference {
        dataset: a.0.dataset.clone(),
        mean: found.mean,
        interval: found.interval,
        n_sequences: found.n_sequences,
        label,
    }))
}
