//! Operations on tensors, each under one signature and computed in one of two ways: `reference`, libtorch's
//! operations as one would write them down, differentiable and for any device; and `native`, the C++ of
//! `native/`, where it is faster and the cargo feature `kernels` is on. `choose` alone decides which.
//! `lnfree selftest` and the tests hold both to the same numbers.

mod choose;
pub mod loss;
#[cfg(feature = "kernels")]
mod native;
#[cfg(test)]
mod nonfinite_tests;
#[cfg(test)]
mod norms_tests;
mod padding;
mod reference;
mod types;
#[cfg(not(feature = "kernels"))]
use reference as native;

pub(crate) use crate::base::ffi::must;
pub(crate) use choose::*;
#[cfg(feature = "kernels")]
pub(crate) use native::ReadWatch;
pub(crate) use native::Reading;
pub(crate) use padding::{ROWS, padded};
pub(crate) use reference::float_rows_at_a_time;
pub(crate) use types::*;

/// Whether the gradients of a [`linear`] can gather beside its tensors.
pub(crate) const GATHERS: bool = cfg!(feature = "kernels");
