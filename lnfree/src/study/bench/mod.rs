//! How fast this machine is, on random weights and random tokens of a model's shape.
//!
//! What is timed is what `lnfree train`, `lnfree eval` and `lnfree generate` run: a
//! [`Trainer`](crate::train::Trainer) takes whole optimizer steps, [`evaluate`](crate::eval::evaluate) goes
//! over a token file, or a [`Generator`](crate::eval::generate::Generator) continues prompts.

mod evaluation;
mod generation;
mod options;
mod record;
mod table;
mod training;

pub use options::{BenchLn, BenchOptions, Task};
pub use record::BenchRecord;
pub use table::bench_table;
pub use training::bench_trainer;

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::base::device::{peak_memory, reset_peak_memory};
use crate::config::FloatType;
use crate::config::norm::{NormSettings, RemovalKind};
use crate::data::{Layout, TokenFile, write_tokens};
use crate::eval::stds::measure;
use crate::export::fold;
use crate::model::ln_state::LnState;
use crate::model::{Gpt2, Gpt2Config, Shape};
use crate::ops::{must, product};
use crate::{Error, Result};

/// Sequences that the standard deviations of fake LNs are measured on: speed does not depend on their values.
const MEASURED_SEQUENCES: usize = 2;

/// What one task measured.
struct Timed {
    /// Seconds of every step after the warm-up.
    step_s: Vec<f64>,
    loss: Option<f64>,
    /// Sequences that went through at a time.
    at_once: usize,
}

/// The shape of a published size, with `seq` positions at least.
///
/// # Errors
/// Another name than gpt2, gpt2-medium, gpt2-large and gpt2-xl.
pub fn published_shape(name: &str, seq: usize) -> Result<Gpt2Config> {
    let (n_layer, n_head, n_embd) = Shape::published(name).ok_or_else(|| {
        Error::invalid(format!("size {name}: there are gpt2, gpt2-medium, gpt2-large and gpt2-xl"))
    })?;
    Gpt2Config::new(n_layer, n_head, n_embd, seq.max(1024) as i64, 50257)
}

/// Operations per second of a large matrix product in `dtype` by the fastest library there is, the best of
/// several.
pub fn matrix_peak(dtype: FloatType, device: Device) -> f64 {
    let _guard = tch::no_grad_guard();
    let n: i64 = if device.is_cuda() { 8192 } else { 2048 };
    let a = Tensor::randn([n, n], (Kind::Float, device)).to_kind(dtype.in_effect(device).kind());
    let b = a.copy();
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let started = Instant::now();
        let product = must(product(&a, &b));
        // Reading one number waits for a GPU.
        let _ = product.get(0).get(0).double_value(&[]);
        best = best.min(started.elapsed().as_secs_f64());
    }
    2.0 * (n as f64).powi(3) / best
}

/// Times a task on random weights of this shape.
///
/// # Errors
/// When a temporary token file cannot be written, sequences are longer than the model's positions, a prompt
/// leaves nothing to write, or a folded model is to be trained; [`Error::NotFinite`] when the loss is no
/// number.
pub fn bench(config: Gpt2Config, device: Device, options: BenchOptions) -> Result<BenchRecord> {
    let BenchOptions { task, ln, seq, prompt, dtype, .. } = options;
    if task == Task::Train && ln == BenchLn::Folded {
        return Err(Error::invalid(
            "--ln folded is a model to be read, not trained: take --task eval, or --ln fake",
        ));
    }
    if task == Task::Generate && !(1..seq).contains(&prompt) {
        return Err(Error::invalid(format!(
            "a prompt of {prompt} tokens in texts of {seq}: it needs at least one, and one less than the text"
        )));
    }
    dtype.prepare(device)?;
    let peak = matrix_peak(dtype, device);
    let shape = config.clone();
    reset_peak_memory(device);
    let timed = match task {
        Task::Train => training::time(config, device, options)?,
        Task::Eval => evaluation::time(config, device, options)?,
        Task::Generate => generation::time(config, device, options)?,
    };
    if let Some(loss) = timed.loss.filter(|loss| !loss.is_finite()) {
        return Err(Error::NotFinite(format!(
            "the loss of random weights is {loss}: what was timed computes wrongly"
        )));
    }
    let held = peak_memory(device);
    // Before and after: a machine is not equally fast all the time.
    let peak = peak.max(matrix_peak(dtype, device));
    Ok(BenchRecord::new(&shape, device, options, timed, peak, held))
}

/// `n` random sequences in a folder that goes with the first value.
fn random_tokens(n: usize, seq: usize, vocab_size: i64) -> Result<(TempDir, TokenFile)> {
    let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let path = folder.path().join("random.arrow");
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let vocab = vocab_size as u32;
    let rows = (0..n).map(|_| Ok((0..seq).map(|_| random.random_range(0..vocab)).collect::<Vec<u32>>()));
    write_tokens(&path, rows, Layout::Fixed(seq), vocab as usize)?;
    let tokens = TokenFile::open(&path)?;
    Ok((folder, tokens))
}

/// Random weights, and what the options say about LN; standard deviations are those of some of `tokens`.
fn model_to_read(
    config: Gpt2Config,
    device: Device,
    ln: BenchLn,
    tokens: &TokenFile,
) -> Result<(Gpt2, LnState)> {
    let model = Gpt2::init(config, 0, device)?;
    let state = ln_state(&model, tokens, NormSettings::default(), ln)?;
    if ln != BenchLn::Folded {
        return Ok((model, state));
    }
    let stds = Vec::<f64>::try_from(state.statistics.frozen.select(1, 0).to_device(Device::Cpu))?;
    Ok((fold(&model, &stds)?, LnState::plain(model.h.len(), device)))
}

/// The state that `ln` means, by the standard deviations of a few sequences.
fn ln_state(model: &Gpt2, tokens: &TokenFile, settings: NormSettings, ln: BenchLn) -> Result<LnState> {
    let n_layer = model.h.len();
    let plain = LnState::plain(n_layer, model.device());
    if ln == BenchLn::Real {
        return Ok(plain);
    }
    let stds = measure(model, &plain, tokens, MEASURED_SEQUENCES, 1)?;
    let mut state = LnState::real(&stds.initial(n_layer)?, settings, model.device());
    if ln == BenchLn::Half {
        state.remove(RemovalKind::Ln2, None);
        state.remove(RemovalKind::Ln1Qk, None);
        (0..n_layer / 2).for_each(|layer| state.remove(RemovalKind::Ln1V, Some(layer)));
    } else {
        RemovalKind::ALL.into_iter().for_each(|kind| state.remove(kind, None));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::norm::LnSite;

    #[test]
    fn half_removed_has_every_kind_of_ln_1() {
        let model = Gpt2::init(Gpt2Config::new(4, 2, 32, 16, 61).unwrap(), 0, Device::Cpu).unwrap();
        let (_folder, tokens) = random_tokens(2, 16, 61).unwrap();
        let state = |ln| ln_state(&model, &tokens, NormSettings::default(), ln).unwrap();
        let half = state(BenchLn::Half);
        let fake = |site| half.mode(site).is_fake();
        assert!(
            (0..4)
                .all(|l| fake(LnSite::Ln2(l)) && fake(LnSite::Ln1Qk(l)) && fake(LnSite::Ln1V(l)) == (l < 2))
        );
        assert!(!fake(LnSite::LnF) && (0..4).all(|l| half.faces_agree(l, false) == (l < 2)));
        assert!(state(BenchLn::Fake).all_fake() && !state(BenchLn::Real).mode(LnSite::Ln2(0)).is_fake());
    }
}
