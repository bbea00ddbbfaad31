//! What training and evaluating need of memory, counted before they start.
//!
//! The arithmetic is that of this crate's own passes: which tensors a training forward keeps for its backward
//! (read off `model::block`, `train::backward` and libtorch's derivative formulas), and how many of each
//! model dimension. Widths are counted in d = n_embd per token; the MLP is 4 d wide.

use tch::Device;

use crate::base::device::keeps_freed_memory;
use crate::config::Mode;
use crate::config::{Config, FloatType};
use crate::model::Shape;
use crate::ops::float_rows_at_a_time;
use crate::ops::loss::rows_at_a_time;

/// Bytes of a parameter in training: the float32 weight, its gradient, and Adam's two moments.
pub const TRAINING_BYTES_PER_PARAMETER: u64 = 4 * FLOAT;

const FLOAT: u64 = 4;
const BFLOAT16: u64 = 2;

/// What the program and libtorch hold of main memory before any model: measured.
const PROGRAM: u64 = 200 << 20;

/// Of a block's widths (d per token) in flight while it is taken back, beside what was kept: gradients of the
/// MLP's inside and outside, of queries, keys and values, and of the residual stream.
const BACKWARD_WIDTHS: u64 = 10;

/// What gaps between tensors take at most in a program that keeps freed memory: this much, and this many
/// times what comes and goes in a step. With it, peaks of GPT-2 small's shape were 0.97 to 1.01 of the plan
/// in six runs, of nano's 0.66 to 0.76 in seven, of two blocks with a large vocabulary 0.54.
const LEAST_GAPS: u64 = 64 << 20;
const GAPS: (u64, u64) = (3, 2);

/// Of the free memory of a GPU, what can be counted on: the allocator cannot fill every gap, and cuBLAS takes
/// room of its own.
const USABLE_ON_GPU: f64 = 0.94;

/// How micro-batches go through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes {
    /// Sequences at a time.
    pub micro_batch: u64,
    /// Tokens in a sequence.
    pub seq: u64,
    /// What matrix products are computed in.
    pub dtype: FloatType,
    /// Keep only the residual stream between blocks, and compute them again.
    pub checkpointing: bool,
    /// Whether LNs are removed: they then go into copies of the matrices.
    pub removes_ln: bool,
    /// Whether a teacher of the same shape goes along.
    pub teacher: bool,
    /// Whether the residual streams are to stay close to the teacher's too.
    pub hidden: bool,
    /// Rank of the adapters that train instead of everything; 0 without.
    pub lora_rank: u64,
}

impl Passes {
    /// The same in what is computed in on `device` (see [`FloatType::in_effect`]).
    pub fn on(self, device: Device) -> Passes {
        Passes { dtype: self.dtype.in_effect(device), ..self }
    }

    /// How a config's batches go through, `micro_batch` sequences at a time.
    pub fn of(config: &Config, mode: Mode, micro_batch: u64) -> Passes {
        Passes {
            micro_batch,
            seq: config.data.block_size as u64,
            dtype: config.train.dtype,
            checkpointing: config.train.gradient_checkpointing,
            removes_ln: mode == Mode::WithoutLn,
            teacher: config.distill.teacher.is_some(),
            hidden: config.distill.hidden_weight > 0.0,
            lora_rank: config.lora.rank.unwrap_or(0) as u64,
        }
    }
}

/// Bytes that training holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingMemory {
    /// The program and libtorch; nothing on a GPU, where only tensors are counted.
    pub program: u64,
    /// Parameters in float32.
    pub weights: u64,
    /// Their gradients, but for embeddings that do not train.
    pub gradients: u64,
    /// Adam's two moments of everything that trains.
    pub moments: u64,
    /// Adapters with their gradients, and the frozen matrices.
    pub adapters: u64,
    /// Matrices as the micro-batches of a step compute with them: in bfloat16, or in float32 with LNs in
    /// them.
    pub copies: u64,
    /// A teacher's weights in the type of matrix products, what it unembeds, and where they are asked for its
    /// residual streams, with their differences from the model's.
    pub teacher: u64,
    /// What one micro-batch keeps between forward and backward.
    pub activations: u64,
    /// What is in flight at the widest place of the backward: a piece of the logits, or what flows through a
    /// block.
    pub working: u64,
    /// On a CPU, in a program that keeps what it frees ([`crate::base::device::keep_freed_memory`]): gaps
    /// between tensors that others do not fill.
    pub gaps: u64,
}

impl TrainingMemory {
    /// The arithmetic for one shape.
    pub fn new(shape: &Shape, passes: Passes, device: Device) -> TrainingMemory {
        let Passes { micro_batch, seq, dtype, checkpointing, removes_ln, teacher, hidden, lora_rank } =
            passes;
        let (layers, d) = (shape.n_layer, shape.n_embd);
        let tokens = micro_batch * seq;
        let parameters = FLOAT * shape.parameters();
        let half = dtype == FloatType::Bfloat16;
        let bytes = if half { BFLOAT16 } else { FLOAT };
        let block = block_bytes(d, bytes);
        // The final norm's input and output, what is unembedded, and the gradients of the latter two.
        let last = (3 * FLOAT + 2 * bytes) * d;
        let head = match teacher {
            true => 2 * head_bytes(shape, tokens, bytes, device) + distilling_bytes(shape, tokens, device),
            false => head_bytes(shape, tokens, bytes, device),
        };
        let flowing = tokens * BACKWARD_WIDTHS * FLOAT * d;
        let (kept, through_a_block) = if checkpointing {
            // One block at a time is there in full, when the logits are gone.
            ((layers + 1) * FLOAT * d, tokens * block + flowing)
        } else {
            (layers * block, flowing)
        };
        let gaps = match device == Device::Cpu && keeps_freed_memory() {
            true => LEAST_GAPS + (head + through_a_block) * GAPS.0 / GAPS.1,
            false => 0,
        };
        let copies = match (half, removes_ln) {
            (true, _) => BFLOAT16 * (12 * layers * d + shape.vocab_size) * d,
            (false, true) => FLOAT * 7 * layers * d * d,
            (false, false) => 0,
        };
        let matrices = FLOAT * 12 * layers * d * d;
        // [d, 3 d], [d, d], [d, 4 d] and [4 d, d], each with its rows and columns once a rank.
        let adapters = FLOAT * 16 * layers * d * lora_rank;
        let (frozen, moments, adapters) = match lora_rank {
            0 => (0, 2 * parameters, 0),
            _ => (FLOAT * shape.embeddings(), 2 * adapters, 2 * adapters + matrices),
        };
        let streams = if hidden { 2 * FLOAT * layers * d * tokens } else { 0 };
        let taught = bytes * shape.parameters() + tokens * bytes * d + streams;
        TrainingMemory {
            program: if device == Device::Cpu { PROGRAM } else { 0 },
            weights: parameters,
            gradients: parameters - frozen,
            moments,
            adapters,
            copies,
            teacher: if teacher { taught } else { 0 },
            activations: tokens * (kept + last),
            working: head.max(through_a_block),
            gaps,
        }
    }

    /// The most held at once.
    pub fn total(&self) -> u64 {
        self.program + self.weights + self.moments + self.adapters + self.still_to_come()
    }

    /// What of it is not there yet when the model is loaded and no step has been made.
    pub fn still_to_come(&self) -> u64 {
        self.gradients + self.copies + self.teacher + self.activations + self.working + self.gaps
    }
}

/// What a block keeps of one token for its backward, with `bytes` a number in matrix products: in float32 the
/// residual stream where either LN reads it, and for the products the output of either LN, queries, keys and
/// values, attention's output, and the MLP's inside before and after its activation. Where an LN is in the
/// matrix that reads it, its output is not there: a run without LN gets by with an eighth less, once it is.
fn block_bytes(d: u64, bytes: u64) -> u64 {
    (2 * FLOAT + (1 + 3 + 1 + 1 + 4 + 4) * bytes) * d
}

/// What a piece of the logits takes, with `bytes` a number. A GPU makes log-probabilities of some of its rows
/// in float32, of bfloat16 ones after a copy. Later the gradient of the unembedding is there in bfloat16,
/// apart from what was gathered.
fn head_bytes(shape: &Shape, tokens: u64, bytes: u64, device: Device) -> u64 {
    let (d, vocab) = (shape.n_embd, shape.vocab_size);
    let logits = bytes * vocab * tokens.min(rows_at_a_time(vocab, bytes, device == Device::Cpu));
    let float_rows = FLOAT * vocab * tokens.min(float_rows_at_a_time(vocab));
    match (device, bytes) {
        (Device::Cpu, BFLOAT16) => logits + BFLOAT16 * vocab * d,
        (Device::Cpu, _) => logits,
        (_, BFLOAT16) => logits + (2 * float_rows).max(BFLOAT16 * vocab * d),
        _ => logits + float_rows,
    }
}

/// Float32 rows of either model's logits on the way to their gradients: logits, log-probabilities of both,
/// and probabilities.
fn distilling_bytes(shape: &Shape, tokens: u64, device: Device) -> u64 {
    match device {
        // They stay in the cache.
        Device::Cpu => 0,
        _ => 4 * FLOAT * shape.vocab_size * tokens.min(float_rows_at_a_time(shape.vocab_size)),
    }
}

/// Bytes that a plan may count on where so many are free.
pub fn usable(free: u64, device: Device) -> u64 {
    match device {
        Device::Cpu => free,
        _ => (free as f64 * USABLE_ON_GPU) as u64,
    }
}

/// Bytes that evaluating a model takes at least, or two that are compared: weights as loaded (a quarter more
/// while they are read), the copy that bfloat16 computes with, and half a GiB for libtorch, activations and a
/// piece of the logits. Batches are fitted to what is left.
pub fn evaluation_bytes(shapes: &[Shape], dtype: FloatType) -> u64 {
    let copy = if dtype == FloatType::Bfloat16 { BFLOAT16 } else { 0 };
    let parameters: u64 = shapes.iter().map(Shape::parameters).sum();
    parameters * (FLOAT * 5 / 4 + copy) + (512 << 20)
}

/// The largest micro-batch of which `fits` says so: `batch_size`, or a part of it that divides it evenly, so
/// that an optimizer step still sees the same sequences. `None` when not even one sequence fits.
pub fn fitting_micro_batch(
    shape: &Shape,
    batch: Passes,
    device: Device,
    fits: impl Fn(&TrainingMemory) -> bool,
) -> Option<u64> {
    let divisors = (1..=batch.micro_batch).rev().filter(|n| batch.micro_batch.is_multiple_of(*n));
    let needs = |micro_batch| TrainingMemory::new(shape, Passes { micro_batch, ..batch }, device);
    divisors.into_iter().find(|&n| fits(&needs(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const XL: Shape = Shape::gpt2(48, 1600);

    fn passes(micro_batch: u64, dtype: FloatType, checkpointing: bool) -> Passes {
        Passes {
            micro_batch,
            seq: 1024,
            dtype,
            checkpointing,
            removes_ln: true,
            teacher: false,
            hidden: false,
            lora_rank: 0,
        }
    }

    #[test]
    fn the_arithmetic_of_xl_is_what_the_shapes_say() {
        let memory = TrainingMemory::new(&XL, passes(2, FloatType::Bfloat16, false), Device::Cuda(0));
        let parameters = 1_557_611_200;
        assert_eq!(memory.weights + memory.gradients + memory.moments, 16 * parameters);
        // 2 and 12 numbers of 1600 per matrix row and block, 50257 rows of the unembedding.
        assert_eq!(memory.copies, 2 * (48 * 12 * 1600 * 1600 + 50257 * 1600));
        let kept = 48 * (2 * 4 + 14 * 2) * 1600 + (3 * 4 + 2 * 2) * 1600;
        assert_eq!(memory.activations, 2 * 1024 * kept);
        assert_eq!(memory.working, 50257 * (2 * 1024 * 2 + 2 * 4 * 1335));
        assert_eq!(memory.program, 0);
        let again = TrainingMemory::new(&XL, passes(2, FloatType::Bfloat16, true), Device::Cuda(0));
        assert_eq!(again.activations, 2 * 1024 * (49 * 4 + 16) * 1600);
        assert!(again.total() < memory.total());
    }

    #[test]
    fn adapters_take_the_place_of_the_moments() {
        let all = passes(2, FloatType::Bfloat16, false);
        let memory = |lora_rank| TrainingMemory::new(&XL, Passes { lora_rank, ..all }, Device::Cuda(0));
        let (all, some) = (memory(0), memory(64));
        let trained = 48 * 64 * 16 * 1600;
        assert_eq!(some.moments, 2 * 4 * trained);
        assert_eq!(some.adapters, 2 * 4 * trained + 48 * 12 * 4 * 1600 * 1600);
        assert_eq!(all.gradients - some.gradients, 4 * (50257 + 1024) * 1600);
        assert_eq!(all.activations, some.activations);
    }

    #[test]
    fn micro_batches_divide_the_batch_and_fit() {
        let batch = passes(18, FloatType::Bfloat16, true);
        let fits = |gib: u64| fitting_micro_batch(&XL, batch, Device::Cuda(0), |m| m.total() <= gib << 30);
        assert_eq!(fits(20), None, "weights, gradients and moments alone are 23.2 GiB");
        assert_eq!(fits(1000), Some(18));
        let sizes: Vec<u64> = (24..80).filter_map(fits).collect();
        assert!(sizes.is_sorted() && sizes.iter().all(|n| 18 % n == 0) && sizes.contains(&6), "{sizes:?}");
    }
}
