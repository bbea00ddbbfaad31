//! The C++ of `native/` as Rust sees it: what it exports and answers, what it keeps for a whole process or
//! thread (devices, and how far kernels go), and process groups.

#[cfg(not(feature = "kernels"))]
mod absent;
#[cfg(feature = "kernels")]
mod answers;
#[cfg(feature = "kernels")]
mod devices;
#[cfg_attr(not(all(feature = "kernels", target_os = "linux")), path = "ffi/no_groups.rs")]
mod groups;
#[cfg(feature = "kernels")]
mod kernels;
#[cfg(feature = "kernels")]
pub(crate) mod symbols;
pub mod tch_functions;

use crate::Result;

#[cfg(not(feature = "kernels"))]
pub(crate) use absent::*;
#[cfg(feature = "kernels")]
pub(crate) use answers::*;
#[cfg(feature = "kernels")]
pub(crate) use devices::*;
pub(crate) use groups::{Group, Sum};
#[cfg(feature = "kernels")]
pub(crate) use kernels::*;

/// A failure of libtorch where no error can be returned is a panic, as in tch's own operations.
pub(crate) fn must<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
