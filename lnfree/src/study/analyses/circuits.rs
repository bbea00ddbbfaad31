//! What the weights of heads say: copying, composition, and what is read and raised.

use super::Subject;
use super::words::word;
use crate::Result;
use crate::config::norm::LnSite;
use crate::data::Tokenizer;
use crate::interp::{Circuits, Composition, random_composition};
use crate::study::found::{Axis, Found, Map, Number, Ranking, finite};

/// Pairs of heads that are named.
const PAIRS: usize = 10;
/// Heads at most of whose pairs there are maps.
const MAPPED: usize = 400;
/// LNs that are named.
const NAMED: usize = 4;
/// Tokens of a direction.
const TOKENS: i64 = 6;
/// Pairs of random heads.
const SAMPLES: usize = 20;
/// The same chance for the same shape.
const SEED: u64 = 2357;

const NO_TEXT: &str = "These are of the weights alone: no text is read, so there is no position 0.";
const COPYING: &str = "Copying is Σ λ/Σ |λ| of the eigenvalues of W_E W_V W_O W_U, −1 to 1: near 1 where a \
                       head raises the tokens that it attends to.";
const EXACT: &str =
    "Every LN divides by a constant or is not there: the model computes with these very matrices.";

/// Copying scores of heads, composition scores of pairs of heads less what unrelated heads have, and the
/// strongest direction of each of the `heads` heads that copy most, in tokens.
///
/// # Errors
/// If eigenvalues or singular values are not found.
pub(super) fn find(subject: &Subject, heads: usize) -> Result<Found> {
    let (circuits, config) = (Circuits::of(subject.model(), subject.ln())?, &subject.model().config);
    let chance = random_composition(config.n_embd, config.n_embd / config.n_head, SAMPLES, SEED)?;
    let copying = circuits.copying_scores()?;
    let composition = format!(
        "Composition is ‖A B‖/(‖A‖ ‖B‖) of what the earlier head writes and the later one reads, less the \
         {chance:.4} that random heads of this shape have."
    );
    let mut found = Found {
        notes: vec![NO_TEXT.into(), exactness(&circuits), COPYING.into(), composition],
        numbers: vec![
            Number::new("LNs left out", circuits.left_out.len() as f64, ""),
            Number::new("composition of random heads", chance, ""),
        ],
        maps: vec![Map::by_layer("copying", "", "head", &copying, true)],
        ..Found::default()
    };
    for (kind, name) in [(Composition::Q, "Q"), (Composition::K, "K"), (Composition::V, "V")] {
        composed(&circuits, kind, name, chance, &mut found)?;
    }
    if copying.iter().map(Vec::len).sum::<usize>() > MAPPED {
        found.notes.push(format!("Maps of pairs are left out, with more than {MAPPED} heads."));
    }
    found.rankings.push(directions(&circuits, &copying, heads, subject.tokenizer().ok())?);
    Ok(found)
}

/// Whether the model computes with the very matrices.
fn exactness(circuits: &Circuits) -> String {
    if circuits.exact() {
        return EXACT.into();
    }
    let sites = &circuits.left_out;
    let named: Vec<String> = sites.iter().take(NAMED).map(LnSite::to_string).collect();
    let more = match sites.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = named.join(", ");
    format!("Division by the scale of the run is in no matrix, and is left out at {named}{more}.")
}

/// The map of pairs of heads, and the pairs that compose most.
fn composed(
    circuits: &Circuits,
    kind: Composition,
    name: &str,
    chance: f64,
    found: &mut Found,
) -> Result<()> {
    let scores = circuits.composition_scores(kind)?;
    let n_head = scores.size()[1];
    let n = scores.size()[0] * n_head;
    let scores = Vec::<Vec<f64>>::try_from(scores.f_reshape([n, n])?)?;
    let n_head = n_head as usize;
    let labels: Vec<String> = (0..n as usize).map(|at| label(at / n_head, at % n_head)).collect();
    let later = |earlier: usize, head: usize| head / n_head > earlier / n_head;
    let mut pairs = Vec::new();
    for (earlier, row) in scores.iter().enumerate() {
        let heads = row.iter().enumerate().filter(|(head, _)| later(earlier, *head));
        let less = heads.map(|(head, score)| (earlier, head, score - chance));
        pairs.extend(less.filter(|(_, _, score)| score.is_finite()));
    }
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    let most = pairs.iter().take(PAIRS);
    let most = most.map(|(earlier, head, score)| {
        (format!("{} → {}", labels[*earlier], labels[*head]), vec![finite(*score)])
    });
    found.rankings.push(Ranking {
        name: format!("{name}-composition, strongest"),
        what: "pair of heads".into(),
        columns: vec!["composition".into()],
        rows: most.collect(),
        total: None,
    });
    if labels.len() > MAPPED {
        return Ok(());
    }
    let values = scores.iter().enumerate().map(|(earlier, row)| {
        let row = row.iter().enumerate();
        row.map(|(head, score)| finite(score - chance).filter(|_| later(earlier, head))).collect()
    });
    let values: Vec<Vec<Option<f64>>> = values.collect();
    found.maps.push(Map {
        name: format!("{name}-composition"),
        unit: String::new(),
        rows: Axis { title: "earlier head".into(), labels: labels.clone() },
        columns: Axis { title: "later head".into(), labels },
        values,
        signed: true,
    });
    Ok(())
}

/// The strongest direction of each of the `n` heads that copy most.
fn directions(
    circuits: &Circuits,
    copying: &[Vec<f64>],
    n: usize,
    tokenizer: Option<&Tokenizer>,
) -> Result<Ranking> {
    let heads = copying.iter().enumerate();
    let heads = heads.flat_map(|(layer, scores)| {
        scores.iter().enumerate().map(move |(head, score)| (layer, head, *score))
    });
    let mut heads: Vec<(usize, usize, f64)> = heads.collect();
    heads.sort_by(|a, b| b.2.total_cmp(&a.2));
    let said = |tokens: &[(i64, f64)]| -> String {
        let tokens = tokens.iter().map(|(id, _)| match tokenizer.map(|tokenizer| word(tokenizer, *id)) {
            Some(Ok(said)) => format!("{said:?}"),
            // Of a padded vocabulary, or without a tokenizer.
            Some(Err(_)) | None => id.to_string(),
        });
        tokens.collect::<Vec<String>>().join(" ")
    };
    let tokens = TOKENS.min(circuits.w_e.size()[0]);
    let mut rows = Vec::new();
    for (layer, head, score) in heads.into_iter().take(n) {
        for direction in circuits.ov_directions(layer, head as i64, 1, tokens)? {
            let (reads, raises) = (said(&direction.reads), said(&direction.raises));
            let name = format!("{} reads {reads}, raises {raises}", label(layer, head));
            rows.push((name, vec![finite(score)]));
        }
    }
    Ok(Ranking {
        name: "strongest direction of the heads that copy most".into(),
        what: "head".into(),
        // Singular values have the scale of an LN in them, or not, and are not comparable.
        columns: vec!["copying".into()],
        rows,
        total: None,
    })
}

fn label(layer: usize, head: usize) -> String {
    format!("L{layer}H{head}")
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn weights_are_exact_without_ln_and_say_so() {
        for (name, exact) in [("nano", false), ("nano_LNFree200", true)] {
            let subject = Subject::load("a model", name, None, Some("nano"), Device::Cpu).unwrap();
            let found = find(&subject, 2).unwrap();
            assert_eq!(found.numbers[0].value == Some(0.0), exact, "{name}: {:?}", found.numbers);
            assert_eq!(found.notes[1] == EXACT, exact, "{name}: {}", found.notes[1]);
            assert!(found.maps[0].values.iter().flatten().all(|score| score.unwrap().abs() <= 1.0 + 1e-6));
            let chance = found.numbers[1].value.unwrap();
            for map in &found.maps[1..] {
                assert_eq!((map.rows.labels.len(), map.columns.labels.len()), (24, 24));
                // Only what heads of later blocks read.
                let scored = map.values.iter().flatten().flatten().count();
                assert_eq!(scored, 15 * 16, "{name}: {}", map.name);
                let within = |less: &f64| (-1e-6..=1.0 + 1e-6).contains(&(less + chance));
                assert!(map.values.iter().flatten().flatten().all(within), "{name}: {}", map.name);
            }
            let names: Vec<&str> = found.rankings.iter().map(|ranking| ranking.name.as_str()).collect();
            assert_eq!(names.len(), 4, "{names:?}");
            let directions = &found.rankings[3].rows;
            assert_eq!(directions.len(), 2);
            assert!(directions[0].1[0] >= directions[1].1[0], "{directions:?}");
            assert!(directions[0].0.contains("reads \""), "{}", directions[0].0);
        }
    }
}
