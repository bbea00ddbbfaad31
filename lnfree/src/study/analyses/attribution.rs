//! A logit of one prompt, taken apart into what the components of the model add to it.

use tch::{Device, Kind, Tensor};

use super::words::{word, words};
use super::{Prompt, Subject};
use crate::data::Tokenizer;
use crate::interp::{ActivationCache, Detail, Positions, attribution_needs, run_with_cache};
use crate::model::hook::Activation;
use crate::study::found::{Axis, Curve, Found, Map, MarkedText, Number, Ranking, finite};
use crate::{Error, Result};

/// Neurons that are named.
const NEURONS: usize = 20;
/// Tokens of a prompt at most whose attention is shown whole.
const MAPPED: usize = 256;

const EXACT: &str =
    "What ln_f divides by is constant, or there is no ln_f: the shares are what the model adds up.";
const FROZEN: &str = "ln_f is real: shares are at the scale that it had in this run, and without a component \
                      it would have another. The freezing NMAE is how far shares are from the effects of \
                      taking components away, 100 · mean |share − effect| / mean |effect|.";

const OF_ONE: &str = "Shares of a single logit include what raises all logits alike, which changes no \
                      probability; those of a difference of two do not.";
const OF_TWO: &str = "What raises both logits alike is in no share.";

/// The logit of the answer at the last position (less that of another token) as a sum over embeddings, heads,
/// MLPs and biases, the logit lens of the answer, and where the strongest head looks.
///
/// # Errors
/// A prompt without tokens, or longer than the model reads; an answer that is not one token.
pub(super) fn find(subject: &Subject, prompt: &Prompt) -> Result<Found> {
    let _guard = tch::no_grad_guard();
    let (tokenizer, model) = (subject.tokenizer()?, subject.model());
    let ids = encoded(subject, tokenizer, &prompt.text)?;
    let texts = words(tokenizer, &ids.f_get(0)?)?;
    let (logits, cache) = run_with_cache(model, subject.ln(), &ids, attribution_needs)?;
    let last = logits.f_select(1, ids.size()[1] - 1)?;
    let answer = match &prompt.answer {
        Some(text) => single(subject, tokenizer, text)?,
        None => last.f_argmax(-1i64, false)?.f_int64_value(&[0])?,
    };
    let against = prompt.against.as_ref().map(|text| single(subject, tokenizer, text)).transpose()?;
    let token = Tensor::f_from_slice(&[answer])?;
    let other = against.map(|id| Tensor::f_from_slice(&[id])).transpose()?;
    let by_head = cache.decompose_logits(&token, other.as_ref(), Detail::Heads, Positions::Last)?;
    let shares = numbers(&by_head.shares)?;
    let constant = by_head.constant.f_double_value(&[0, 0])?;
    let (sum, logit) = (by_head.sum.f_double_value(&[0, 0])?, by_head.logits.f_double_value(&[0, 0])?);
    let what = if against.is_some() { "difference of logits" } else { "logit" };
    let probability = last.f_softmax(-1, Kind::Double)?.f_double_value(&[0, answer])?;
    let mut found = Found {
        notes: vec![
            subject.beginning(&ids)?,
            asked(tokenizer, prompt, answer, against),
            if by_head.is_exact { EXACT.into() } else { FROZEN.into() },
            if against.is_some() { OF_TWO.into() } else { OF_ONE.into() },
        ],
        numbers: vec![
            Number::new(what, logit, ""),
            Number::new("sum of shares", sum, ""),
            Number::new("relative error of the sum", by_head.relative_error, ""),
            Number::new("probability of the answer", probability, ""),
        ],
        texts: vec![losses(&logits, &ids, &texts)?],
        ..Found::default()
    };
    found.numbers.extend(by_head.freezing_nmae.map(|nmae| Number::new("freezing NMAE", nmae, "%")));
    let mut rows: Vec<(String, f64)> = by_head.labels.iter().cloned().zip(shares.iter().copied()).collect();
    sort(&mut rows);
    rows.push(("constant".into(), constant));
    found.rankings.push(Ranking { total: finite(sum), ..ranking("components", "component", rows) });

    let by_neuron = cache.decompose_logits(&token, other.as_ref(), Detail::Neurons, Positions::Last)?;
    let neurons = by_neuron.labels.iter().cloned().zip(numbers(&by_neuron.shares)?);
    let mut rows: Vec<(String, f64)> = neurons.filter(|(label, _)| label.contains('N')).collect();
    sort(&mut rows);
    rows.truncate(NEURONS);
    found.rankings.push(ranking("neurons", "neuron", rows));

    let (mut labels, mut values) = (Vec::new(), Vec::new());
    cache.logit_lens(Positions::Last, true, |label, logits| {
        let of = |id: i64| logits.f_double_value(&[0, 0, id]);
        labels.push(label.to_string());
        values.push(finite(of(answer)? - against.map_or(Ok(0.0), of)?));
        Ok(())
    })?;
    let at = Axis { title: "residual stream".into(), labels };
    found.curves.push(Curve {
        name: format!("logit lens, {what} of the answer"),
        unit: String::new(),
        at,
        values,
    });

    // Heads come first among the components, block after block.
    let n_head = model.config.n_head as usize;
    let heads = 0..model.h.len() * n_head;
    let strongest = heads.max_by(|a, b| shares[*a].abs().total_cmp(&shares[*b].abs()));
    if let Some(at) = strongest {
        found.notes.push(format!("The strongest head is {}.", by_head.labels[at]));
        attention(subject, &ids, at / n_head, at % n_head, &texts, &mut found)?;
    }
    Ok(found)
}

/// Labels of an axis with positions and their tokens, all different.
pub(super) fn places(tokens: &[String]) -> Vec<String> {
    let tokens = tokens.iter().map(|token| token.replace(['\n', '\r'], "↵"));
    tokens.enumerate().map(|(at, token)| format!("{at} ‘{token}’")).collect()
}

/// That the model knows these ids.
///
/// # Errors
/// If one of them is above its vocabulary.
pub(super) fn known(subject: &Subject, ids: &Tensor) -> Result<()> {
    let (largest, n) = (ids.f_max()?.f_int64_value(&[])?, subject.model().config.vocab_size);
    match largest < n {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the tokenizer gives token {largest} and {} has {n}: name its own with --tokenizer",
            subject.name
        ))),
    }
}

/// The prompt's ids, `[1, pos]`.
fn encoded(subject: &Subject, tokenizer: &Tokenizer, text: &str) -> Result<Tensor> {
    let ids: Vec<i64> = tokenizer.encode(text)?.into_iter().map(i64::from).collect();
    let most = subject.model().config.block_size;
    if ids.is_empty() || ids.len() as i64 > most {
        return Err(Error::invalid(format!(
            "the prompt is {} tokens, and {} reads 1 to {most}",
            ids.len(),
            subject.name
        )));
    }
    let ids = Tensor::f_from_slice(&ids)?.f_unsqueeze(0)?;
    known(subject, &ids)?;
    Ok(ids.f_to_device(subject.model().device())?)
}

/// The one token that a text is.
fn single(subject: &Subject, tokenizer: &Tokenizer, text: &str) -> Result<i64> {
    let ids: Vec<i64> = tokenizer.encode(text)?.into_iter().map(i64::from).collect();
    if let [id] = ids[..] {
        known(subject, &Tensor::f_from_slice(&[id])?)?;
        return Ok(id);
    }
    let pieces = ids.iter().map(|id| Ok(format!("{:?}", word(tokenizer, *id)?)));
    let pieces = pieces.collect::<Result<Vec<String>>>()?.join(" + ");
    Err(Error::invalid(format!(
        "{text:?} is {} tokens ({pieces}), not one: give a token, with the space before it if it has one",
        ids.len()
    )))
}

/// Of which tokens the logit is.
fn asked(tokenizer: &Tokenizer, prompt: &Prompt, answer: i64, against: Option<i64>) -> String {
    let said = |id: i64| match word(tokenizer, id) {
        Ok(said) => format!("{said:?}"),
        Err(_) => format!("token {id}"),
    };
    let why = if prompt.answer.is_none() { ", the likeliest next token" } else { "" };
    let less = against.map(|id| format!(", less that of {}", said(id))).unwrap_or_default();
    format!("The logit is that of {}{why}{less}, at the last position.", said(answer))
}

/// The largest first, whatever their sign.
fn sort(rows: &mut [(String, f64)]) {
    rows.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
}

fn ranking(name: &str, what: &str, rows: Vec<(String, f64)>) -> Ranking {
    let rows = rows.into_iter().map(|(label, share)| (label, vec![finite(share)]));
    let columns = vec!["share".into()];
    Ranking { name: name.into(), what: what.into(), columns, rows: rows.collect(), total: None }
}

/// The loss of each token; the first is predicted by nothing.
fn losses(logits: &Tensor, ids: &Tensor, texts: &[String]) -> Result<MarkedText> {
    let n = ids.size()[1] - 1;
    let logp = logits.f_narrow(1, 0, n)?.f_log_softmax(-1, Kind::Float)?;
    let found = logp.f_gather(-1, &ids.f_narrow(1, 1, n)?.f_unsqueeze(-1)?, false)?;
    let found = numbers(&found)?.into_iter().map(|logp| finite(-logp));
    Ok(MarkedText {
        name: "loss of each token".into(),
        unit: "nats".into(),
        tokens: texts.to_vec(),
        values: std::iter::once(None).chain(found).collect(),
    })
}

/// Where a head looks: from everywhere, and from the last position.
fn attention(
    subject: &Subject,
    ids: &Tensor,
    layer: usize,
    head: usize,
    texts: &[String],
    found: &mut Found,
) -> Result<()> {
    // A second run, so that the patterns of all layers need not be kept.
    let at = Activation::Pattern(layer);
    let cache = ActivationCache::new(subject.model(), subject.ln(), ids, |seen| seen == at)?;
    let pattern = cache.get(at)?.f_get(0)?.f_get(head as i64)?.f_to_device(Device::Cpu)?;
    let pattern = Vec::<Vec<f64>>::try_from(pattern)?;
    found.texts.push(MarkedText {
        name: "attention of the strongest head at the last token".into(),
        unit: String::new(),
        tokens: texts.to_vec(),
        values: pattern.last().into_iter().flatten().map(|given| finite(*given)).collect(),
    });
    if texts.len() > MAPPED {
        found.notes.push(format!("Its attention is shown whole for prompts of up to {MAPPED} tokens."));
        return Ok(());
    }
    let axis = |title: &str| Axis { title: title.into(), labels: places(texts) };
    let rows = pattern.iter().enumerate().map(|(query, row)| {
        let keys = row.iter().enumerate();
        keys.map(|(key, given)| finite(*given).filter(|_| key <= query)).collect()
    });
    found.maps.push(Map {
        name: "attention of the strongest head".into(),
        unit: String::new(),
        rows: axis("query"),
        columns: axis("key"),
        values: rows.collect(),
        signed: false,
    });
    Ok(())
}

/// All of them, in order.
fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(x.f_reshape([-1])?.f_to_device(Device::Cpu)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, answer: Option<&str>, against: Option<&str>) -> Result<Found> {
        let subject = Subject::load("a model", name, None, Some("nano"), Device::Cpu)?;
        let text = "The Congress of the United".into();
        find(&subject, &Prompt { text, answer: answer.map(Into::into), against: against.map(Into::into) })
    }

    fn number(found: &Found, name: &str) -> Option<f64> {
        found.numbers.iter().find(|number| number.name == name)?.value
    }

    #[test]
    fn shares_sum_to_the_logit() {
        for (name, exact) in [("nano", false), ("nano_LNFree200", true)] {
            for (against, what) in [(None, "logit"), (Some(" the"), "difference of logits")] {
                let found = of(name, Some(" States"), against).unwrap();
                let components = &found.rankings[0];
                // Heads, MLPs, embeddings and biases, and the constant.
                assert_eq!(components.rows.len(), 24 + 6 + 3 + 1);
                let sum: f64 = components.rows.iter().map(|row| row.1[0].unwrap()).sum();
                let (total, logit) = (components.total.unwrap(), number(&found, what).unwrap());
                assert!((sum - total).abs() < 1e-9 * total.abs().max(1.0), "{name}: {sum} {total}");
                // Of a difference the larger logit says how much is rounded.
                let size = logit.abs().max(number(&of(name, None, None).unwrap(), "logit").unwrap().abs());
                assert!((sum - logit).abs() < 1e-5 * size, "{name}: {sum} {logit}");
                let lens = &found.curves[0];
                assert!((lens.values[6].unwrap() - logit).abs() < 1e-4 * size, "{name}: {:?}", lens.values);
                assert_eq!(number(&found, "freezing NMAE").is_none(), exact, "{name}");
                assert_eq!(found.notes.contains(&EXACT.to_string()), exact, "{name}");
            }
        }
    }

    #[test]
    fn the_answer_is_the_likeliest_token_or_one_token() {
        let found = of("nano", None, None).unwrap();
        assert!(found.notes[1].contains("\" States\", the likeliest"), "{}", found.notes[1]);
        let losses = &found.texts[0];
        assert_eq!((losses.values[0], losses.tokens.len()), (None, found.maps[0].values.len()));
        let attention: f64 = found.texts[1].values.iter().flatten().sum();
        assert!((attention - 1.0).abs() < 1e-4, "{attention}");
        let refused = of("nano", Some(" antidisestablishment"), None).unwrap_err().to_string();
        let says = refused.contains("not one") && refused.contains(" + \"");
        assert!(says && refused.lines().count() == 1, "{refused}");
    }
}
