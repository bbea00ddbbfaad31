//! From the memory of the host to that of a GPU.

use tch::{Device, Tensor};

use crate::base::ffi;

/// `tensor` in memory that a GPU can read by itself, if it is to go to one.
pub(crate) fn pin(tensor: Tensor, device: Device) -> Tensor {
    if !device.is_cuda() {
        return tensor;
    }
    // Where there is none left, the host waits for the copy.
    ffi::pinned(&tensor).unwrap_or(tensor)
}

/// A tensor from [`pin`] on `device`; to a GPU without waiting.
pub(crate) fn send(tensor: &Tensor, device: Device) -> Tensor {
    tensor.to_device_(device, tensor.kind(), device.is_cuda(), false)
}
