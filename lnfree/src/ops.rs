//! Operations on tensors: the kernels of `native/` made safe, and what they compute in libtorch's operations elsewhere.

mod gpu;
pub mod loss;
#[cfg(test)]
mod nonfinite_tests;
mod norms;
mod padding;
mod reads;
mod tensors;

pub(crate) use crate::base::ffi::must;
pub(crate) use gpu::*;
pub(crate) use norms::*;
pub(crate) use padding::{ROWS, padded};
pub(crate) use reads::*;
pub(crate) use tensors::*;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::base::ffi::check;
use crate::{Error, Result};

/// What is known of one position after some blocks of the vocabulary; native/token_losses.cpp has the same struct.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct TokenSums {
    /// Σ e^(x − top).
    total: f64,
    /// Σ (x − top) e^(x − top).
    weighted: f64,
    /// The token with the largest logit.
    best: i64,
    /// The largest logit.
    top: f32,
    /// The target's logit.
    target: f32,
}

impl TokenSums {
    /// Before any logit.
    pub(crate) const NONE: TokenSums =
        TokenSums { total: 0.0, weighted: 0.0, best: -1, top: f32::NEG_INFINITY, target: f32::NAN };

    /// Cross-entropy of `target`, entropy (both in nats), the largest probability, and whether the target has it (1 or 0).
    pub(crate) fn stats(&self, target: i64) -> [f32; 4] {
        let log_total = self.total.ln();
        let loss = log_total - (f64::from(self.target) - f64::from(self.top));
        let entropy = log_total - self.weighted / self.total;
        [loss as f32, entropy as f32, (1.0 / self.total) as f32, f32::from(u8::from(self.best == target))]
    }
}

unsafe extern "C" {
    fn lnfree_add_logits(
        logits: *const C_tensor,
        first: i64,
        targets: *const i64,
        sums: *mut TokenSums,
    ) -> i32;
}

/// Adds the logits of the tokens from `first` on to the sums of `n` positions, on libtorch's threads.
///
/// `logits` float32 or bfloat16 `[n, tokens]` on the CPU, rows without gaps; `targets` and `sums` of `n` positions.
///
/// # Errors
/// Logits of another type, shape or device.
pub(crate) fn add_logits(logits: &Tensor, first: i64, targets: &[i64], sums: &mut [TokenSums]) -> Result<()> {
    let (kind, size, stride) = (logits.kind(), logits.size(), logits.stride());
    let known = matches!(kind, Kind::Float | Kind::BFloat16) && logits.device() == Device::Cpu;
    let fits = size.len() == 2 && size[0] as usize == targets.len() && targets.len() == sums.len();
    if !known || !fits || stride[1] != 1 {
        return Err(Error::invalid(format!("logits {size:?} ({kind:?}) of {} positions", targets.len())));
    }
    // SAFETY: type, layout and lengths were checked, and all of it outlives the call.
    check(unsafe { lnfree_add_logits(logits.as_ptr(), first, targets.as_ptr(), sums.as_mut_ptr()) })
}

/// σ = sqrt(var(x) + ε) of `x` `[batch, pos, n_embd]` over its last axis, biased variance: `[batch, pos]`.
pub(crate) fn sigma_of(x: &Tensor, eps: f64) -> Tensor {
    must(sigma(x, eps))
}
