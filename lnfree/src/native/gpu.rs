//! Kernels of ours on NVIDIA GPUs; [`crate::device::gpu_kernels`] makes them ready.

use std::ffi::{CStr, c_void};

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use super::tensors::{check, last_error, tensor};
use crate::{Error, Result};

/// The kernels' names, in the order of the enum in native/gpu.hpp, each for float32 and for bfloat16.
pub(crate) const GPU_KERNELS: [&CStr; 8] = [
    c"logits_to_gradient_float32",
    c"logits_to_gradient_bfloat16",
    c"token_stats_float32",
    c"token_stats_bfloat16",
    c"add_rows_float32",
    c"add_rows_bfloat16",
    c"meet_rows_float32",
    c"meet_rows_bfloat16",
];

unsafe extern "C" {
    fn lnfree_set_gpu_kernels(
        device: i64,
        driver: *const *mut c_void,
        context: *mut c_void,
        kernels: *const *mut c_void,
        n: i32,
    ) -> i32;
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

/// Tells `native/` of the kernels on CUDA device `device`: cuLaunchKernel, cuCtxGetCurrent and cuCtxSetCurrent of the driver, its context, and
/// functions of [`GPU_KERNELS`].
///
/// # Errors
/// A device beyond those that libtorch knows.
pub(crate) fn set_gpu_kernels(
    device: usize,
    driver: [*mut c_void; 3],
    context: *mut c_void,
    kernels: [*mut c_void; GPU_KERNELS.len()],
) -> Result<()> {
    // SAFETY: three pointers and as many as the number says, which are copied.
    check(unsafe {
        lnfree_set_gpu_kernels(
            device as i64,
            driver.as_ptr(),
            context,
            kernels.as_ptr(),
            kernels.len() as i32,
        )
    })
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
