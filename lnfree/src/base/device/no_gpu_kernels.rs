//! In the place of the kernels for GPUs, where they are not built.

use tch::Tensor;

/// None is ready.
///
/// # Errors
/// Always.
pub fn gpu_kernels(_index: usize) -> Result<(), String> {
    Err("this build is without the feature `kernels`".to_owned())
}

/// Whether our kernels for GPUs take `x`: no.
pub(crate) fn for_gpu_kernels(_x: &Tensor) -> bool {
    false
}
