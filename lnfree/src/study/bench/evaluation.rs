//! Batches of an evaluation.

use std::time::Instant;

use tch::Device;

use super::{BenchOptions, Timed, model_to_read, random_tokens};
use crate::Result;
use crate::eval::{EvalOptions, evaluate};
use crate::model::Gpt2Config;

/// Times [`evaluate`], batch by batch.
pub(super) fn time(config: Gpt2Config, device: Device, options: BenchOptions) -> Result<Timed> {
    let BenchOptions { batch_size, seq, steps, warmup, dtype, .. } = options;
    let (_folder, tokens) = random_tokens(batch_size * (steps + warmup), seq, config.vocab_size)?;
    let (model, ln) = model_to_read(config, device, options.ln, &tokens)?;
    let eval = EvalOptions { batch_size, dtype, ..EvalOptions::default() };
    let mut times = vec![Instant::now()];
    let done = evaluate(&model, &ln, &tokens, eval, |_| times.push(Instant::now()))?;
    let step_s = times.windows(2).skip(warmup).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
    let loss = done.losses.iter().map(|&x| f64::from(x)).sum::<f64>() / done.losses.len() as f64;
    Ok(Timed { step_s, loss: Some(loss), at_once: batch_size })
}
