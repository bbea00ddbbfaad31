//! What a run needs of memory and of time, said before it starts.
//!
//! The arithmetic is that of this crate's own passes: which tensors a training forward keeps for its backward (read off
//! `model::block`, `train::backward` and libtorch's derivative formulas), and how many of each model dimension. Widths are counted
//! in d = n_embd per token; the MLP is 4 d wide.

mod run;

pub use run::RunPlan;

use tch::Device;

use crate::config::FloatType;
use crate::model::Shape;

/// Bytes of a parameter in training: the float32 weight, its gradient, and Adam's two moments.
pub const TRAINING_BYTES_PER_PARAMETER: u64 = 4 * FLOAT;

const FLOAT: u64 = 4;
const BFLOAT16: u64 = 2;

/// What the program and libtorch hold of main memory before any model: measured.
const PROGRAM: u64 = 200 << 20;

/// Of float32 logits, per number, while their loss is taken back: log-probabilities, the gradient towards them, and that towards
/// the logits.
const LOGIT_COPIES: u64 = 3;

/// Of a block's widths (d per token) in flight while it is taken back, beside what was kept: gradients of the MLP's inside
/// and outside, of queries, keys and values, and of the residual stream.
const BACKWARD_WIDTHS: u64 = 10;

/// float32 numbers of the largest parameter that AdamW makes beside it while it steps.
const OPTIMIZER_COPIES: u64 = 3;

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
}

/// Bytes that training holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingMemory {
    /// The program and libtorch; nothing on a GPU, where only tensors are counted.
    pub program: u64,
    /// Parameters in float32.
    pub weights: u64,
    /// Their gradients.
    pub gradients: u64,
    /// Adam's two moments of each.
    pub moments: u64,
    /// Matrices converted for a pass in bfloat16.
    pub copies: u64,
    /// What one micro-batch keeps between forward and backward.
    pub activations: u64,
    /// What is in flight at the widest place of the backward: logits and their gradients, or a block's.
    pub working: u64,
    /// What AdamW makes beside the parameters, when activations are gone.
    pub optimizer: u64,
}

impl TrainingMemory {
    /// The arithmetic for one shape.
    pub fn new(shape: &Shape, passes: Passes, device: Device) -> TrainingMemory {
        let Passes { micro_batch, seq, dtype, checkpointing } = passes;
        let (layers, d, vocab) = (shape.n_layer, shape.n_embd, shape.vocab_size);
        let tokens = micro_batch * seq;
        let parameters = FLOAT * shape.parameters();
        let half = dtype == FloatType::Bfloat16;
        let block = block_bytes(d, if half { BFLOAT16 } else { FLOAT });
        // The final norm's input and output, and the latter's copy for the unembedding.
        let last = 2 * FLOAT * d + if half { BFLOAT16 * d } else { 0 };
        let unembedding = vocab * d;
        // The gradient of the unembedding is there before it is added to what was gathered.
        let head = tokens * LOGIT_COPIES * FLOAT * vocab + FLOAT * unembedding;
        let flowing = tokens * BACKWARD_WIDTHS * FLOAT * d;
        let (kept, working, converted) = if checkpointing {
            // One block at a time is there in full, when the logits are gone.
            ((layers + 1) * FLOAT * d, head.max(tokens * block + flowing), 12 * d * d + unembedding)
        } else {
            (layers * block, head.max(flowing), 12 * layers * d * d + unembedding)
        };
        TrainingMemory {
            program: if device == Device::Cpu { PROGRAM } else { 0 },
            weights: parameters,
            gradients: parameters,
            moments: 2 * parameters,
            copies: if half { BFLOAT16 * converted } else { 0 },
            activations: tokens * (kept + last),
            working,
            optimizer: OPTIMIZER_COPIES * FLOAT * unembedding,
        }
    }

    /// The most held at once.
    pub fn total(&self) -> u64 {
        let pass = self.copies + self.activations + self.working;
        self.program + self.weights + self.gradients + self.moments + pass.max(self.optimizer)
    }
}

/// What a block keeps of one token for its backward, with `bytes` a number in matrix products: in float32 the residual stream where
/// either LN reads it, and for the products the output of either LN, queries, keys and values, attention's output, and the MLP's
/// inside before and after its activation. A fake LN keeps its centred input instead of the input, which is as much.
fn block_bytes(d: u64, bytes: u64) -> u64 {
    (2 * FLOAT + (1 + 3 + 1 + 1 + 4 + 4) * bytes) * d
}

/// Bytes that evaluating a model takes at least: its weights as loaded (a quarter more while they are read), the copy that bfloat16
/// computes with, and half a GiB for libtorch, activations and a piece of the logits. Batches are fitted to what is left.
pub fn evaluation_bytes(shape: &Shape, dtype: FloatType) -> u64 {
    let copy = if dtype == FloatType::Bfloat16 { BFLOAT16 } else { 0 };
    shape.parameters() * (FLOAT * 5 / 4 + copy) + (512 << 20)
}

/// The largest micro-batch that `available` bytes hold: `batch_size`, or a part of it that divides it evenly, so that an
/// optimizer step still sees the same sequences. `None` when not even one sequence fits.
pub fn fitting_micro_batch(
    shape: &Shape,
    batch_size: u64,
    passes: Passes,
    device: Device,
    available: u64,
) -> Option<u64> {
    let divisors = (1..=batch_size).rev().filter(|n| batch_size.is_multiple_of(*n));
    let needs = |micro_batch| TrainingMemory::new(shape, Passes { micro_batch, ..passes }, device).total();
    divisors.into_iter().find(|&n| needs(n) <= available)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XL: Shape = Shape::gpt2(48, 1600);

    fn passes(micro_batch: u64, dtype: FloatType, checkpointing: bool) -> Passes {
        Passes { micro_batch, seq: 1024, dtype, checkpointing }
    }

    #[test]
    fn the_arithmetic_of_xl_is_what_the_shapes_say() {
        let memory = TrainingMemory::new(&XL, passes(2, FloatType::Bfloat16, false), Device::Cuda(0));
        let parameters = 1_557_611_200;
        assert_eq!(memory.weights + memory.gradients + memory.moments, 16 * parameters);
        // 2 and 12 numbers of 1600 per matrix row and block, 50257 rows of the unembedding.
        assert_eq!(memory.copies, 2 * (48 * 12 * 1600 * 1600 + 50257 * 1600));
        let kept = 48 * (2 * 4 + 14 * 2) * 1600 + (4 + 4 + 2) * 1600;
        assert_eq!(memory.activations, 2 * 1024 * kept);
        assert_eq!(memory.working, 2 * 1024 * 12 * 50257 + 4 * 50257 * 1600);
        assert_eq!(memory.program, 0);
        let again = TrainingMemory::new(&XL, passes(2, FloatType::Bfloat16, true), Device::Cuda(0));
        assert_eq!(again.activations, 2 * 1024 * (49 * 4 + 10) * 1600);
        assert!(again.total() < memory.total());
    }

    #[test]
    fn micro_batches_divide_the_batch_and_fit() {
        let fits = |gib: u64| {
            fitting_micro_batch(&XL, 18, passes(0, FloatType::Bfloat16, true), Device::Cuda(0), gib << 30)
        };
        assert_eq!(fits(20), None, "weights, gradients and moments alone are 23.2 GiB");
        assert_eq!(fits(1000), Some(18));
        let sizes: Vec<u64> = (24..80).filter_map(fits).collect();
        assert!(sizes.is_sorted() && sizes.iter().all(|n| 18 % n == 0) && sizes.contains(&6), "{sizes:?}");
    }
}
