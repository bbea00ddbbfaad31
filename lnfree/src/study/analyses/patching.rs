//! Patches of clean activations into a corrupted run, and their first-order estimates.

use tch::{Device, Kind, Tensor};

use super::attribution::{known, places};
use super::samples::mean_of;
use super::words::words;
use super::{Pairs, Subject};
use crate::interp::ioi::{self, Prompts, Words};
use crate::interp::{
    AttributionPatching, EdgeAttribution, HeadSite, Metric, Patched, Patching, RepeatedTokens, StreamSite,
};
use crate::study::found::{Axis, Found, Map, Number, Ranking, finite};
use crate::{Error, Result};

/// Tokens of texts that are patched together: what a backward keeps of them is about a GB in GPT-2's smallest
/// model.
const TOKENS: i64 = 2048;
/// Edges that are named.
const EDGES: usize = 30;
/// What is patched by layer and position.
const SITES: [(StreamSite, &str); 3] =
    [(StreamSite::ResidPre, "resid_pre"), (StreamSite::AttnOut, "attn_out"), (StreamSite::MlpOut, "mlp_out")];

const SCALE: &str = "Maps are of the part of the way from the corrupted (0) to the clean (1) logit \
                     difference, of means over all pairs.";
const ERROR: &str = "The attribution patching error is the mean of |attribution − patch| of resid_pre, on \
                     that scale, over layers and the positions from the first on where the texts differ.";
const RANKED: &str = "An edge is what one component writes as another alone reads it; edge attribution \
                      patching estimates, on that scale, what a patch of it does.";

/// Activation patching of the residual stream, attention and MLPs by layer and position and of heads,
/// attribution patching of the residual stream, and the error of the latter: mean |attribution − patch|
/// over layers and positions from the first difference on, both as part of the way from the corrupted logit
/// difference to the clean one.
///
/// # Errors
/// If pairs cannot be made with the model's tokens, are too long for it, or are alike.
pub(super) fn find(subject: &Subject, pairs: &Pairs, progress: &mut impl FnMut(f64)) -> Result<Found> {
    let prompts = prompts(subject, pairs)?;
    // Nothing here may run without gradients: attribution patching is a backward.
    let runs = Runs::of(subject, &prompts, progress)?;
    let columns = || positions(subject, pairs, &prompts.clean);
    let mut maps = Vec::new();
    for ((_, name), found) in SITES.iter().zip(&runs.sites) {
        maps.push(map(format!("activation patching, {name}"), &runs.way(found)?, columns()?)?);
    }
    let heads = runs.way(&runs.heads)?;
    let axis = Axis::counted("head", subject.model().config.n_head as usize);
    maps.push(map("activation patching, heads (z) at all positions".into(), &heads, axis)?);
    let attributed = runs.attributed()?;
    maps.push(map("attribution patching, resid_pre".into(), &attributed, columns()?)?);
    let apart = attributed.f_sub(&runs.way(&runs.sites[0])?)?.f_abs()?;
    let differ = prompts.clean.f_ne_tensor(&prompts.corrupted)?.f_any_dim(0, false)?;
    let first = differ.f_to_kind(Kind::Int64)?.f_argmax(0, false)?.f_int64_value(&[])?;
    let apart = apart.f_narrow(1, first, apart.size()[1] - first)?;
    Ok(Found {
        notes: vec![subject.beginning(&prompts.clean)?, SCALE.into(), ERROR.into(), RANKED.into()],
        numbers: vec![
            mean_of("logit difference, clean", &Vec::<f64>::try_from(&runs.clean)?, ""),
            mean_of("logit difference, corrupted", &Vec::<f64>::try_from(&runs.corrupted)?, ""),
            Number::new("attribution patching error", apart.f_mean(Kind::Double)?.f_double_value(&[])?, ""),
        ],
        maps,
        rankings: vec![runs.strongest()?],
        ..Found::default()
    })
}

/// Clean and corrupted ids with their answers, which the model knows.
fn prompts(subject: &Subject, pairs: &Pairs) -> Result<Prompts> {
    let prompts = match pairs {
        Pairs::Repeated { n, period, seed } => {
            repeated(*n, *period, subject.model().config.vocab_size, subject.eot(), *seed)?
        }
        Pairs::Ioi { n, seed } => {
            let tokenizer = subject.tokenizer()?;
            let words = Words::default().single_in(tokenizer).map_err(without_names)?;
            ioi::prompts_of(tokenizer, ioi::TEMPLATES[0], &words, *n, *seed)?
        }
        Pairs::Texts { clean, corrupted, answers: [right, wrong] } => Prompts::new(
            subject.tokenizer()?,
            &[clean.as_str()],
            &[corrupted.as_str()],
            &[[right.as_str(), wrong.as_str()]],
        )?,
    };
    for ids in [&prompts.clean, &prompts.corrupted, &prompts.answers] {
        known(subject, ids)?;
    }
    if prompts.clean.f_equal(&prompts.corrupted)? {
        return Err(Error::invalid("clean and corrupted prompts are alike: there is nothing to patch"));
    }
    Ok(prompts)
}

/// What somebody can do whose tokenizer splits the names.
fn without_names(error: Error) -> Error {
    Error::invalid(format!(
        "{error}; --ioi needs a tokenizer that has names: use --repeated, or words of this one with --clean, \
         --corrupted and --answers"
    ))
}

/// `period` random tokens and their first half again, so that the token after that half is to be expected.
/// In the corrupted texts another token, which is nowhere else, is in its place when it is said first, and so
/// is to be expected.
fn repeated(n: usize, period: usize, vocab_size: i64, eot: i64, seed: u64) -> Result<Prompts> {
    if period < 2 {
        return Err(Error::invalid(format!("a period of {period} tokens: two are needed")));
    }
    // One token more than is said.
    let drawn = RepeatedTokens::new(n, period.saturating_add(1), vocab_size, eot, seed)?.ids;
    let (period, half) = (period as i64, period as i64 / 2);
    let part = |start: i64, len: i64| drawn.f_narrow(1, start, len);
    let (again, answer, rest, other) =
        (part(0, half)?, part(half, 1)?, part(half + 1, period - half - 1)?, part(period, 1)?);
    Ok(Prompts {
        clean: Tensor::f_cat(&[&again, &answer, &rest, &again], 1)?,
        corrupted: Tensor::f_cat(&[&again, &other, &rest, &again], 1)?,
        answers: Tensor::f_cat(&[&answer, &other], 1)?,
        starts_with_bos: false,
    })
}

/// Logit differences, float32 on the CPU, the last axis that of the pairs.
struct Runs {
    /// Of the clean texts, `[n]`.
    clean: Tensor,
    /// Of the corrupted ones, `[n]`.
    corrupted: Tensor,
    /// After patches of [`SITES`], `[layer, pos, n]`.
    sites: Vec<Tensor>,
    /// After patches of heads, `[layer, head, n]`.
    heads: Tensor,
    /// What attribution patching says of the effects of resid_pre, `[layer, pos, n]`.
    attributions: Tensor,
    /// Scores of edges, summed over the pairs.
    edges: EdgeAttribution,
}

impl Runs {
    /// Of all pairs, some at a time.
    fn of(subject: &Subject, prompts: &Prompts, progress: &mut impl FnMut(f64)) -> Result<Runs> {
        let (model, ln) = (subject.model(), subject.ln());
        let (n, pos) = prompts.clean.size2()?;
        let each = (TOKENS / pos).max(1);
        let [mut clean, mut corrupted, mut heads, mut attributions] = <[Vec<Tensor>; 4]>::default();
        let mut sites = <[Vec<Tensor>; SITES.len()]>::default();
        let mut edges = None;
        let mut done = 0;
        let parts = (SITES.len() + 3) * (n as usize).div_ceil(each as usize);
        let mut step = || {
            done += 1;
            progress(done as f64 / parts as f64);
        };
        for start in (0..n).step_by(each as usize) {
            let some = |x: &Tensor| x.f_narrow(0, start, each.min(n - start));
            let [texts, others] = [some(&prompts.clean)?, some(&prompts.corrupted)?];
            let metric = Metric::logit_difference(&some(&prompts.answers)?);
            let patching = Patching::new(model, ln, &texts, &others, &metric)?;
            for ((site, _), found) in SITES.iter().zip(&mut sites) {
                found.push(patching.by_position(*site)?.metric);
                step();
            }
            heads.push(patching.by_head(HeadSite::Z)?.metric);
            step();
            let attributed = AttributionPatching::of(model, ln, &texts, &others, &metric)?;
            attributions.push(attributed.resid_pre);
            step();
            edges = Some(summed(edges, EdgeAttribution::of(model, ln, &texts, &others, &metric)?)?);
            step();
            clean.push(patching.clean.shallow_clone());
            corrupted.push(patching.corrupted.shallow_clone());
        }
        Ok(Runs {
            clean: joined(&clean)?,
            corrupted: joined(&corrupted)?,
            sites: sites.iter().map(|parts| joined(parts)).collect::<Result<_>>()?,
            heads: joined(&heads)?,
            attributions: joined(&attributions)?,
            edges: edges.ok_or_else(|| Error::invalid("no pairs of prompts"))?,
        })
    }

    /// The part of the way that patches go, see [`Patched::normalised`].
    fn way(&self, metric: &Tensor) -> Result<Tensor> {
        let [metric, clean, corrupted] = [metric, &self.clean, &self.corrupted].map(Tensor::shallow_clone);
        Ok(Patched { metric, clean, corrupted }.normalised())
    }

    /// The part of the way that attribution patching says that patches of resid_pre go.
    fn attributed(&self) -> Result<Tensor> {
        let mean = |x: &Tensor| x.f_mean_dim(-1i64, false, Kind::Float);
        let whole = mean(&self.clean)?.f_sub(&mean(&self.corrupted)?)?;
        Ok(mean(&self.attributions)?.f_div(&whole)?)
    }

    /// The edges of the largest mean scores, as part of the way.
    fn strongest(&self) -> Result<Ranking> {
        let sum = |x: &Tensor| x.f_sum(Kind::Double)?.f_double_value(&[]);
        let whole = sum(&self.clean)? - sum(&self.corrupted)?;
        let edges = self.edges.strongest(EDGES)?.into_iter();
        Ok(Ranking {
            name: "edge attribution patching".into(),
            what: "edge".into(),
            columns: vec!["part of the way".into()],
            rows: edges.map(|edge| (edge.to_string(), vec![finite(edge.score / whole)])).collect(),
            total: None,
        })
    }
}

/// The edges of some pairs, with scores summed over them and those before.
fn summed(before: Option<EdgeAttribution>, edges: EdgeAttribution) -> Result<EdgeAttribution> {
    let mut scores = edges.scores.f_sum_dim_intlist(-1i64, true, Kind::Float)?;
    if let Some(before) = before {
        scores = scores.f_add(&before.scores)?;
    }
    Ok(EdgeAttribution { scores, ..edges })
}

/// Positions, with the tokens where there is one clean text.
fn positions(subject: &Subject, pairs: &Pairs, clean: &Tensor) -> Result<Axis> {
    if !matches!(pairs, Pairs::Texts { .. }) {
        return Ok(Axis::counted("position", clean.size()[1] as usize));
    }
    let labels = places(&words(subject.tokenizer()?, &clean.f_get(0)?)?);
    Ok(Axis { title: "position".into(), labels })
}

fn joined(parts: &[Tensor]) -> Result<Tensor> {
    Ok(Tensor::f_cat(parts, -1)?.f_to_device(Device::Cpu)?)
}

/// Of values `[layer, column]`.
fn map(name: String, values: &Tensor, columns: Axis) -> Result<Map> {
    let values = Vec::<Vec<f64>>::try_from(values)?;
    Ok(Map {
        name,
        unit: String::new(),
        rows: Axis::counted("layer", values.len()),
        columns,
        values: values.into_iter().map(|row| row.into_iter().map(finite).collect()).collect(),
        signed: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Subject {
        Subject::load("a model", name, None, Some("nano"), Device::Cpu).unwrap()
    }

    #[test]
    fn repeated_pairs_differ_in_one_place_and_have_their_answers() {
        for (n, period) in [(1, 2), (3, 7), (2, 8)] {
            let prompts = repeated(n, period, 50, 7, 3).unwrap();
            let rows = |x: &Tensor| Vec::<Vec<i64>>::try_from(x).unwrap();
            let half = period / 2;
            let (clean, corrupted) = (rows(&prompts.clean), rows(&prompts.corrupted));
            for ((clean, corrupted), answers) in clean.iter().zip(&corrupted).zip(rows(&prompts.answers)) {
                assert_eq!((clean.len(), corrupted.len()), (period + half, period + half));
                assert_eq!(clean[..half], clean[period..]);
                let differ: Vec<usize> = (0..clean.len()).filter(|&at| clean[at] != corrupted[at]).collect();
                assert_eq!(differ, [half]);
                assert_eq!(answers, [clean[half], corrupted[half]]);
                assert!(!clean.contains(&answers[1]) && !clean.contains(&7) && answers[1] != 7);
            }
        }
        for period in [0, 1, 49, usize::MAX] {
            assert!(repeated(1, period, 50, 7, 3).is_err(), "{period}");
        }
    }

    #[test]
    fn a_patch_goes_the_whole_way_or_none() {
        for name in ["nano", "nano_LNFree200"] {
            let subject = subject(name);
            let pairs = Pairs::Repeated { n: 3, period: 8, seed: 1 };
            let mut seen = Vec::new();
            let found = find(&subject, &pairs, &mut |part| seen.push(part)).unwrap();
            assert_eq!(seen.last(), Some(&1.0), "{seen:?}");
            let of = |name: &str| &found.maps.iter().find(|map| map.name == name).unwrap().values;
            // Before the first block all that differs is one position.
            let patched = of("activation patching, resid_pre");
            assert_eq!((patched.len(), patched[0].len()), (6, 12));
            for (at, value) in patched[0].iter().enumerate() {
                let expected = if at == 4 { 1.0 } else { 0.0 };
                assert!((value.unwrap() - expected).abs() < 1e-3, "{name}, {at}: {value:?}");
            }
            // What is before it is the same in all layers.
            assert!(patched.iter().all(|row| row[..4] == [Some(0.0); 4]), "{name}: {patched:?}");
            assert_eq!(of("activation patching, heads (z) at all positions")[5].len(), 4);
            assert_eq!(of("attribution patching, resid_pre")[0].len(), 12);
            assert!(found.numbers[2].value.unwrap() > 0.0);
            let size = |row: &(String, Vec<Option<f64>>)| row.1[0].unwrap().abs();
            let edges = &found.rankings[0].rows;
            assert!(edges.windows(2).all(|pair| size(&pair[0]) >= size(&pair[1])), "{name}: {edges:?}");
            assert!(edges.len() == EDGES && size(&edges[0]) > 1e-3, "{name}: {edges:?}");
            // All of the stream before the first block is the clean run.
            let prompts = prompts(&subject, &pairs).unwrap();
            let metric = Metric::logit_difference(&prompts.answers);
            let patching =
                Patching::new(subject.model(), subject.ln(), &prompts.clean, &prompts.corrupted, &metric);
            let whole = patching.unwrap().by_layer(StreamSite::ResidPre).unwrap().normalised();
            assert!((whole.double_value(&[0]) - 1.0).abs() < 1e-3, "{name}");
        }
    }

    #[test]
    fn edges_of_portions_are_those_of_all_pairs() {
        let subject = subject("nano");
        let prompts = prompts(&subject, &Pairs::Repeated { n: 3, period: 8, seed: 1 }).unwrap();
        let edges = |start: i64, len: i64| {
            let some = |x: &Tensor| x.narrow(0, start, len);
            let metric = Metric::logit_difference(&some(&prompts.answers));
            let [clean, corrupted] = [&prompts.clean, &prompts.corrupted].map(some);
            EdgeAttribution::of(subject.model(), subject.ln(), &clean, &corrupted, &metric).unwrap()
        };
        let portions = summed(Some(summed(None, edges(0, 1)).unwrap()), edges(1, 2)).unwrap().scores;
        let all = edges(0, 3).scores.sum_dim_intlist(-1i64, true, Kind::Float);
        let largest = |x: &Tensor| x.abs().max().double_value(&[]);
        assert!(largest(&(portions - &all)) < 1e-4 * largest(&all));
    }

    #[test]
    fn texts_that_are_no_pair_are_refused_in_a_line() {
        let subject = subject("nano");
        for (clean, corrupted, says) in [
            ("The United", "The United", "alike"),
            ("The United", "The Congress of the United", "one length"),
        ] {
            let [clean, corrupted] = [clean, corrupted].map(String::from);
            let pairs = Pairs::Texts { clean, corrupted, answers: [" States".into(), " the".into()] };
            let refused = find(&subject, &pairs, &mut |_| {}).unwrap_err().to_string();
            assert!(refused.contains(says) && refused.lines().count() == 1, "{refused}");
        }
    }
}
