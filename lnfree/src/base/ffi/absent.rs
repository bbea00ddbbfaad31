//! What stands in for `native/` where it is not built: no kernels, and of libtorch what tch reaches.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// # Errors
/// For TF32, which tch has no switch for. Products are as exact as libtorch makes them unasked, which is
/// float32.
pub(crate) fn set_product_precision(tf32: bool) -> Result<()> {
    match tf32 {
        true => Err(Error::invalid("tf32 needs the feature `kernels`; use float32 or bfloat16")),
        false => Ok(()),
    }
}

/// Memory grows as libtorch has it unasked.
pub(crate) fn set_allocator(_settings: &str) -> Result<()> {
    Ok(())
}

/// Freed memory stays with libtorch.
pub(crate) fn empty_cuda_cache() {}

/// # Errors
/// When such memory ends, or there is no GPU.
pub(crate) fn pinned(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_pin_memory(tch::Device::Cuda(0))?)
}

/// Not known.
pub(crate) fn cuda_free_memory(_device: usize) -> Option<u64> {
    None
}

/// Not known.
pub(crate) fn cuda_peak_memory(_device: usize) -> Option<u64> {
    None
}

/// Nothing counts.
pub(crate) fn reset_cuda_peak_memory(_device: usize) {}

/// The level of [`crate::base::device::Kernels::Plain`].
pub(crate) fn kernels() -> i32 {
    0
}

/// As [`kernels`].
pub(crate) fn best_kernels() -> i32 {
    0
}

/// As [`kernels`]: there is no other.
pub(crate) fn set_kernels(_level: i32) -> i32 {
    0
}

/// Seconds that a product of `m` × `k` and `k` × `n` matrices takes on the CPU, the best of several: float32,
/// infinity for oneDNN, which tch does not reach, and bfloat16.
///
/// # Errors
/// What libtorch says.
pub(crate) fn time_products([m, k, n]: [i64; 3]) -> Result<[f64; 3]> {
    let best = |kind| -> Result<f64> {
        let (a, b) =
            (Tensor::f_ones([m, k], (kind, Device::Cpu))?, Tensor::f_ones([k, n], (kind, Device::Cpu))?);
        let mut best = f64::INFINITY;
        for _ in 0..4 {
            let begin = Instant::now();
            let _ = a.f_mm(&b)?;
            best = best.min(begin.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    Ok([best(Kind::Float)?, f64::INFINITY, best(Kind::BFloat16)?])
}

/// libtorch chooses.
pub(crate) fn choose_products(_onednn: bool, _bfloat16: bool) {}
