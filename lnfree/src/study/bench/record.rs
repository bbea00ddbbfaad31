//! What a benchmark says about a task.

use serde::Serialize;
use tch::Device;

use super::{BenchLn, BenchOptions, Task, Timed};
use crate::base::device::device_name;
use crate::model::{Gpt2Config, Shape};
use crate::train::memory::{Passes, TrainingMemory};

/// What came out. Times are of one optimizer step, of one batch of an evaluation, or of writing one batch of
/// texts, prompts included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchRecord {
    /// Training, evaluation or generation.
    pub task: Task,
    /// What was done about LN.
    pub ln: BenchLn,
    /// Blocks, heads, model dimension, vocabulary.
    pub shape: [i64; 4],
    /// The device, in words.
    pub device: String,
    /// `float32`, `tf32` or `bfloat16`.
    pub dtype: String,
    /// Sequences that went through at a time: in training, fewer than were asked for where memory did not
    /// suffice for them.
    pub batch_size: usize,
    /// How often that was, in a step.
    pub accumulation: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Of a generation, how many of them were there before; else 0.
    pub prompt: usize,
    /// Whether blocks were computed again for their gradients.
    pub checkpointing: bool,
    /// Weight of the auxiliary loss.
    pub aux_weight: f64,
    /// Median time.
    pub median_step_s: f64,
    /// Shortest time.
    pub min_step_s: f64,
    /// By the median; of a generation, only new tokens count.
    pub tokens_per_s: f64,
    /// Floating-point operations that the task needs, per second, by the median: a forward's (see
    /// [`Shape::flop_per_token`]), for training three times that, and for a generation a forward of every
    /// token but the last, of the prompt without logits. What is computed twice counts once.
    pub flop_per_s: f64,
    /// The most that matrix products alone reach here ([`super::matrix_peak`]).
    pub matrix_peak: f64,
    /// The one as a share of the other.
    pub share_of_peak: f64,
    /// The most memory held at once while it was timed, in GiB.
    pub peak_gib: Option<f64>,
    /// What a plan of this training run counts on, in GiB ([`TrainingMemory`]).
    pub planned_gib: Option<f64>,
    /// Mean loss, near ln(vocab_size) for random weights; in training, that of the last step. A generation
    /// has none.
    pub loss: Option<f64>,
}

impl BenchRecord {
    /// From what was `timed` on `device`, with the matrix peak there and the most bytes that were `held`.
    pub(super) fn new(
        config: &Gpt2Config,
        device: Device,
        options: BenchOptions,
        timed: Timed,
        peak: f64,
        held: Option<u64>,
    ) -> BenchRecord {
        let BenchOptions { task, ln, seq, dtype, .. } = options;
        let (training, at_once) = (task == Task::Train, timed.at_once);
        let mut step_s = timed.step_s;
        step_s.sort_by(f64::total_cmp);
        let median = step_s.get(step_s.len() / 2).copied().unwrap_or(f64::NAN);
        let shape = Shape::of(config);
        let flop_per_s = flop_per_step(&shape, options) / median;
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        BenchRecord {
            task,
            ln,
            shape: [config.n_layer, config.n_head, config.n_embd, config.vocab_size],
            device: device_name(device),
            dtype: dtype.name().into(),
            batch_size: at_once,
            accumulation: options.micro_batches() * options.batch_size / at_once.max(1),
            seq,
            prompt: if task == Task::Generate { options.prompt } else { 0 },
            checkpointing: training && options.checkpointing,
            aux_weight: if training { options.aux_weight } else { 0.0 },
            median_step_s: median,
            min_step_s: step_s.first().copied().unwrap_or(f64::NAN),
            tokens_per_s: options.tokens() as f64 / median,
            flop_per_s,
            matrix_peak: peak,
            share_of_peak: flop_per_s / peak,
            peak_gib: held.map(gib),
            planned_gib: training.then(|| gib(planned(&shape, device, at_once, options))),
            loss: timed.loss,
        }
    }
}

/// Operations of one step.
fn flop_per_step(shape: &Shape, options: BenchOptions) -> f64 {
    let BenchOptions { task, batch_size, seq, prompt, .. } = options;
    let forward = |seq: usize| seq as f64 * shape.flop_per_token(seq as u64);
    let texts = (batch_size * options.micro_batches()) as f64;
    texts
        * match task {
            Task::Train => 3.0 * forward(seq),
            Task::Eval => forward(seq),
            Task::Generate => {
                let head = 2.0 * (shape.vocab_size * shape.n_embd) as f64;
                forward(seq - 1) - head * (prompt - 1) as f64
            }
        }
}

fn planned(shape: &Shape, device: Device, at_once: usize, options: BenchOptions) -> u64 {
    let passes = Passes {
        micro_batch: at_once as u64,
        seq: options.seq as u64,
        dtype: options.dtype,
        checkpointing: options.checkpointing,
        removes_ln: options.ln != BenchLn::Real,
        teacher: false,
        hidden: false,
        lora_rank: 0,
    };
    TrainingMemory::new(shape, passes, device).total()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FloatType;

    #[test]
    fn a_generation_needs_a_forward_of_all_but_its_last_token() {
        let shape = Shape::gpt2(12, 768);
        let options = |task, prompt| BenchOptions {
            task,
            ln: BenchLn::Real,
            batch_size: 2,
            accumulation: 3,
            seq: 9,
            prompt,
            steps: 1,
            warmup: 0,
            dtype: FloatType::Float32,
            checkpointing: false,
            aux_weight: 0.0,
        };
        // Position p reads p + 1 keys and values: 4 d operations each.
        let (d, layers, vocab) = (768.0, 12.0, 50257.0);
        let body: f64 = (0..8).map(|p| layers * (24.0 * d * d + 4.0 * d * f64::from(p + 1))).sum();
        let head = 5.0 * 2.0 * d * vocab;
        let generate = options(Task::Generate, 4);
        assert!((flop_per_step(&shape, generate) / (2.0 * (body + head)) - 1.0).abs() < 1e-12);
        assert_eq!((generate.tokens(), generate.micro_batches()), (10, 1));
        let train = options(Task::Train, 4);
        assert_eq!(flop_per_step(&shape, train), 9.0 * flop_per_step(&shape, options(Task::Eval, 4)));
        assert_eq!(train.tokens(), 54);
    }
}
