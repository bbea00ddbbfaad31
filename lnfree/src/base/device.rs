//! Where tensors live and how many threads work on them.
//!
//! The binary is linked against the CPU part of libtorch alone, so that it starts everywhere. CUDA is found
//! at run time: when `libtorch_cuda.so` lies beside the libtorch that was loaded, [`load_cuda`] loads it too.
//! libtorch decides once, at the first call that touches it, whether there is CUDA
//! (`at::detail::getCUDAHooks`): ask for a device here before any tensor is made.

mod cache;
mod cuda;
mod driver;
#[cfg_attr(not(feature = "kernels"), path = "device/no_gpu_kernels.rs")]
mod gpu_kernels;
mod kernels;
mod products;
mod sharing;
mod system;
mod transfer;
mod usage;

use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;

pub use cuda::{cuda_devices, load_cuda};
pub(crate) use cuda::{cuda_part, version_in};
pub use driver::{Driver, Gpu, driver};
pub(crate) use gpu_kernels::for_gpu_kernels;
pub use gpu_kernels::gpu_kernels;
pub use kernels::{KERNELS_VARIABLE, Kernels, KernelsGuard};
pub(crate) use kernels::{for_cpu_kernels, has_cpu_kernels, kernels_are_off};
pub(crate) use products::bfloat16_is_computed;
pub use products::{Products, products};
pub use sharing::{CoreSharing, share_cores};
pub(crate) use system::cpu_units;
pub use system::{Memory, cpu_name, disk_free, memory};
pub(crate) use transfer::{pin, send};
pub(crate) use usage::release_cached_memory;
pub use usage::{available_memory, device_name, peak_memory, reset_peak_memory};

/// The libtorch that this crate is made for.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// More threads than this are taken for a slip of the finger.
const MAX_THREADS: usize = 4096;

/// The device that `auto`, `cpu`, `cuda` or `cuda:N` names; `auto` is the first CUDA device, or the CPU where
/// there is none. Call it before any tensor is made (see the [module](self)).
///
/// # Errors
/// Another word, CUDA that cannot be used (the message says why and what to do), or a device that is not
/// there.
pub fn parse_device(text: &str) -> Result<Device> {
    let index = match text {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(if cuda_devices().is_ok() { Device::Cuda(0) } else { Device::Cpu }),
        "cuda" => 0,
        _ => parse_index(text)
            .ok_or_else(|| Error::invalid(format!("device {text}: there are auto, cpu, cuda and cuda:N")))?,
    };
    match cuda_devices() {
        Ok(count) if index < count => Ok(Device::Cuda(index)),
        Ok(1) => Err(Error::invalid(format!("device {text}: the only CUDA device here is cuda:0"))),
        Ok(count) => Err(Error::invalid(format!(
            "device {text}: the CUDA devices here are cuda:0 to cuda:{}",
            count - 1
        ))),
        Err(why) => Err(Error::invalid(format!("device {text}: {why}"))),
    }
}

/// N of `cuda:N`: digits alone, no sign.
fn parse_index(text: &str) -> Option<usize> {
    let digits = text.strip_prefix("cuda:")?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Lets the C allocator keep what tensors free instead of handing it back to the kernel, which would clear it
/// page by page for the next tensor of the same size: a fifth of a small model's training time. Memory then
/// stays at its peak, so this is for programs, not for libraries; it does nothing outside glibc.
pub fn keep_freed_memory() {
    KEPT.store(true, Ordering::Relaxed);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Whether [`keep_freed_memory`] was called.
pub fn keeps_freed_memory() -> bool {
    cfg!(all(target_os = "linux", target_env = "gnu")) && KEPT.load(Ordering::Relaxed)
}

static KEPT: AtomicBool = AtomicBool::new(false);

/// Sets how many threads one libtorch operation may use, and returns the number in force. Without a wish it
/// is what OMP_NUM_THREADS or MKL_NUM_THREADS says, else libtorch's own choice, but never more than the cores
/// this process may use (libtorch does not see a container's limit).
///
/// Sums are split by threads: runs are bit-identical only at equal numbers of them.
///
/// # Errors
/// A wish of 0, or of more than 4096.
pub fn set_threads(wish: Option<usize>) -> Result<usize> {
    let threads = match wish {
        Some(n) if (1..=MAX_THREADS).contains(&n) => n,
        Some(n) => return Err(Error::invalid(format!("threads {n}: from 1 to {MAX_THREADS} is possible"))),
        None if ["OMP_NUM_THREADS", "MKL_NUM_THREADS"].iter().any(|v| std::env::var_os(v).is_some()) => {
            threads()
        }
        None => threads().min(cores()),
    };
    // At most 4096, so it fits; libtorch refuses nothing that is positive.
    tch::set_num_threads(threads as i32);
    Ok(threads)
}

/// How many threads one libtorch operation uses at present.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// How many cores this process may use: affinity and a container's limit counted.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// The folder that libtorch was loaded from, links resolved; None where the system does not tell.
pub fn libtorch_folder() -> Option<PathBuf> {
    Some(system::loaded_library(&library("torch_cpu"))?.parent()?.to_path_buf())
}

/// The file name of a shared library on this system: libc10.so, libc10.dylib.
pub(crate) fn library(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_words_are_devices() {
        assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
        for word in [
            "",
            "gpu",
            "CPU",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda:1x",
            "cuda:99999999999999999999",
            "cuda: 0",
        ] {
            let message = parse_device(word).unwrap_err().to_string();
            assert!(message.contains("there are auto, cpu, cuda and cuda:N"), "{word}: {message}");
        }
        assert_eq!(parse_index("cuda:12"), Some(12));
    }

    #[test]
    fn auto_and_cuda_agree_on_whether_there_is_cuda() {
        match parse_device("cuda") {
            Ok(device) => {
                assert_eq!(device, Device::Cuda(0));
                assert_eq!(parse_device("auto").unwrap(), Device::Cuda(0));
                let message = parse_device("cuda:4000").unwrap_err().to_string();
                assert!(message.contains("cuda:0"), "{message}");
            }
            Err(error) => {
                assert_eq!(parse_device("auto").unwrap(), Device::Cpu);
                let why = cuda_devices().unwrap_err();
                assert_eq!(error.to_string(), format!("device cuda: {why}"));
                assert!(!why.is_empty() && !why.contains('\n'), "{why}");
            }
        }
    }

    #[test]
    fn the_loaded_libtorch_is_found() {
        let _ = tch::get_num_threads();
        let folder = libtorch_folder().expect("libtorch is loaded");
        assert!(folder.join(library("torch_cpu")).is_file(), "{}", folder.display());
    }
}
