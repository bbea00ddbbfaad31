//! Differences between models on the same tokens, sequence by sequence, with intervals.

use crate::base::device::cores;
use crate::eval::paired_difference;
use crate::study::plot::{Difference, EvalRow, ModelName, Role, distinct_names};

/// An evaluation and the name that its model goes by.
type Named<'a> = (&'a EvalRow, ModelName);
/// What is compared, and with what.
type Pair<'a> = (&'a Named<'a>, &'a Named<'a>);

/// Vanilla − original, LN-free − original and LN-free − vanilla of every family on every data set, where both
/// were evaluated on the same tokens and left the losses of their sequences; models whose labels tell no such
/// role are compared with the first of their data set. And one sentence for each pair that could not be
/// compared although it should be.
pub fn differences(rows: &[EvalRow]) -> (Vec<Difference>, Vec<String>) {
    let named: Vec<Named> = rows.iter().zip(distinct_names(rows)).collect();
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    for found in all(&pairs(&named)) {
        match found {
            Ok(difference) => out.extend(difference),
            Err(why) => notes.push(why),
        }
    }
    (out, notes)
}

/// What is to be compared, family by family and data set by data set.
fn pairs<'a>(named: &'a [Named<'a>]) -> Vec<Pair<'a>> {
    let mut out = Vec::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (row, name) in named {
        let place = (name.group.as_str(), row.dataset.as_str());
        if seen.contains(&place) {
            continue;
        }
        seen.push(place);
        let of = |role| {
            named.iter().filter(move |(row, name)| {
                (name.group.as_str(), row.dataset.as_str(), name.role) == (place.0, place.1, role)
            })
        };
        for (base, role) in
            [(Role::Original, Role::Vanilla), (Role::Original, Role::LnFree), (Role::Vanilla, Role::LnFree)]
        {
            out.extend(of(base).next().into_iter().flat_map(|b| of(role).map(move |a| (a, b))));
        }
    }
    out.extend(others(named, &out));
    out
}

/// Models that are in no pair so far, because it or the first model of its data set has a label that tells no
/// role, each with that first.
fn others<'a>(named: &'a [Named<'a>], pairs: &[Pair<'a>]) -> Vec<Pair<'a>> {
    let alone = |row: &EvalRow| !pairs.iter().any(|(a, b)| std::ptr::eq(a.0, row) || std::ptr::eq(b.0, row));
    let with_first = |a: &'a Named<'a>| {
        let first = named.iter().find(|(row, _)| row.dataset == a.0.dataset)?;
        let unknown = a.1.role == Role::Other || first.1.role == Role::Other;
        (!std::ptr::eq(a, first) && unknown && alone(a.0)).then_some((a, first))
    };
    named.iter().filter_map(with_first).collect()
}

/// [`difference`] of every pair, in order, on all cores: each resamples up to ten thousand sequences two
/// thousand times.
fn all(pairs: &[(&Named, &Named)]) -> Vec<Result<Option<Difference>, String>> {
    let share = pairs.len().div_ceil(cores()).max(1);
    std::thread::scope(|scope| {
        let part =
            |part: &'_ [(&Named, &Named)]| part.iter().map(|(a, b)| difference(a, b)).collect::<Vec<_>>();
        let threads: Vec<_> = pairs.chunks(share).map(|chunk| scope.spawn(move || part(chunk))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<_>>| match thread.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().flat_map(join).collect()
    })
}

/// `a` less `b`; `None` where one of them left no losses of its sequences.
fn difference(a: &Named, b: &Named) -> Result<Option<Difference>, String> {
    let base = if a.1.group == b.1.group { b.1.short() } else { b.1.to_string() };
    let label = format!("{} − {base}", a.1);
    let (Some(of_a), Some(of_b)) = (&a.0.sequences, &b.0.sequences) else { return Ok(None) };
    let cannot = |why: &str| format!("{label} on {}: {why}.", a.0.dataset_name());
    let tokens = (&a.0.details.data_sha256, &b.0.details.data_sha256);
    if let (Some(of_a), Some(of_b)) = tokens
        && of_a != of_b
    {
        return Err(cannot("they were evaluated on different tokens"));
    }
    let difference = paired_difference(of_a, of_b).map_err(|error| cannot(&error.to_string()))?;
    Ok(Some(Difference { label, dataset: a.0.dataset.clone(), difference }))
}
