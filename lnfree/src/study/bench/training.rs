//! Optimizer steps.

use std::path::PathBuf;
use std::time::Instant;

use tch::Device;
use tempfile::TempDir;

use super::{BenchLn, BenchOptions, Timed, ln_state, random_tokens};
use crate::Result;
use crate::base::device::reset_peak_memory;
use crate::config::Config;
use crate::model::{Gpt2, Gpt2Config};
use crate::train::{Mode, StartOptions, Trainer};

/// Times [`Trainer::train_step`].
pub(super) fn time(config: Gpt2Config, device: Device, options: BenchOptions) -> Result<Timed> {
    let (_folder, mut trainer) = bench_trainer(config, device, options)?;
    reset_peak_memory(device);
    let mut timed =
        Timed { step_s: Vec::with_capacity(options.steps), loss: None, at_once: options.batch_size };
    for step in 0..options.warmup + options.steps {
        let started = Instant::now();
        // Reads the losses back, and so waits for a GPU.
        timed.loss = Some(trainer.train_step()?.loss);
        if step >= options.warmup {
            timed.step_s.push(started.elapsed().as_secs_f64());
        }
    }
    timed.at_once = trainer.micro_batch();
    Ok(timed)
}

/// The run that a benchmark of training times, on random weights and tokens, and the folder of the tokens,
/// which goes with the first value.
///
/// # Errors
/// When a temporary token file cannot be written, or sequences are longer than the model's positions.
pub fn bench_trainer(
    config: Gpt2Config,
    device: Device,
    options: BenchOptions,
) -> Result<(TempDir, Trainer)> {
    let BenchOptions { batch_size, accumulation, seq, .. } = options;
    // Enough that no step has the sequences of the one before.
    let (folder, tokens) = random_tokens(2 * batch_size * accumulation, seq, config.vocab_size)?;
    let model = Gpt2::init(config, 0, device)?;
    let run = run_config(&model.config, options)?;
    let ln = ln_state(&model, &tokens, run.norm.clone(), options.ln)?;
    let mode = if options.ln == BenchLn::Real { Mode::WithLn } else { Mode::WithoutLn };
    let start = StartOptions { mode, model_dir: PathBuf::new(), tokens, eval_tokens: None, device };
    Ok((folder, Trainer::of_model(run, start, model, ln)?))
}

/// The config of such a run: nothing is removed any more, and nothing dropped out.
fn run_config(model: &Gpt2Config, options: BenchOptions) -> Result<Config> {
    let BenchOptions {
        batch_size, accumulation, seq, steps, warmup, dtype, checkpointing, aux_weight, ..
    } = options;
    let text = format!(
        "model = {{ name = 'random', n_layer = {} }}\n\
         data = {{ train = 'random', block_size = {seq} }}\n\
         [train]\n\
         batch_size = {batch_size}\n\
         gradient_accumulation_steps = {accumulation}\n\
         max_steps = {}\n\
         learning_rate = 1e-5\n\
         min_lr = 1e-5\n\
         warmup_steps = 0\n\
         dtype = '{}'\n\
         gradient_checkpointing = {checkpointing}\n\
         aux_loss_weight = {aux_weight:?}\n\
         dropout = 0.0\n",
        model.n_layer,
        steps + warmup,
        dtype.name(),
    );
    Config::parse(&text, "bench", &[])
}
