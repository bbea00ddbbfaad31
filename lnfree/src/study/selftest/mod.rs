//! Whether this build computes what it has to on this machine: `lnfree selftest`.
//!
//! Part of the numbers that the paper's own code made (see [`vectors`](self)) is in the binary, and every
//! operation of ours is set against its plain formula in float64. Nothing is read but the program itself, so
//! it says the same on a machine that has nothing else.

mod conformance;
mod norms;
mod operations;
mod recorder;
mod report;
mod training;
mod vectors;

use std::time::Instant;

use tch::Device;

pub use report::{Comparison, SelfTest};

use crate::Result;
use crate::base::device::{Kernels, device_name};
use crate::config::FloatType;
use recorder::Recorder;

/// What [`selftest`] is to do.
#[derive(Debug, Clone, Default)]
pub struct SelfTestOptions {
    /// Leave out what takes long on a CPU: training steps after the first few.
    pub quick: bool,
    /// Falsify one number of every comparison whose name has this in it (several with `|` between
    /// them), so that it is seen whether that is
    /// found.
    pub fault: Option<String>,
}

/// Compares everything on `device`; `seen` is told each comparison as it is made. It takes seconds.
///
/// # Errors
/// When the embedded numbers cannot be unpacked into a temporary folder, or an impossible `LNFREE_KERNELS`.
/// What goes wrong within a comparison is one that fails.
pub fn selftest(
    device: Device,
    options: &SelfTestOptions,
    seen: impl FnMut(&Comparison),
) -> Result<SelfTest> {
    let started = Instant::now();
    let kernels = Kernels::in_force()?;
    let vectors = vectors::Vectors::unpack()?;
    let mut recorder = Recorder::new(device, options.fault.clone(), seen);
    for dtype in dtypes(device) {
        recorder.dtype(dtype)?;
        operations::all(&mut recorder);
        norms::all(&mut recorder);
        conformance::all(&mut recorder, &vectors);
        training::all(&mut recorder, &vectors, options.quick);
    }
    Ok(SelfTest {
        lnfree: env!("CARGO_PKG_VERSION").into(),
        device: device_name(device),
        kernels: kernels.name().into(),
        comparisons: recorder.finish(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// What a device computes matrix products in.
fn dtypes(device: Device) -> Vec<FloatType> {
    match device.is_cuda() {
        true => vec![FloatType::Float32, FloatType::Tf32, FloatType::Bfloat16],
        false => vec![FloatType::Float32, FloatType::Bfloat16],
    }
}

#[cfg(test)]
mod tests;
