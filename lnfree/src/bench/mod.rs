//! How fast this machine is, on random weights and random tokens of a model's shape.
//!
//! What is timed is what `lnfree train` and `lnfree eval` run: a [`Trainer`](crate::train::Trainer) takes whole optimizer steps, or
//! [`evaluate`](crate::eval::evaluate) goes over a token file.

mod evaluation;
mod table;
mod training;

pub use table::bench_table;

use std::str::FromStr;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::config::FloatType;
use crate::data::{Layout, TokenFile, write_tokens};
use crate::device::{device_name, peak_memory, reset_peak_memory};
use crate::model::{Gpt2, Gpt2Config, Shape};
use crate::native::{must, product};
use crate::norm::{LnState, NormSettings, RemovalKind};
use crate::stds::measure;
use crate::{Error, Result};

/// Sequences that the standard deviations of fake LNs are measured on: speed does not depend on their values.
const MEASURED_SEQUENCES: usize = 2;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Optimizer steps: forwards and backwards of the micro-batches, clipping, AdamW.
    Train,
    /// Losses of batches, without gradients.
    Eval,
}

/// What is done about LN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BenchLn {
    /// Ordinary LN; in training, the vanilla control.
    Real,
    /// Every LN replaced; in training, as in a run after its last removal, statistics still followed.
    Fake,
    /// No LN left: the folded export. For evaluation alone.
    Folded,
}

impl FromStr for Task {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "train" => Ok(Task::Train),
            "eval" => Ok(Task::Eval),
            _ => Err("one of train, eval".into()),
        }
    }
}

impl FromStr for BenchLn {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "real" => Ok(BenchLn::Real),
            "fake" => Ok(BenchLn::Fake),
            "folded" => Ok(BenchLn::Folded),
            _ => Err("one of real, fake, folded".into()),
        }
    }
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BenchOptions {
    /// Training or evaluation.
    pub task: Task,
    /// What is done about LN.
    pub ln: BenchLn,
    /// Sequences in a batch; in training, in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches in an optimizer step; an evaluation has none.
    pub accumulation: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Steps, or batches of an evaluation, that are timed.
    pub steps: usize,
    /// Those before, which are not.
    pub warmup: usize,
    /// What matrix products are computed in.
    pub dtype: FloatType,
    /// In training, compute blocks again instead of keeping what is inside of them.
    pub checkpointing: bool,
    /// In training, the weight of the auxiliary loss; 0 leaves it out.
    pub aux_weight: f64,
}

/// What came out. Times are of one optimizer step, or of one batch of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchRecord {
    /// Training or evaluation.
    pub task: Task,
    /// What was done about LN.
    pub ln: BenchLn,
    /// Blocks, heads, model dimension, vocabulary.
    pub shape: [i64; 4],
    /// The device, in words.
    pub device: String,
    /// `float32`, `tf32` or `bfloat16`.
    pub dtype: String,
    /// Sequences in a batch, or in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches in a step.
    pub accumulation: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Whether blocks were computed again for their gradients.
    pub checkpointing: bool,
    /// Weight of the auxiliary loss.
    pub aux_weight: f64,
    /// Median time.
    pub median_step_s: f64,
    /// Shortest time.
    pub min_step_s: f64,
    /// By the median.
    pub tokens_per_s: f64,
    /// Floating-point operations that the task needs, per second, by the median: a forward's (see
    /// [`Shape::flop_per_token`]), and for training three times that. What is computed twice counts once.
    pub flop_per_s: f64,
    /// The most that matrix products alone reach here ([`matrix_peak`]).
    pub matrix_peak: f64,
    /// The one as a share of the other.
    pub share_of_peak: f64,
    /// The most memory held at once while it was timed, in GiB.
    pub peak_gib: Option<f64>,
    /// Mean loss, near ln(vocab_size) for random weights; in training, that of the last step.
    pub loss: f64,
}

/// What one task measured.
struct Timed {
    /// Seconds of every step after the warm-up.
    step_s: Vec<f64>,
    loss: f64,
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

/// Operations per second of a large matrix product in `dtype` by the fastest library there is, the best of several.
pub fn matrix_peak(dtype: FloatType, device: Device) -> f64 {
    let _guard = tch::no_grad_guard();
    let n: i64 = if device.is_cuda() { 8192 } else { 2048 };
    let a = Tensor::randn([n, n], (Kind::Float, device)).to_kind(dtype.kind());
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
/// When a temporary token file cannot be written, sequences are longer than the model's positions, or a folded model is to be
/// trained.
pub fn bench(config: Gpt2Config, device: Device, options: BenchOptions) -> Result<BenchRecord> {
    let BenchOptions { task, ln, batch_size, accumulation, seq, dtype, .. } = options;
    if task == Task::Train && ln == BenchLn::Folded {
        return Err(Error::invalid(
            "--ln folded is a model to be read, not trained: take --task eval, or --ln fake",
        ));
    }
    dtype.prepare(device)?;
    let peak = matrix_peak(dtype, device);
    let shape = [config.n_layer, config.n_head, config.n_embd, config.vocab_size];
    let flop_per_token = Shape::of(&config).flop_per_token(seq as u64);
    reset_peak_memory(device);
    let (timed, micro_batches, passes) = match task {
        Task::Train => (training::time(config, device, options)?, accumulation, 3.0),
        Task::Eval => (evaluation::time(config, device, options)?, 1, 1.0),
    };
    let held = peak_memory(device);
    let mut step_s = timed.step_s;
    step_s.sort_by(f64::total_cmp);
    let median = step_s.get(step_s.len() / 2).copied().unwrap_or(f64::NAN);
    let tokens = (batch_size * micro_batches * seq) as f64;
    let flop_per_s = passes * tokens * flop_per_token / median;
    // Before and after: a machine is not equally fast all the time.
    let peak = peak.max(matrix_peak(dtype, device));
    Ok(BenchRecord {
        task,
        ln,
        shape,
        device: device_name(device),
        dtype: dtype.name().into(),
        batch_size,
        accumulation: micro_batches,
        seq,
        checkpointing: task == Task::Train && options.checkpointing,
        aux_weight: if task == Task::Train { options.aux_weight } else { 0.0 },
        median_step_s: median,
        min_step_s: step_s.first().copied().unwrap_or(f64::NAN),
        tokens_per_s: tokens / median,
        flop_per_s,
        matrix_peak: peak,
        share_of_peak: flop_per_s / peak,
        peak_gib: held.map(|bytes| bytes as f64 / (1u64 << 30) as f64),
        loss: timed.loss,
    })
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

/// The state of a model whose LNs are all gone, by the standard deviations of a few sequences.
fn all_removed(model: &Gpt2, tokens: &TokenFile, settings: NormSettings) -> Result<LnState> {
    let plain = LnState::plain(model.h.len(), model.device());
    let stds = measure(model, &plain, tokens, MEASURED_SEQUENCES, 1)?;
    let mut ln = LnState::real(&stds.initial(model.h.len())?, settings, model.device());
    for kind in RemovalKind::ALL {
        ln.remove(kind, None);
    }
    Ok(ln)
}
