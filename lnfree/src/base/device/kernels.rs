//! Which kernels compute: ours, which are for CPUs, or libtorch's operations alone, as on a GPU.

use tch::{Device, Tensor};

use crate::base::ffi;
use crate::{Error, Result};

/// The environment variable that sets [`Kernels`] for a process; it is there for tests.
pub const KERNELS_VARIABLE: &str = "LNFREE_KERNELS";

/// How far our kernels for CPUs may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Kernels {
    /// Not at all: tensors on a CPU take the path of those on a GPU.
    Plain = 0,
    /// Instructions that every processor of the architecture has.
    Baseline,
    /// AVX2.
    Avx2,
    /// AVX-512.
    Avx512,
    /// AVX-512 with bfloat16 units.
    Bf16,
    /// Whatever the processor has.
    Auto,
}

impl Kernels {
    /// Every level, the lowest first.
    pub const ALL: [Kernels; 6] =
        [Kernels::Plain, Kernels::Baseline, Kernels::Avx2, Kernels::Avx512, Kernels::Bf16, Kernels::Auto];

    /// The word for it in `LNFREE_KERNELS`.
    pub fn name(self) -> &'static str {
        ["plain", "baseline", "avx2", "avx512", "bf16", "auto"][self as usize]
    }

    /// The levels that this processor has, the lowest first.
    pub fn usable() -> impl Iterator<Item = Kernels> {
        let best = ffi::best_kernels();
        Kernels::ALL.into_iter().filter(move |level| (*level as i32) <= best)
    }

    /// The level in force on this thread.
    ///
    /// # Errors
    /// A word in `LNFREE_KERNELS` that is no level.
    pub fn in_force() -> Result<Kernels> {
        let level = usize::try_from(ffi::kernels()).ok();
        level.and_then(|level| Kernels::ALL.get(level).copied()).ok_or_else(|| {
            let word = std::env::var_os(KERNELS_VARIABLE).unwrap_or_default();
            let words = Kernels::ALL.map(Kernels::name).join(", ");
            Error::invalid(format!("{KERNELS_VARIABLE}={}: there are {words}", word.display()))
        })
    }

    /// Whether a level was set, for the process or this thread.
    pub(crate) fn was_set() -> bool {
        ffi::kernels() != Kernels::Auto as i32
    }

    /// Sets the level of this thread until the guard goes.
    pub fn on_this_thread(self) -> KernelsGuard {
        KernelsGuard { before: ffi::set_kernels(self as i32), stays_here: std::marker::PhantomData }
    }
}

/// Puts the level of its thread back when it goes.
#[derive(Debug)]
#[must_use = "the level is put back when this goes"]
pub struct KernelsGuard {
    before: i32,
    /// The level is the thread's, so the guard stays on it.
    stays_here: std::marker::PhantomData<*const ()>,
}

impl Drop for KernelsGuard {
    fn drop(&mut self) {
        ffi::set_kernels(self.before);
    }
}

/// Whether there are none of our kernels, or none may be used.
pub(crate) fn kernels_are_off() -> bool {
    ffi::kernels() == Kernels::Plain as i32
}

/// Whether our kernels for CPUs compute what is on `device`.
pub(crate) fn has_cpu_kernels(device: Device) -> bool {
    device == Device::Cpu && ffi::kernels() != Kernels::Plain as i32
}

/// Whether our kernels for CPUs take `x`.
pub(crate) fn for_cpu_kernels(x: &Tensor) -> bool {
    has_cpu_kernels(x.device())
}

#[cfg(all(test, feature = "kernels"))]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_set_on_one_thread_for_a_while() {
        let before = Kernels::in_force().unwrap();
        let x = Tensor::zeros([2, 16], (tch::Kind::Float, Device::Cpu));
        assert_eq!(for_cpu_kernels(&x), before != Kernels::Plain);
        {
            let _plain = Kernels::Plain.on_this_thread();
            assert!(!for_cpu_kernels(&x) && Kernels::in_force().unwrap() == Kernels::Plain);
            let _all = Kernels::Auto.on_this_thread();
            assert!(for_cpu_kernels(&x));
            let elsewhere = std::thread::spawn(|| Kernels::in_force().unwrap()).join().unwrap();
            assert_eq!(elsewhere, before);
        }
        assert_eq!(Kernels::in_force().unwrap(), before);
    }
}
