//! What operations take and return.

use tch::Tensor;

/// Target that cross-entropy leaves out.
pub const IGNORE: i64 = -100;

/// How much of a loss is the distance to a teacher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixture {
    /// w of (1 − w) · cross-entropy + w T² · KL(teacher ‖ student), 0 to 1.
    pub weight: f64,
    /// T, by which both models' logits are divided for the KL.
    pub temperature: f64,
}

impl Mixture {
    /// What cross-entropy and KL are multiplied by: 1 − w and w T².
    pub fn factors(self) -> [f64; 2] {
        [1.0 - self.weight, self.weight * self.temperature.powi(2)]
    }
}

/// Float32 (or the parameters' type) gradients that gather beside the tensors they belong to.
#[derive(Debug)]
pub(crate) struct Gradients {
    /// Of the weight, in its shape.
    pub weight: Tensor,
    /// Of the bias.
    pub bias: Tensor,
}

/// A parameter, its gradient and its two moments.
pub(crate) type AdamWSlot<'a> = [&'a Tensor; 4];

/// Constants of one AdamW step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decays of the moments.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// A fake LN as the matrix that reads it sees it, a linear map: x ↦ (x − mean(x)) ⊙ gain + β.
#[derive(Debug)]
pub(crate) struct LinearNorm {
    /// γ/σ̄, float32 `[in]`.
    pub gain: Tensor,
    /// β, float32 `[in]`.
    pub beta: Tensor,
}

/// The residual stream somewhere, with what the kernel that made it found besides.
#[derive(Debug)]
pub(crate) struct ResidualStream {
    /// float32 `[batch, pos, n]`.
    pub x: Tensor,
    /// What the next matrix reads, if that was asked for.
    pub read: Option<Tensor>,
    /// Whether that is the fake LN before the matrix, not the stream itself.
    pub normed: bool,
    /// σ = sqrt(var(x) + ε), `[batch, pos]`, if that was asked for; without gradient.
    pub sigma: Option<Tensor>,
}

/// What a sum on the residual stream is to bring along, made by the same kernel.
#[derive(Debug, Default)]
pub(crate) struct FusedOutputs<'a> {
    /// The fake LN of the sum: γ, β `[n]` and σ̄, float32, 0-dim.
    pub norm: Option<(&'a Tensor, &'a Tensor, Tensor)>,
    /// What is read of the sum, its fake LN or itself, in bfloat16.
    pub bfloat16: bool,
    /// σ, with this ε.
    pub sigma: Option<f64>,
}

impl FusedOutputs<'_> {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.norm.is_some() || self.bfloat16 || self.sigma.is_some()
    }
}
