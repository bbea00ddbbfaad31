//! Batches of an evaluation.

use std::time::Instant;

use tch::Device;

use super::{BenchLn, BenchOptions, Timed, all_removed, random_tokens};
use crate::Result;
use crate::eval::{EvalOptions, evaluate};
use crate::export::fold;
use crate::model::{Gpt2, Gpt2Config};
use crate::norm::{LnState, NormSettings};

/// Times [`evaluate`], batch by batch.
pub(super) fn time(config: Gpt2Config, device: Device, options: BenchOptions) -> Result<Timed> {
    let BenchOptions { batch_size, seq, steps, warmup, dtype, .. } = options;
    let (_folder, tokens) = random_tokens(batch_size * (steps + warmup), seq, config.vocab_size)?;
    let (model, ln) = model(config, device, options, &tokens)?;
    let eval = EvalOptions { batch_size, dtype, ..EvalOptions::default() };
    let mut times = vec![Instant::now()];
    let done = evaluate(&model, &ln, &tokens, eval, |_| times.push(Instant::now()))?;
    let step_s = times.windows(2).skip(warmup).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
    let loss = done.losses.iter().map(|&x| f64::from(x)).sum::<f64>() / done.losses.len() as f64;
    Ok(Timed { step_s, loss })
}

/// Random weights, and what the options say about LN.
fn model(
    config: Gpt2Config,
    device: Device,
    options: BenchOptions,
    tokens: &crate::data::TokenFile,
) -> Result<(Gpt2, LnState)> {
    let model = Gpt2::init(config, 0, device)?;
    let plain = LnState::plain(model.h.len(), device);
    if options.ln == BenchLn::Real {
        return Ok((model, plain));
    }
    let ln = all_removed(&model, tokens, NormSettings::default())?;
    if options.ln == BenchLn::Fake {
        return Ok((model, ln));
    }
    let stds = Vec::<f64>::try_from(ln.statistics.frozen.select(1, 0).to_device(Device::Cpu))?;
    Ok((fold(&model, &stds)?, plain))
}
