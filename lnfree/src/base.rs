//! What everything stands on: errors, files, devices, the terminal, the C++ library.

pub mod atomic;
pub mod console;
mod data_dir;
pub mod device;
pub mod error;
pub(crate) mod ffi;
pub mod interrupt;
pub(crate) mod json;
pub mod output;

pub use data_dir::data_dir;
