//! What LayerNorm costs: tokens per second with it and without, on random weights, of generation with kept keys and values and of
//! evaluation.
//!
//! `cargo run --release --example ln_free_speed -- gpt2|nano decode [PROMPT NEW BATCH…]` (128 new tokens after a prompt of 128, batches 1
//! and 8, if nothing else is said), or `… gpt2|nano eval [SEQUENCES BATCH]`. `LNFREE_DTYPE` takes one type only.

use std::path::Path;
use std::time::Instant;

use lnfree::bench::published_shape;
use lnfree::config::FloatType;
use lnfree::data::{Layout, TokenFile, write_tokens};
use lnfree::eval::{EvalOptions, evaluate};
use lnfree::generate::{Generator, SampleOptions};
use lnfree::model::{Gpt2, Gpt2Config};
use lnfree::norm::{LnMode, LnState};
use lnfree::tch::Device;

/// Every LN fake with the same constant.
fn fake(n_layer: usize) -> LnState {
    let mut ln = LnState::plain(n_layer, Device::Cpu);
    for block in &mut ln.blocks {
        (block.ln1_qk, block.ln1_v, block.ln2) = (LnMode::Fake, LnMode::Fake, LnMode::Fake);
    }
    ln.lnf = LnMode::Fake;
    ln
}

/// Seconds that `batch` texts take.
fn write(generator: &Generator, prompt: usize, new: usize, batch: usize) -> lnfree::Result<f64> {
    let prompt: Vec<u32> = (0..prompt as u32).map(|i| 1 + (i * 7919) % 4000).collect();
    let options = SampleOptions { max_new_tokens: new, temperature: 0.0, ..SampleOptions::default() };
    let started = Instant::now();
    let texts = generator.generate_many(&vec![&prompt[..]; batch], options, |_, _| true)?;
    assert!(texts.iter().all(|text| text.len() == new), "a text ended early");
    Ok(started.elapsed().as_secs_f64())
}

/// Seconds that the shortest batch of an evaluation takes, the first apart: folding comes before it, once.
fn read(model: &Gpt2, ln: &LnState, tokens: &TokenFile, options: EvalOptions) -> lnfree::Result<f64> {
    let mut times = Vec::new();
    evaluate(model, ln, tokens, options, |_| times.push(Instant::now()))?;
    let seconds = times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64());
    Ok(seconds.fold(f64::INFINITY, f64::min))
}

/// The shortest of three runs of `work` with LN and without, in turns, so that a machine that gets slower does so for both.
fn compare(
    what: &str,
    tokens: usize,
    mut work: impl FnMut(bool) -> lnfree::Result<f64>,
) -> lnfree::Result<()> {
    let mut best = [f64::INFINITY; 2];
    for round in 0..4 {
        for (i, best) in best.iter_mut().enumerate() {
            let seconds = work(i == 0)?;
            // The first round warms up.
            if round > 0 {
                *best = best.min(seconds);
            }
        }
    }
    let [with, without] = best.map(|s| tokens as f64 / s);
    println!("{what}: with LN {with:.0} tokens/s, without {without:.0}: {:.2} times", without / with);
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = arguments.iter().skip(2).filter_map(|a| a.parse().ok()).collect();
    let nano = arguments.first().is_some_and(|a| a == "nano");
    let config = if nano { Gpt2Config::new(6, 4, 128, 256, 4096)? } else { published_shape("gpt2", 1024)? };
    let seq = if nano { 128 } else { 1024 };
    let mut model = Gpt2::init(config, 0, Device::Cpu)?;
    // Random weights may say end-of-text at any time.
    model.config.eos_token_ids = Vec::new();
    let states = [LnState::plain(model.h.len(), Device::Cpu), fake(model.h.len())];
    let only = std::env::var("LNFREE_DTYPE").ok();
    let folder = tempfile::tempdir()?;
    for dtype in [FloatType::Float32, FloatType::Bfloat16] {
        if only.as_ref().is_some_and(|only| only != dtype.name()) {
            continue;
        }
        if arguments.get(1).is_some_and(|a| a == "eval") {
            let (n, batch) = (numbers.first().copied().unwrap_or(4), numbers.get(1).copied().unwrap_or(1));
            let tokens = random_tokens(folder.path(), n, seq)?;
            let options = EvalOptions { batch_size: batch, dtype, ..EvalOptions::default() };
            compare(&format!("{} evaluation, batch {batch}", dtype.name()), batch * seq, |ln| {
                read(&model, &states[usize::from(!ln)], &tokens, options)
            })?;
            continue;
        }
        let (prompt, new, batches) = match numbers.as_slice() {
            [prompt, new, batches @ ..] => (*prompt, *new, batches.to_vec()),
            _ => (128, 128, vec![1, 8]),
        };
        let with = Generator::new(&model, &states[0], dtype)?;
        let without = Generator::new(&model, &states[1], dtype)?;
        for batch in batches {
            let what = format!("{} decoding, prompt {prompt}, {new} new, batch {batch}", dtype.name());
            compare(&what, batch * new, |ln| write(if ln { &with } else { &without }, prompt, new, batch))?;
        }
    }
    Ok(())
}

/// `n` sequences.
fn random_tokens(folder: &Path, n: usize, seq: usize) -> lnfree::Result<TokenFile> {
    let path = folder.join("tokens.arrow");
    let row = |i: usize| (0..seq).map(|j| ((i * seq + j) * 7919 % 4000) as u32).collect();
    write_tokens(&path, (0..n).map(|i| Ok(row(i))), Layout::Fixed(seq), 4096)?;
    TokenFile::open(path)
}
