//! Tensors as bytes: the only place of this module that touches a tensor's memory.

use tch::{Device, Kind, Tensor};

use super::Why;

/// A CPU tensor of `shape` and `kind` with the bytes that `fill` writes (little-endian, row-major). `fill`
/// gets exactly the tensor's own memory, so that reading a file makes no second copy.
///
/// The caller has checked the size against the file: nothing here keeps `shape` from being absurd.
pub(super) fn tensor_filled(
    shape: &[i64],
    kind: Kind,
    fill: impl FnOnce(&mut [u8]) -> Why<()>,
) -> Why<Tensor> {
    // Zeros hide absurd sizes from a check of the number of elements, and libtorch multiplies strides
    // unchecked.
    if shape.iter().try_fold(1i64, |n, &size| n.checked_mul(size.max(1))).is_none() {
        return Err(format!("absurd shape {shape:?}"));
    }
    let tensor = Tensor::f_empty(shape, (kind, Device::Cpu)).map_err(torch)?;
    let length = tensor.numel() * kind.elt_size_in_bytes();
    if length > 0 {
        // SAFETY: a new contiguous CPU tensor owns `length` bytes at its data pointer, and nobody else has it
        // yet.
        let bytes = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), length) };
        fill(bytes)?;
        // Any other byte in a bool is undefined behaviour in C++.
        if kind == Kind::Bool && bytes.iter().any(|&b| b > 1) {
            return Err("holds booleans that are neither 0 nor 1: the file is damaged".into());
        }
    }
    Ok(tensor)
}

/// Lends the bytes of `tensor`, in row-major order; copies only what is not on the CPU and contiguous
/// already.
pub(super) fn with_bytes<T>(tensor: &Tensor, with: impl FnOnce(&[u8]) -> T) -> Why<T> {
    let tensor = tensor.f_detach().and_then(|t| t.f_to_device(Device::Cpu)).and_then(|t| t.f_contiguous());
    let tensor = tensor.map_err(torch)?;
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length == 0 {
        return Ok(with(&[]));
    }
    // SAFETY: a contiguous CPU tensor has `length` bytes at its data pointer, and it lives until the end of
    // this call.
    Ok(with(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }))
}

/// The message of a libtorch error, without its backtrace.
pub(super) fn torch(error: tch::TchError) -> String {
    crate::Error::from(error).to_string()
}
