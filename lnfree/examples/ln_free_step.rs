//! What LayerNorm costs in training: optimizer steps with it and without, on random weights, in turn, so that a machine that gets slower
//! does so for both.
//!
//! `cargo run --release --example ln_free_step -- gpt2|nano float32|bfloat16 [ACCUMULATION ROUNDS]`. A step of nano's shape has 32 sequences
//! of 128 tokens in a micro-batch, one of GPT-2 small's 1 of 1,024.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lnfree::bench::published_shape;
use lnfree::config::Config;
use lnfree::data::{Layout, TokenFile, write_tokens};
use lnfree::device::keep_freed_memory;
use lnfree::model::{Gpt2, Gpt2Config};
use lnfree::norm::{LnMode, LnState, NormSettings};
use lnfree::tch::Device;
use lnfree::train::{Mode, StartOptions, Trainer};

/// Every LN fake, after a removal that has been and gone.
fn fake(n_layer: usize) -> LnState {
    let mut ln = LnState::real(&vec![(1.0, 1.0); 2 * n_layer + 1], NormSettings::default(), Device::Cpu);
    for block in &mut ln.blocks {
        (block.ln1_qk, block.ln1_v, block.ln2) = (LnMode::Fake, LnMode::Fake, LnMode::Fake);
    }
    ln.lnf = LnMode::Fake;
    ln
}

/// A run on random tokens; `batch` sequences of `seq` tokens, `accumulation` times a step.
fn trainer(
    folder: &Path,
    nano: bool,
    dtype: &str,
    accumulation: usize,
    with_ln: bool,
) -> lnfree::Result<Trainer> {
    let (config, batch, seq) = match nano {
        true => (Gpt2Config::new(6, 4, 128, 128, 4096)?, 32, 128),
        false => (published_shape("gpt2", 1024)?, 1, 1024),
    };
    let path = folder.join(format!("tokens-{with_ln}.arrow"));
    let row = |i: usize| (0..seq).map(|j| ((i * seq + j) * 7919 % 4000) as u32).collect();
    write_tokens(&path, (0..2 * batch * accumulation).map(|i| Ok(row(i))), Layout::Fixed(seq), 4096)?;
    let model = Gpt2::init(config, 0, Device::Cpu)?;
    let text = format!(
        "model = {{ name = 'random', n_layer = {} }}\n\
         data = {{ train = 'random', block_size = {seq} }}\n\
         [train]\n\
         batch_size = {batch}\n\
         gradient_accumulation_steps = {accumulation}\n\
         max_steps = 10000\n\
         learning_rate = 1e-6\n\
         min_lr = 1e-6\n\
         warmup_steps = 0\n\
         aux_loss_weight = 0.0\n\
         dropout = 0.0\n\
         dtype = '{dtype}'\n",
        model.h.len()
    );
    let ln = if with_ln { LnState::plain(model.h.len(), Device::Cpu) } else { fake(model.h.len()) };
    let start = StartOptions {
        mode: if with_ln { Mode::WithLn } else { Mode::WithoutLn },
        model_dir: PathBuf::new(),
        tokens: TokenFile::open(path)?,
        eval_tokens: None,
        device: Device::Cpu,
    };
    Trainer::of_model(Config::parse(&text, "the example", &[])?, start, model, ln)
}

/// The middle of `times`, and the quarters around it.
fn quartiles(times: &mut [f64]) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| times[(times.len() - 1) * quarter / 4])
}

fn main() -> anyhow::Result<()> {
    keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let nano = arguments.first().is_some_and(|a| a == "nano");
    let dtype = arguments.get(1).map_or("float32", String::as_str);
    let number = |i: usize, default: usize| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (accumulation, rounds) = (number(2, if nano { 1 } else { 4 }), number(3, if nano { 100 } else { 5 }));
    let folder = tempfile::tempdir()?;
    let mut trainers = [true, false].map(|ln| trainer(folder.path(), nano, dtype, accumulation, ln));
    let mut times = [Vec::new(), Vec::new()];
    // The first two rounds warm up.
    for round in 0..rounds + 2 {
        for (trainer, times) in trainers.iter_mut().zip(&mut times) {
            let Ok(trainer) = trainer else { continue };
            let started = Instant::now();
            trainer.train_step()?;
            if round >= 2 {
                times.push(started.elapsed().as_secs_f64());
            }
        }
    }
    for trainer in trainers {
        trainer?;
    }
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
