//! What libtorch keeps for a whole process: how exact products on a GPU are, and its allocator of GPU memory.

#[cfg(test)]
use std::ffi::CStr;
use std::ffi::CString;

use tch::Tensor;

use super::answers::{check, tensor};
use super::symbols::*;
use crate::{Error, Result};

/// How exact matrix products on a GPU are, for the whole process: float32 ones round their factors to TF32
/// with `tf32`, else they do not; bfloat16 ones always add up in float32, which libtorch leaves to cuBLAS
/// otherwise.
///
/// # Errors
/// When libtorch refuses.
pub(crate) fn set_product_precision(tf32: bool) -> Result<()> {
    // SAFETY: sets two flags, and catches what libtorch may throw.
    check(unsafe { lnfree_set_product_precision(tf32) })
}

/// Whether bfloat16 products on a GPU may add up in bfloat16; None where that is not known.
#[cfg(test)]
pub(crate) fn adds_up_in_bfloat16() -> Option<bool> {
    // SAFETY: reads a flag, and catches what libtorch may throw.
    match unsafe { lnfree_adds_up_in_bfloat16() } {
        -1 => None,
        flag => Some(flag != 0),
    }
}

/// Sets up the allocators of devices, in the words of PYTORCH_ALLOC_CONF. To be called before they are used.
///
/// # Errors
/// Words that libtorch does not know.
pub(crate) fn set_allocator(settings: &str) -> Result<()> {
    let settings = CString::new(settings).map_err(|_| Error::invalid("a zero byte in settings"))?;
    // SAFETY: a C string that outlives the call, which catches what libtorch may throw.
    check(unsafe { lnfree_set_allocator(settings.as_ptr()) })
}

/// The settings of the allocators that were made last.
#[cfg(test)]
pub(crate) fn allocator_settings() -> String {
    // SAFETY: a C string that stays until the next call of this thread.
    unsafe { CStr::from_ptr(lnfree_allocator_settings()) }.to_string_lossy().into_owned()
}

/// Gives freed memory of CUDA devices that libtorch keeps back to the driver.
pub(crate) fn empty_cuda_cache() {
    // SAFETY: as above. What cannot be given back stays.
    let _ = unsafe { lnfree_empty_cuda_cache() };
}

/// A copy of a tensor of the CPU in memory that a GPU reads by itself, while the host does something else.
///
/// # Errors
/// When such memory ends, or there is no GPU.
pub(crate) fn pinned(x: &Tensor) -> Result<Tensor> {
    // SAFETY: the tensor lives through the call.
    tensor(unsafe { lnfree_pinned(x.as_ptr()) })
}

/// Bytes of a CUDA device that nobody holds.
pub(crate) fn cuda_free_memory(device: usize) -> Option<u64> {
    // SAFETY: reads counters, and catches what libtorch may throw.
    u64::try_from(unsafe { lnfree_cuda_free_memory(i32::try_from(device).ok()?) }).ok()
}

/// The most bytes of a CUDA device that tensors held at once since [`reset_cuda_peak_memory`].
pub(crate) fn cuda_peak_memory(device: usize) -> Option<u64> {
    // SAFETY: as above.
    u64::try_from(unsafe { lnfree_cuda_peak_memory(i32::try_from(device).ok()?) }).ok()
}

/// Starts the count of [`cuda_peak_memory`] anew.
pub(crate) fn reset_cuda_peak_memory(device: usize) {
    if let Ok(device) = i32::try_from(device) {
        // SAFETY: as above. A count that cannot be reset only goes on.
        let _ = unsafe { lnfree_reset_cuda_peak_memory(device) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_in_bfloat16_add_up_in_float32() {
        set_product_precision(false).unwrap();
        assert_eq!(adds_up_in_bfloat16(), Some(false));
    }

    #[test]
    fn words_that_the_allocator_does_not_know_are_refused() {
        assert!(set_allocator("expandable_segments:maybe").is_err());
        empty_cuda_cache();
    }
}
