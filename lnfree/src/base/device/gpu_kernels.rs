//! Our kernels for NVIDIA GPUs: what libtorch's operations would do in many passes over logits and the
//! residual stream, in one.
//!
//! They are CUDA source (`native/cuda/rows.cu`), compiled for the GPU at hand by the NVRTC that comes with
//! libtorch's CUDA part, at the first use ever; `~/.cache/lnfree` keeps the result. Where that is not
//! possible, libtorch's operations compute, as with `LNFREE_KERNELS=plain`.

mod library;
mod module;
mod nvrtc;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::{Kernels, cache, cuda_part, system};
use crate::base::ffi;
use crate::base::places::cache_folder;
use library::Library;
use module::Gpu;

const SOURCE: &str = include_str!("../../../native/cuda/rows.cu");
/// Beside libtorch's CUDA part: it leads to NVRTC and to the driver.
const COMPILER: &str = "libcaffe2_nvrtc.so";

/// Whether our kernels for GPUs compute what is on `device`.
pub(crate) fn has_gpu_kernels(device: Device) -> bool {
    match device {
        Device::Cuda(index) => ffi::kernels() != Kernels::Plain as i32 && gpu_kernels(index).is_ok(),
        _ => false,
    }
}

/// Whether our kernels for GPUs take `x`.
pub(crate) fn for_gpu_kernels(x: &Tensor) -> bool {
    has_gpu_kernels(x.device())
}

/// Makes the kernels ready on CUDA device `index`, once.
///
/// # Errors
/// One line that says why there are none.
pub fn gpu_kernels(index: usize) -> Result<(), String> {
    static READY: Mutex<BTreeMap<usize, Result<(), String>>> = Mutex::new(BTreeMap::new());
    let mut ready = READY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ready.entry(index).or_insert_with(|| prepare(index)).clone()
}

fn prepare(index: usize) -> Result<(), String> {
    let library = Library::open(&compiler()?)?;
    // libtorch makes its context on the device by itself; ours has to be the same.
    let _ = Tensor::zeros([1], (Kind::Float, Device::Cuda(index)));
    let gpu = Gpu::new(&library, index)?;
    let architecture = gpu.architecture()?;
    let file = cache_folder().map(|folder| folder.join(file_name(&library, &architecture)));
    let kept = file.as_ref().and_then(|file| std::fs::read(file).ok());
    if kept.is_some_and(|program| gpu.load(&program).is_ok()) {
        return Ok(());
    }
    let program = nvrtc::compile(&library, SOURCE, &architecture)?;
    gpu.load(&program)?;
    if let Some(file) = file {
        cache::keep(&file, &program);
    }
    Ok(())
}

/// What the cache calls the kernels as machine code for `architecture`.
fn file_name(library: &Library, architecture: &str) -> String {
    let compiler = nvrtc::version(library).unwrap_or_default();
    let key = Sha256::digest(format!("{architecture} {compiler:?}\n{SOURCE}"));
    let key: String = key.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{architecture}-{key}.cubin")
}

/// The compiler's library, beside libtorch's CUDA part.
fn compiler() -> Result<PathBuf, String> {
    let part = system::loaded_library("libtorch_cuda.so").or_else(cuda_part);
    let part = part.ok_or("libtorch's CUDA part is not loaded")?;
    let file = part.with_file_name(COMPILER);
    if file.is_file() { Ok(file) } else { Err(format!("no {}", file.display())) }
}
