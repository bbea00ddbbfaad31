//! What LayerNorm costs in training: optimizer steps with it and without, on random weights, in turn, so that
//! a machine that gets slower does so for both.
//!
//! `cargo run --release --example ln_free_step -- gpt2|nano float32|bfloat16 [ACCUMULATION ROUNDS]`. A step
//! of nano's shape has 32 sequences of 128 tokens in a micro-batch, one of GPT-2 small's 1 of 1,024.

use std::time::Instant;

use anyhow::{Context, bail};
use lnfree::bench::{BenchLn, BenchOptions, Task, bench_trainer, published_shape};
use lnfree::config::FloatType;
use lnfree::device::keep_freed_memory;
use lnfree::model::Gpt2Config;
use lnfree::tch::Device;

const USAGE: &str = "usage: ln_free_step gpt2|nano float32|bfloat16 [ACCUMULATION ROUNDS]";
/// Steps that warm up.
const WARMUP: usize = 2;

/// Shape, its batch, and rounds where none are asked for.
fn arguments() -> anyhow::Result<(Gpt2Config, BenchOptions)> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let word = |i: usize, default: &'static str| arguments.get(i).map_or(default, String::as_str).to_owned();
    let (config, batch_size, seq, accumulation, steps) = match word(0, "gpt2").as_str() {
        "nano" => (Gpt2Config::new(6, 4, 128, 128, 4096)?, 32, 128, "1", "100"),
        "gpt2" => (published_shape("gpt2", 1024)?, 1, 1024, "4", "5"),
        _ => bail!(USAGE),
    };
    let number = |i, default| word(i, default).parse().ok().filter(|&n: &usize| n > 0).context(USAGE);
    let options = BenchOptions {
        task: Task::Train,
        ln: BenchLn::Real,
        batch_size,
        accumulation: number(2, accumulation)?,
        seq,
        prompt: 0,
        steps: number(3, steps)?,
        warmup: WARMUP,
        dtype: word(1, "float32").parse::<FloatType>().ok().context(USAGE)?,
        checkpointing: false,
        aux_weight: 0.0,
    };
    Ok((config, options))
}

/// The middle of `times`, and the quarters around it.
fn quartiles(times: &mut [f64]) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| times[(times.len() - 1) * quarter / 4])
}

fn main() -> anyhow::Result<()> {
    keep_freed_memory();
    let (config, options) = arguments()?;
    let mut runs = Vec::new();
    for ln in [BenchLn::Real, BenchLn::Fake] {
        runs.push((bench_trainer(config.clone(), Device::Cpu, BenchOptions { ln, ..options })?, Vec::new()));
    }
    for round in 0..WARMUP + options.steps {
        for ((_folder, trainer), times) in &mut runs {
            let started = Instant::now();
            trainer.train_step()?;
            if round >= WARMUP {
                times.push(started.elapsed().as_secs_f64());
            }
        }
    }
    let mut times: Vec<Vec<f64>> = runs.into_iter().map(|(_, times)| times).collect();
    let mut ratios: Vec<f64> = times[0].iter().zip(&times[1]).map(|(with, without)| with / without).collect();
    for (name, times) in ["with LN", "without"].iter().zip(&mut times) {
        let [low, middle, high] = quartiles(times).map(|s| 1e3 * s);
        println!(
            "{name}: {middle:.1} ms a step (half of them {low:.1} to {high:.1}), at best {:.1}",
            1e3 * times[0]
        );
    }
    let [low, middle, high] = quartiles(&mut ratios);
    println!("without LN {middle:.4} times as fast (half of the rounds {low:.4} to {high:.4})");
    Ok(())
}
