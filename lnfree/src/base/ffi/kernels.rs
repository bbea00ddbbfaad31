//! How far kernels for CPUs go, which library multiplies, and where the kernels for a GPU are.

use std::ffi::{CStr, c_void};

use super::answers::check;
use super::symbols::*;
use crate::Result;

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

/// The level of our kernels on this thread, see [`crate::base::device::Kernels`]; -1 where the environment
/// has a word that is none.
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

/// Seconds that a product of `m` × `k` and `k` × `n` matrices takes on the CPU: float32 by libtorch's own
/// choice, float32 by oneDNN (infinite where it cannot be called), and bfloat16 by the faster of both.
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

/// Tells `native/` of the kernels on CUDA device `device`: cuLaunchKernel, cuCtxGetCurrent and
/// cuCtxSetCurrent of the driver, its context, and functions of [`GPU_KERNELS`].
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
