//! The embedded model: a real language model of its text, that knows its own tokenizer.

use std::collections::HashMap;

use lnfree::prelude::*;

#[path = "../examples/nano_record/scores.rs"]
mod scores;
#[allow(dead_code)]
#[path = "../examples/nano_record/tables.rs"]
mod tables;

/// Cross-entropy of predicting every token from its frequency in the training text alone (add-one smoothed).
fn unigram_loss(train: &TokenFile, test: &TokenFile, n: usize, vocab_size: f64) -> f64 {
    let mut counts: HashMap<i64, f64> = HashMap::new();
    let mut total = vocab_size;
    for i in 0..train.n_sequences() {
        for id in train.row(i).unwrap() {
            *counts.entry(id).or_default() += 1.0;
            total += 1.0;
        }
    }
    let ids: Vec<i64> = (0..n).flat_map(|i| test.row(i).unwrap()).collect();
    let loss = |id: &i64| -((counts.get(id).copied().unwrap_or(0.0) + 1.0) / total).ln();
    ids.iter().map(loss).sum::<f64>() / ids.len() as f64
}

/// What the study of the embedded models came to.
fn record() -> tables::Record {
    let study = lnfree::data::data_dir().unwrap().join("study.json");
    serde_json::from_slice(&std::fs::read(study).unwrap()).unwrap()
}

#[test]
fn nano_is_a_language_model() {
    let dir = locate_model("nano").unwrap();
    let nano = LoadedModel::load(&dir, None, Kind::Float, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    assert_eq!(tokenizer.vocab_size() as i64, nano.model.config.vocab_size);
    assert_eq!(Some(i64::from(tokenizer.eot_id())), nano.model.config.eot_token_id());
    let (train, test) =
        (open_dataset("nano-train", 128).unwrap(), open_dataset("nano-addresses", 128).unwrap());
    let options = EvalOptions { batch_size: 32, max_sequences: 64, ..EvalOptions::default() };
    let losses = evaluate(&nano.model, &nano.ln, &test, options, |_| {}).unwrap();
    let mean = Summary::new(&losses.losses).mean;
    let unigram = unigram_loss(&train, &test, 64, 4096.0);
    assert!(mean < unigram - 2.0, "nano's loss is {mean}, that of token frequencies {unigram}");
}

#[test]
fn nano_continues_with_words() {
    let dir = locate_model("nano").unwrap();
    let nano = LoadedModel::load(&dir, None, Kind::Float, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let prompt = tokenizer.encode("The Congress of the United").unwrap();
    let options = SampleOptions { temperature: 0.0, max_new_tokens: 1, ..SampleOptions::default() };
    let next = generate(&nano.model, &nano.ln, &prompt, options, |_| true).unwrap();
    assert_eq!(tokenizer.decode(&next).unwrap(), " States");
}

/// Computed from the weights; `scripts/tests/heads_peer.py` does the same in plain PyTorch.
#[test]
fn what_heads_of_the_embedded_models_do_is_as_recorded() {
    let record = record();
    let computed = scores::of_embedded_models().unwrap();
    assert_eq!(computed.len(), record.heads.len());
    for (now, then) in computed.iter().zip(&record.heads) {
        assert_eq!(now.label, then.label);
        for (now, then) in [
            (now.first, then.first),
            (now.again, then.again),
            (now.previous_token, then.previous_token),
            (now.duplicate_token, then.duplicate_token),
            (now.induction, then.induction),
        ] {
            assert!((now - then).abs() < 1e-3, "{computed:?} {:?}", record.heads);
        }
    }
}

/// What the paper and its users study is there to be studied.
#[test]
fn nano_copies_what_it_has_seen() {
    let original = &scores::of_embedded_models().unwrap()[0];
    assert!(original.first - original.again >= 3.0, "{original:?}");
    assert!(original.previous_token >= 0.5 && original.induction >= 0.4, "{original:?}");
}

#[test]
fn what_the_embedded_models_are_like_inside_is_as_recorded() {
    let record = record();
    let computed = scores::interiors().unwrap();
    assert_eq!(computed.len(), record.interiors.len());
    for (now, then) in computed.iter().zip(&record.interiors) {
        assert_eq!((&now.label, now.neuron), (&then.label, then.neuron));
        for (now, then) in [
            (now.sink_rate, then.sink_rate),
            (now.first_norm, then.first_norm),
            (now.other_norm, then.other_norm),
            (now.neuron_ratio, then.neuron_ratio),
            (now.neuron_in_smallest, then.neuron_in_smallest),
            (now.loss_change, then.loss_change),
            (now.entropy_change, then.entropy_change),
        ] {
            let limit = f64::max(1e-4, 1e-3 * then.abs());
            assert!((now - then).abs() < limit, "{computed:?} {:?}", record.interiors);
        }
    }
}
