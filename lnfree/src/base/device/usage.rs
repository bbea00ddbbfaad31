//! Memory of the device that tensors live on, and what the device is called.

use tch::Device;

use super::{driver, memory, system, threads};
use crate::base::ffi;

/// Bytes that tensors on `device` could still take; None where it cannot be told.
pub fn available_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => ffi::cuda_free_memory(index),
        _ => memory().map(|memory| memory.available),
    }
}

/// The most bytes held at once since [`reset_peak_memory`]: by the tensors of a GPU, or by this process.
pub fn peak_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => ffi::cuda_peak_memory(index),
        _ => system::peak(),
    }
}

/// Starts the count of [`peak_memory`] anew, where the system allows it.
pub fn reset_peak_memory(device: Device) {
    match device {
        Device::Cuda(index) => ffi::reset_cuda_peak_memory(index),
        _ => system::reset_peak(),
    }
}

/// Gives memory that was freed on a GPU, and that libtorch keeps for later, back to the driver; nothing to do
/// elsewhere.
pub(crate) fn release_cached_memory(device: Device) {
    if device.is_cuda() {
        ffi::empty_cuda_cache();
    }
}

/// The device in words: the GPU's name, or the processor's with the number of threads in use.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => {
            let gpus = driver().map(|driver| driver.gpus).unwrap_or_default();
            gpus.get(index).map_or_else(|| format!("cuda:{index}"), |gpu| gpu.name.clone())
        }
        _ => {
            let name = system::cpu_name().unwrap_or_else(|| "CPU".into());
            format!("{name}, {} threads", threads())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_follows_what_is_held() {
        reset_peak_memory(Device::Cpu);
        let before = peak_memory(Device::Cpu).unwrap();
        let held = vec![1u8; 96 << 20];
        let during = peak_memory(Device::Cpu).unwrap();
        assert!(during >= before + (90 << 20), "{before} {during} {}", held.len());
        assert!(available_memory(Device::Cpu).unwrap() > 0);
        assert!(device_name(Device::Cpu).contains("threads"));
    }
}
