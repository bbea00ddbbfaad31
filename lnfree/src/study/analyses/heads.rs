//! Which heads look at the token before, at the same token earlier, and at what came after it.

use tch::Tensor;

use super::Subject;
use super::samples::{mean_of, portions};
use crate::interp::{DetectOptions, ErrorMeasure, HeadKind, HeadScores, RepeatedTokens, detect_head};
use crate::study::found::{Found, Map, Number, Ranking, finite};
use crate::{Error, Result};

/// What is looked for, in the order of the results.
const KINDS: [(&str, HeadKind); 3] = [
    ("previous token", HeadKind::PreviousToken),
    ("duplicate token", HeadKind::DuplicateToken),
    ("induction", HeadKind::Induction),
];
/// How TransformerLens' `detect_head` compares.
const MEASURES: [(&str, ErrorMeasure); 2] = [("mul", ErrorMeasure::Mul), ("abs", ErrorMeasure::Abs)];
/// Heads of a ranking.
const SHOWN: usize = 5;

/// A score of every head, `[layer][head]`, by its name.
type Scores = Vec<(String, Vec<Vec<f64>>)>;

/// The [`HeadScores`] of random tokens said twice, what TransformerLens' [`detect_head`] says of them, and
/// the losses of either time.
pub(super) fn find(subject: &Subject, sequences: usize, period: usize, seed: u64) -> Result<Found> {
    let config = &subject.model().config;
    let longest = config.block_size / 2;
    if period < 2 || period > longest as usize {
        return Err(Error::invalid(format!(
            "{period} tokens said twice: {} has {} positions, so it takes 2 to {longest}",
            subject.name, config.block_size
        )));
    }
    let tokens = RepeatedTokens::new(sequences, period, config.vocab_size, subject.eot(), seed)?;
    let scores = scores(subject, &tokens)?;
    let mut found = Found {
        notes: vec![
            subject.beginning(&tokens.ids)?,
            "A score is the mean attention to that one place, as TransformerLens has it: for induction the \
             first of the queries, the last token of the first time, has but position 0 to look at. Those of \
             detect_head are of all of the pattern, position 0 included."
                .into(),
        ],
        numbers: losses(subject, &tokens)?,
        maps: scores.iter().map(|(name, by)| Map::by_layer(name.as_str(), "", "head", by, false)).collect(),
        ..Found::default()
    };
    let mut best = Vec::new();
    for ((kind, _), (_, by_head)) in KINDS.iter().zip(&scores) {
        let mut heads = ranked(by_head);
        if let Some((head, score)) = heads.first() {
            found.numbers.push(Number::new(format!("best {kind} score"), *score, ""));
            best.push(format!("{kind} {head} ({score:.3})"));
        }
        heads.truncate(SHOWN);
        found.rankings.push(Ranking {
            name: format!("{kind} heads"),
            what: "head".into(),
            columns: vec!["score".into()],
            rows: heads.into_iter().map(|(head, score)| (head, vec![finite(score)])).collect(),
            total: None,
        });
    }
    found.notes.push(format!("Best heads: {}.", best.join(", ")));
    Ok(found)
}

/// Losses of either time, with intervals over sequences.
fn losses(subject: &Subject, tokens: &RepeatedTokens) -> Result<Vec<Number>> {
    let sequences = (0..tokens.ids.size()[0]).map(|row| {
        let one = part(tokens, tokens.ids.f_narrow(0, row, 1)?);
        one.losses(subject.model(), subject.ln())
    });
    let (first, second): (Vec<f64>, Vec<f64>) = sequences.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let gained: Vec<f64> = first.iter().zip(&second).map(|(first, second)| first - second).collect();
    Ok(vec![
        mean_of("loss, first time", &first, "nats"),
        mean_of("loss, second time", &second, "nats"),
        mean_of("loss, first less second time", &gained, "nats"),
    ])
}

/// Those of [`HeadScores`] in the order of [`KINDS`], and then those of [`detect_head`].
fn scores(subject: &Subject, tokens: &RepeatedTokens) -> Result<Scores> {
    let (model, ln) = (subject.model(), subject.ln());
    let mut total = Scores::new();
    for ids in portions(&tokens.ids)? {
        let share = ids.size()[0] as f64 / tokens.ids.size()[0] as f64;
        let part = part(tokens, ids);
        let HeadScores { previous_token, duplicate_token, induction } = part.head_scores(model, ln)?;
        let diagonals = KINDS.iter().zip([previous_token, duplicate_token, induction]);
        let mut found: Scores = diagonals.map(|((kind, _), by)| (format!("{kind} score"), by)).collect();
        for (kind, looked_for) in KINDS {
            for (measure, error_measure) in MEASURES {
                let options = DetectOptions { error_measure, ..DetectOptions::default() };
                let by_head = detect_head(model, ln, &part.ids, looked_for, options)?;
                found.push((format!("{kind}, detect_head {measure}"), by_head));
            }
        }
        add(&mut total, found, share);
    }
    Ok(total)
}

/// Some of the sequences.
fn part(tokens: &RepeatedTokens, ids: Tensor) -> RepeatedTokens {
    RepeatedTokens { ids, period: tokens.period }
}

/// Adds `found` times `share` to a mean.
fn add(total: &mut Scores, mut found: Scores, share: f64) {
    for (_, by_head) in &mut found {
        by_head.iter_mut().flatten().for_each(|score| *score *= share);
    }
    if total.is_empty() {
        *total = found;
        return;
    }
    for ((_, sum), (_, more)) in total.iter_mut().zip(&found) {
        for (sum, more) in sum.iter_mut().flatten().zip(more.iter().flatten()) {
            *sum += more;
        }
    }
}

/// All heads with their scores, the highest first.
fn ranked(scores: &[Vec<f64>]) -> Vec<(String, f64)> {
    let mut heads = Vec::new();
    for (layer, scores) in scores.iter().enumerate() {
        heads.extend(scores.iter().enumerate().map(|(head, score)| (format!("L{layer}H{head}"), *score)));
    }
    heads.sort_by(|a, b| b.1.total_cmp(&a.1));
    heads
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn portions_give_the_scores_and_losses_of_all_sequences() {
        let subject = Subject::load("original", "nano", None, None, Device::Cpu).unwrap();
        // 5040 tokens: more than go through at once.
        let found = find(&subject, 42, 60, 7).unwrap();
        let tokens = RepeatedTokens::new(42, 60, 4096, subject.eot(), 7).unwrap();
        assert!(portions(&tokens.ids).unwrap().len() > 1);
        let whole = tokens.head_scores(subject.model(), subject.ln()).unwrap();
        let close = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 1e-4, "{found:?} {expected}");
        };
        assert_eq!(found.maps.len(), 9);
        for (map, scores) in
            found.maps.iter().zip([&whole.previous_token, &whole.duplicate_token, &whole.induction])
        {
            for (found, expected) in map.values.iter().flatten().zip(scores.iter().flatten()) {
                close(*found, *expected);
            }
        }
        let (layer, head, score) = HeadScores::best(&whole.induction).unwrap();
        let ranking = &found.rankings[2];
        assert_eq!((ranking.rows.len(), ranking.rows[0].0.clone()), (5, format!("L{layer}H{head}")));
        close(ranking.rows[0].1[0], score);
        let number = |name: &str| found.numbers.iter().find(|number| number.name == name).unwrap();
        close(number("best induction score").value, score);
        let (first, second) = tokens.losses(subject.model(), subject.ln()).unwrap();
        close(number("loss, first time").value, first);
        close(number("loss, second time").value, second);
        close(number("loss, first less second time").value, first - second);
        assert_eq!(found.notes[0], subject.beginning(&tokens.ids).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused_in_one_line() {
        let subject = Subject::load("original", "nano", None, None, Device::Cpu).unwrap();
        for period in [0, 1, 65, usize::MAX] {
            let refused = find(&subject, 2, period, 0).unwrap_err().to_string();
            assert!(refused.contains("it takes 2 to 64") && refused.lines().count() == 1, "{refused}");
        }
        assert!(find(&subject, 0, 8, 0).is_err());
    }
}
