//! The embedded model: a real language model of its text, that knows its own tokenizer.

use std::collections::HashMap;

use lnfree::prelude::*;

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

#[test]
fn nano_is_a_language_model() {
    let dir = locate_model("nano").unwrap();
    let nano = LoadedModel::load(&dir, None, Kind::Float, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    assert_eq!(tokenizer.vocab_size() as i64, nano.model.config.vocab_size);
    assert_eq!(Some(i64::from(tokenizer.eot_id())), nano.model.config.eot_token_id());
    let (train, test) = (open_dataset("nano-train", 128).unwrap(), open_dataset("nano-owt", 128).unwrap());
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
