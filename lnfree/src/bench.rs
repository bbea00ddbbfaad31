//! How fast this machine is, on random weights and random tokens of a model's shape.

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::config::FloatType;
use crate::data::{Layout, TokenFile, write_tokens};
use crate::device::{device_name, peak_memory, reset_peak_memory};
use crate::eval::{EvalOptions, evaluate};
use crate::model::{Gpt2, Gpt2Config, Shape};
use crate::norm::LnState;
use crate::{Error, Result};

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BenchOptions {
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Batches that are timed.
    pub steps: usize,
    /// Batches before these, which are not.
    pub warmup: usize,
    /// What matrix products are computed in.
    pub dtype: FloatType,
}

/// What came out. Times are of one batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchRecord {
    /// `eval`.
    pub task: String,
    /// Blocks, heads, model dimension, vocabulary.
    pub shape: [i64; 4],
    /// The device, in words.
    pub device: String,
    /// `float32`, `tf32` or `bfloat16`.
    pub dtype: String,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Median time.
    pub median_step_s: f64,
    /// Shortest time.
    pub min_step_s: f64,
    /// By the median.
    pub tokens_per_s: f64,
    /// Floating-point operations that the task needs, per second, by the median (see [`Shape::flop_per_token`]).
    pub flop_per_s: f64,
    /// The most that matrix products alone reach here ([`matrix_peak`]).
    pub matrix_peak: f64,
    /// The one as a share of the other.
    pub share_of_peak: f64,
    /// The most memory held at once, in GiB.
    pub peak_gib: Option<f64>,
    /// Mean loss, near ln(vocab_size) for random weights.
    pub loss: f64,
}

/// The shape of a published size, with `seq` positions at least.
///
/// # Errors
/// Another name than gpt2, gpt2-medium, gpt2-large and gpt2-xl.
pub fn published_shape(name: &str, seq: usize) -> Result<Gpt2Config> {
    let (n_layer, n_head, n_embd) = match name {
        "gpt2" | "gpt2-small" => (12, 12, 768),
        "gpt2-medium" => (24, 16, 1024),
        "gpt2-large" => (36, 20, 1280),
        "gpt2-xl" => (48, 25, 1600),
        _ => {
            return Err(Error::invalid(format!(
                "size {name}: there are gpt2, gpt2-medium, gpt2-large and gpt2-xl"
            )));
        }
    };
    Gpt2Config::new(n_layer, n_head, n_embd, seq.max(1024) as i64, 50257)
}

/// Operations per second of a large matrix product in `dtype`, the best of several.
pub fn matrix_peak(dtype: FloatType, device: Device) -> f64 {
    let _guard = tch::no_grad_guard();
    let n: i64 = if device.is_cuda() { 8192 } else { 2048 };
    let a = Tensor::randn([n, n], (Kind::Float, device)).to_kind(dtype.kind());
    let b = a.copy();
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let started = Instant::now();
        let product = a.matmul(&b);
        // Reading one number waits for a GPU.
        let _ = product.get(0).get(0).double_value(&[]);
        best = best.min(started.elapsed().as_secs_f64());
    }
    2.0 * (n as f64).powi(3) / best
}

/// Times [`evaluate`] on random weights of this shape.
///
/// # Errors
/// When a temporary token file cannot be written, or sequences are longer than the model's positions.
pub fn bench_eval(config: Gpt2Config, device: Device, options: BenchOptions) -> Result<BenchRecord> {
    let BenchOptions { batch_size, seq, steps, warmup, dtype } = options;
    dtype.prepare(device)?;
    let peak = matrix_peak(dtype, device);
    let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let path = folder.path().join("random.arrow");
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let vocab = config.vocab_size as u32;
    let rows = (0..batch_size * (steps + warmup))
        .map(|_| Ok((0..seq).map(|_| random.random_range(0..vocab)).collect::<Vec<u32>>()));
    write_tokens(&path, rows, Layout::Fixed(seq), vocab as usize)?;
    let model = Gpt2::init(config, 0, device)?;
    let ln = LnState::plain(model.h.len(), device);
    reset_peak_memory(device);
    let mut times = vec![Instant::now()];
    let eval = EvalOptions { batch_size, dtype, ..EvalOptions::default() };
    let done = evaluate(&model, &ln, &TokenFile::open(&path)?, eval, |_| times.push(Instant::now()))?;
    let held = peak_memory(device);
    let mut step_s: Vec<f64> = times.windows(2).skip(warmup).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
    step_s.sort_by(f64::total_cmp);
    let median = step_s.get(step_s.len() / 2).copied().unwrap_or(f64::NAN);
    let tokens = (batch_size * seq) as f64;
    let flop_per_s = tokens * Shape::of(&model.config).flop_per_token(seq as u64) / median;
    // Before and after: a machine is not equally fast all the time.
    let peak = peak.max(matrix_peak(dtype, device));
    Ok(BenchRecord {
        task: "eval".into(),
        shape: [model.config.n_layer, model.config.n_head, model.config.n_embd, model.config.vocab_size],
        device: device_name(device),
        dtype: dtype.name().into(),
        batch_size,
        seq,
        median_step_s: median,
        min_step_s: step_s.first().copied().unwrap_or(f64::NAN),
        tokens_per_s: tokens / median,
        flop_per_s,
        matrix_peak: peak,
        share_of_peak: flop_per_s / peak,
        peak_gib: held.map(|bytes| bytes as f64 / (1u64 << 30) as f64),
        loss: done.losses.iter().map(|&x| f64::from(x)).sum::<f64>() / done.losses.len() as f64,
    })
}
