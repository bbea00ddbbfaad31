//! The functions of `native/`, made safe.

mod devices;
mod norms;
mod reads;
mod tensors;

pub(crate) use devices::*;
pub(crate) use norms::*;
pub(crate) use reads::*;
pub(crate) use tensors::*;

use std::ffi::c_void;

use tch::{Device, Kind, Tensor};

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
        bfloat16: bool,
        logits: *const c_void,
        row: i64,
        n_rows: i64,
        n_cols: i64,
        stride: i64,
        first: i64,
        targets: *const i64,
        sums: *mut TokenSums,
    );
    fn lnfree_kernels() -> i32;
    fn lnfree_set_kernels(level: i32) -> i32;
    fn lnfree_parallel(n: i64, work: extern "C" fn(*mut c_void, i64, i64), context: *mut c_void) -> i32;
}

/// The level of our kernels on this thread, see [`crate::device::Kernels`]; -1 where the environment has a word that is none.
pub(crate) fn kernels() -> i32 {
    // SAFETY: reads two numbers.
    unsafe { lnfree_kernels() }
}

/// Sets it, -1 for that of the process; returns what it was set to.
pub(crate) fn set_kernels(level: i32) -> i32 {
    // SAFETY: sets a number of this thread.
    unsafe { lnfree_set_kernels(level) }
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
    let mut block = Block {
        kind,
        logits: logits.data_ptr(),
        n_cols: size[1],
        stride: stride[0],
        first,
        targets: targets.as_ptr(),
        sums: sums.as_mut_ptr(),
    };
    // SAFETY: the block outlives the call, and every row is in one part only.
    match unsafe { lnfree_parallel(size[0], add_rows, (&raw mut block).cast()) } {
        0 => Ok(()),
        _ => Err(Error::Torch("the threads of libtorch cannot be used".into())),
    }
}

/// Logits, and what they are added to, by position.
struct Block {
    kind: Kind,
    logits: *const c_void,
    n_cols: i64,
    stride: i64,
    first: i64,
    targets: *const i64,
    sums: *mut TokenSums,
}

/// Adds rows `begin..end` of the [`Block`] at `context`.
extern "C" fn add_rows(context: *mut c_void, begin: i64, end: i64) {
    // SAFETY: add_logits passes a block that lives, of which this part has rows begin..end to itself; it checked that there are
    // as many targets and sums.
    unsafe {
        let &Block { kind, logits, n_cols, stride, first, targets, sums } = &*context.cast::<Block>();
        let (n, targets, sums) = (end - begin, targets.add(begin as usize), sums.add(begin as usize));
        lnfree_add_logits(kind == Kind::BFloat16, logits, begin, n, n_cols, stride, first, targets, sums);
    }
}
