//! A shared library whose functions are looked up by name.

use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::device::system;

/// One that stays loaded until the process ends.
pub(super) struct Library {
    handle: *mut c_void,
}

impl Library {
    /// Loads the library at `path`, with what it needs.
    pub fn open(path: &Path) -> Result<Library, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: a C string that outlives the call; loading runs the constructors of libraries that libtorch
        // itself loads.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() { Err(system::loader_error()) } else { Ok(Library { handle }) }
    }

    /// The function `name` of it, or of a library that it needs.
    ///
    /// # Safety
    /// `F` is the type of a pointer to a function of that name.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let address = self.address(name)?;
        // SAFETY: both are pointers; the caller answers for the type.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }

    /// Where `name` is.
    pub fn address(&self, name: &str) -> Result<*mut c_void, String> {
        let symbol = CString::new(name).map_err(|e| e.to_string())?;
        // SAFETY: a handle that stays open, and a C string.
        let address = unsafe { libc::dlsym(self.handle, symbol.as_ptr()) };
        if address.is_null() { Err(system::loader_error()) } else { Ok(address) }
    }

    /// The file that has `name`.
    pub fn file_of(&self, name: &str) -> Result<PathBuf, String> {
        let address = self.address(name)?;
        // SAFETY: an all-zero Dl_info is a value of it, which dladdr fills; the name stays while the library
        // is loaded.
        let path = unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            if libc::dladdr(address, &mut info) == 0 || info.dli_fname.is_null() {
                return Err(format!("{name} is in no file"));
            }
            std::ffi::CStr::from_ptr(info.dli_fname)
        };
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes())))
    }
}
