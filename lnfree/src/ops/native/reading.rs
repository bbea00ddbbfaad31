//! Numbers on their way from a GPU.

use std::ffi::c_void;

use tch::Tensor;

use crate::Result;
use crate::base::ffi::symbols::*;
use crate::base::ffi::{last_error, tensor};

/// Numbers on their way from a GPU, which goes on computing meanwhile.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Null once it has ended.
    pointer: *mut c_void,
}

impl Reading {
    /// Begins to read `x`.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn begin(x: &Tensor) -> Result<Reading> {
        // SAFETY: the tensor lives through the call, which takes its own reference.
        let pointer = unsafe { lnfree_begin_reading(x.as_ptr()) };
        if pointer.is_null() { Err(last_error()) } else { Ok(Reading { pointer }) }
    }

    /// Waits for the numbers, on the CPU.
    ///
    /// # Errors
    /// What went wrong on the GPU up to here.
    pub(crate) fn end(mut self) -> Result<Tensor> {
        let pointer = std::mem::replace(&mut self.pointer, std::ptr::null_mut());
        // SAFETY: not null, and ended here alone.
        tensor(unsafe { lnfree_end_reading(pointer) })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            // SAFETY: as in `end`; the tensor it returns is freed at once, and nobody asks for an error any
            // more.
            drop(tensor(unsafe { lnfree_end_reading(self.pointer) }));
        }
    }
}
