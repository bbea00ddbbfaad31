//! What everything stands on: errors, files, devices, the terminal, the C++ library.

pub mod atomic;
pub(crate) mod caught;
pub(crate) mod closest;
pub mod console;
pub mod device;
mod embedded;
pub mod error;
pub(crate) mod ffi;
pub mod interrupt;
pub(crate) mod json;
pub mod output;
pub(crate) mod places;
pub mod ranks;

pub use embedded::data_dir;
pub(crate) use embedded::embedded_file;

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
