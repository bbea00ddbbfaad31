//! Texts written token by token.

use std::time::Instant;

use tch::Device;

use super::{BenchOptions, Timed, model_to_read, random_tokens};
use crate::eval::generate::{Generator, SampleOptions};
use crate::model::Gpt2Config;
use crate::{Error, Result};

/// Times [`Generator::generate_many`], a batch of texts at a time.
pub(super) fn time(config: Gpt2Config, device: Device, options: BenchOptions) -> Result<Timed> {
    let BenchOptions { batch_size, seq, prompt, steps, warmup, dtype, .. } = options;
    let (_folder, tokens) = random_tokens(batch_size, seq, config.vocab_size)?;
    let (mut model, ln) = model_to_read(config, device, options.ln, &tokens)?;
    // Random weights may say end-of-text at any time.
    model.config.eos_token_ids = Vec::new();
    let generator = Generator::new(&model, &ln, dtype)?;
    let mut prompts = Vec::with_capacity(batch_size);
    for i in 0..batch_size {
        prompts.push(tokens.row(i)?.into_iter().take(prompt).map(|id| id as u32).collect::<Vec<u32>>());
    }
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let new = seq - prompt;
    let sampling = SampleOptions { max_new_tokens: new, temperature: 0.0, ..SampleOptions::default() };
    let mut step_s = Vec::with_capacity(steps);
    for step in 0..warmup + steps {
        let started = Instant::now();
        // Every token is read back, and so a GPU waited for.
        let texts = generator.generate_many(&prompts, sampling, |_, _| true)?;
        let seconds = started.elapsed().as_secs_f64();
        if texts.iter().any(|text| text.len() != new) {
            return Err(Error::invalid("a text ended before its last token: nothing was timed"));
        }
        if step >= warmup {
            step_s.push(seconds);
        }
    }
    Ok(Timed { step_s, loss: None, at_once: batch_size })
}
