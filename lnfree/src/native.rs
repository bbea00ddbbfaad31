//! The functions of `native/`, made safe.

mod devices;
mod gpu;
#[cfg(test)]
mod nonfinite_tests;
mod norms;
mod reads;
mod tensors;

pub(crate) use devices::*;
pub(crate) use gpu::*;
pub(crate) use norms::*;
pub(crate) use reads::*;
pub(crate) use tensors::*;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result};
use tensors::check;

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
    fn lnfree_kernels() -> i32;
    fn lnfree_best_kernels() -> i32;
    fn lnfree_set_kernels(level: i32) -> i32;
    fn lnfree_time_products(m: i64, k: i64, n: i64, seconds: *mut f64) -> i32;
    fn lnfree_choose_products(onednn: bool, bfloat16: bool);
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

/// The level of our kernels on this thread, see [`crate::device::Kernels`]; -1 where the environment has a word that is none.
pub(crate) fn kernels() -> i32 {
    // SAFETY: reads two numbers.
    unsafe { lnfree_kernels() }
}

/// The most that this processor has.
pub(crate) fn best_kernels() -> i32 {
    // SAFETY: reads a number.
    unsafe { lnfree_best_kernels() }
}

/// Sets it, -1 for that of the process; returns what it was set to.
pub(crate) fn set_kernels(level: i32) -> i32 {
    // SAFETY: sets a number of this thread.
    unsafe { lnfree_set_kernels(level) }
}

/// Seconds that a product of `m` × `k` and `k` × `n` matrices takes on the CPU: float32 by libtorch's own choice, float32 by oneDNN (infinite where it cannot
/// be called), and bfloat16 by the faster of both.
///
/// # Errors
/// What libtorch says.
pub(crate) fn time_products([m, k, n]: [i64; 3]) -> Result<[f64; 3]> {
    let mut seconds = [f64::INFINITY; 3];
    // SAFETY: there is room for three.
    check(unsafe { lnfree_time_products(m, k, n, seconds.as_mut_ptr()) })?;
    Ok(seconds)
}

/// Chooses the library that multiplies on the CPU, and whether tiles of attention are multiplied in bfloat16.
pub(crate) fn choose_products(onednn: bool, bfloat16: bool) {
    // SAFETY: sets two flags.
    unsafe { lnfree_choose_products(onednn, bfloat16) }
}
