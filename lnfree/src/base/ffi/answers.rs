//! What functions of `native/` return, as results and tensors.

use std::ffi::CStr;

use tch::Tensor;
use torch_sys::C_tensor;

use super::symbols::*;
use crate::{Error, Result};

/// The tensor that a function of `native/` made.
///
/// # Errors
/// What went wrong, where it made none.
pub(crate) fn tensor(pointer: *mut C_tensor) -> Result<Tensor> {
    match pointer.is_null() {
        true => Err(last_error()),
        // SAFETY: a new tensor, which nobody else will free.
        false => Ok(unsafe { Tensor::from_ptr(pointer) }),
    }
}

/// # Errors
/// What went wrong, where a function of `native/` returned anything but 0.
pub(crate) fn check(code: i32) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(last_error()) }
}

/// What went wrong last on this thread.
pub(crate) fn last_error() -> Error {
    // SAFETY: reads a flag of this thread.
    if unsafe { lnfree_last_error_is_memory() } {
        return Error::OutOfMemory;
    }
    // SAFETY: a C string that stays until the next failure of this thread.
    let text = unsafe { CStr::from_ptr(lnfree_last_error()) };
    Error::from(tch::TchError::Torch(text.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_known_by_the_type_of_its_exception() {
        // SAFETY: throws and catches.
        let fail = |kind| check(unsafe { lnfree_fail(kind) }).unwrap_err();
        assert!(matches!(fail(0), Error::OutOfMemory), "that of a device's allocator");
        assert!(matches!(fail(1), Error::OutOfMemory), "that of C++");
        let other = fail(2);
        assert!(
            matches!(&other, Error::Torch(text) if text.ends_with("no words that anybody knows")),
            "{other:?}"
        );
        // One failure says nothing about the next.
        assert!(matches!(fail(0), Error::OutOfMemory) && matches!(fail(2), Error::Torch(_)));
    }
}
