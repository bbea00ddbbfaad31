//! Affine maps as GPT-2 stores them, and the activation function between two of them.

use tch::Tensor;

use super::Pass;
use crate::ops::{self, Gradients};

/// An affine map stored as the original GPT-2 stores it: y = x @ weight + bias.
#[derive(Debug)]
pub struct Conv1d {
    /// `[in, out]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
    /// Where a backward adds the gradients; None where weight and bias are leaves that gather their own.
    pub(crate) gradients: Option<Gradients>,
}

impl Conv1d {
    /// A map whose weight and bias gather their own gradients, if any.
    pub(crate) fn new(weight: Tensor, bias: Tensor) -> Conv1d {
        Conv1d { weight, bias, gradients: None }
    }

    /// `x` `[.., in]` → `[.., out]`, computed in the pass's dtype.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let (x, weight, bias) = (pass.cast(x), pass.cast(&self.weight), pass.cast(&self.bias));
        ops::must(ops::linear(&x, &weight, &bias, self.gradients.as_ref()))
    }

    /// The part of the map that makes outputs `start .. start + len`; shares its storage and gradients.
    pub(super) fn columns(&self, start: i64, len: i64) -> Conv1d {
        let part =
            |weight: &Tensor, bias: &Tensor| (weight.narrow(1, start, len), bias.narrow(0, start, len));
        let (weight, bias) = part(&self.weight, &self.bias);
        let gradients = self.gradients.as_ref().map(|g| {
            let (weight, bias) = part(&g.weight, &g.bias);
            Gradients { weight, bias }
        });
        Conv1d { weight, bias, gradients }
    }
}

/// GPT-2's GELU, x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), of float32 or bfloat16 of any shape; differentiable.
pub fn gelu(x: &Tensor) -> Tensor {
    ops::must(ops::gelu(x))
}
