//! Tokens per second of generation with kept keys and values, with LayerNorm and without, on random weights.
//!
//! `cargo run --release --example decode_speed -- [gpt2|nano] [PROMPT NEW BATCH…]`; 128 new tokens after a prompt of 128, batches 1 and
//! 8, if nothing else is said.

use std::time::Instant;

use lnfree::bench::published_shape;
use lnfree::config::FloatType;
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

/// Seconds of one run.
fn seconds(generator: &Generator, prompt: usize, new: usize, batch: usize) -> lnfree::Result<f64> {
    let prompt: Vec<u32> = (0..prompt as u32).map(|i| 1 + (i * 7919) % 4000).collect();
    let options = SampleOptions { max_new_tokens: new, temperature: 0.0, ..SampleOptions::default() };
    let started = Instant::now();
    let texts = generator.generate_many(&vec![&prompt[..]; batch], options, |_, _| true)?;
    assert!(texts.iter().all(|text| text.len() == new), "a text ended early");
    Ok(started.elapsed().as_secs_f64())
}

fn main() -> lnfree::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = arguments.iter().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (prompt, new, batches) = match numbers.as_slice() {
        [prompt, new, batches @ ..] => (*prompt, *new, batches.to_vec()),
        _ => (128, 128, vec![1, 8]),
    };
    let config = match arguments.first().map(String::as_str) {
        Some("nano") => Gpt2Config::new(6, 4, 128, 256, 4096)?,
        name => published_shape(name.unwrap_or("gpt2"), 1024)?,
    };
    let mut model = Gpt2::init(config, 0, Device::Cpu)?;
    // Random weights may say end-of-text at any time.
    model.config.eos_token_ids = Vec::new();
    let (real, fake) = (LnState::plain(model.h.len(), Device::Cpu), fake(model.h.len()));
    for dtype in [FloatType::Float32, FloatType::Bfloat16] {
        let started = Instant::now();
        let generators = [Generator::new(&model, &real, dtype)?, Generator::new(&model, &fake, dtype)?];
        println!("{}: both made ready in {:.2} s", dtype.name(), started.elapsed().as_secs_f64());
        for &batch in &batches {
            let mut times = [const { Vec::new() }; 2];
            // In turns, so that a machine that gets slower or faster does so for both; the first round warms up.
            for round in 0..4 {
                for (generator, times) in generators.iter().zip(&mut times) {
                    let s = seconds(generator, prompt, new, batch)?;
                    if round > 0 {
                        times.push(s);
                    }
                }
            }
            let [ln, folded] = times.map(|times| times.into_iter().fold(f64::INFINITY, f64::min));
            let rate = |s: f64| (batch * new) as f64 / s;
            println!(
                "{} batch {batch}: with LN {:.0} tokens/s, without {:.0}: {:.2} times",
                dtype.name(),
                rate(ln),
                rate(folded),
                ln / folded
            );
        }
    }
    Ok(())
}
