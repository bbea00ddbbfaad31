//! Kernels of ours on NVIDIA GPUs; [`crate::base::device::gpu_kernels`] makes them ready.

use std::ffi::c_void;

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use crate::base::ffi::{last_error, tensor};
use crate::{Error, Result};

unsafe extern "C" {
    fn lnfree_gpu_logits_to_gradient(
        logits: *const C_tensor,
        vocab_size: i64,
        targets: *const C_tensor,
        weights: *const C_tensor,
    ) -> *mut C_tensor;
    fn lnfree_begin_reading(x: *const C_tensor) -> *mut c_void;
    fn lnfree_end_reading(reading: *mut c_void) -> *mut C_tensor;
    fn lnfree_gpu_token_stats(
        logits: *const C_tensor,
        vocab_size: i64,
        targets: *const C_tensor,
    ) -> *mut C_tensor;
}

/// The first `vocab_size` columns of `logits` `[n, ..]`, float32 or bfloat16, become the gradient of Σ weights · loss, the others zeros; returns
/// the losses, float32 `[n]`. A negative target counts for nothing. `weights` float32 `[n]`, `targets` int64 `[n]`.
///
/// # Errors
/// Other types, shapes or devices.
pub(crate) fn gpu_logits_to_gradient(
    logits: &mut Tensor,
    vocab_size: i64,
    targets: &Tensor,
    weights: &Tensor,
) -> Result<Tensor> {
    check_logits(logits, vocab_size, targets)?;
    // SAFETY: types and shapes were checked; `logits` are this caller's alone.
    tensor(unsafe {
        lnfree_gpu_logits_to_gradient(logits.as_ptr(), vocab_size, targets.as_ptr(), weights.as_ptr())
    })
}

/// Cross-entropy, entropy (both in nats), largest probability, and whether it is the target's (1 or 0), float32 `[n, 4]`, of the first
/// `vocab_size` columns of `logits` `[n, ..]`, float32 or bfloat16; `targets` int64 `[n]`. NaN for a target that is none of them.
///
/// # Errors
/// Other types, shapes or devices.
pub(crate) fn gpu_token_stats(logits: &Tensor, vocab_size: i64, targets: &Tensor) -> Result<Tensor> {
    check_logits(logits, vocab_size, targets)?;
    // SAFETY: types and shapes were checked.
    tensor(unsafe { lnfree_gpu_token_stats(logits.as_ptr(), vocab_size, targets.as_ptr()) })
}

/// Numbers on their way from a GPU, which goes on computing meanwhile.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Null once it has ended.
    pointer: *mut c_void,
}

impl Reading {
    /// Begins to read `x`.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn begin(x: &Tensor) -> Result<Reading> {
        // SAFETY: the tensor lives through the call, which takes its own reference.
        let pointer = unsafe { lnfree_begin_reading(x.as_ptr()) };
        if pointer.is_null() { Err(last_error()) } else { Ok(Reading { pointer }) }
    }

    /// Waits for the numbers, on the CPU.
    ///
    /// # Errors
    /// What went wrong on the GPU up to here.
    pub(crate) fn end(mut self) -> Result<Tensor> {
        let pointer = std::mem::replace(&mut self.pointer, std::ptr::null_mut());
        // SAFETY: not null, and ended here alone.
        tensor(unsafe { lnfree_end_reading(pointer) })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            // SAFETY: as in `end`; the tensor it returns is freed at once, and nobody asks for an error any more.
            drop(tensor(unsafe { lnfree_end_reading(self.pointer) }));
        }
    }
}

fn check_logits(logits: &Tensor, vocab_size: i64, targets: &Tensor) -> Result<()> {
    let (kind, size) = (logits.kind(), logits.size());
    let known = matches!(kind, Kind::Float | Kind::BFloat16) && targets.kind() == Kind::Int64;
    let fits = size.len() == 2 && targets.size() == [size[0]] && (1..=size[1]).contains(&vocab_size);
    if known
        && fits
        && logits.is_contiguous()
        && targets.is_contiguous()
        && logits.device() == targets.device()
    {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{vocab_size} tokens of logits {size:?} ({kind:?}) for targets {:?}",
        targets.size()
    )))
}
