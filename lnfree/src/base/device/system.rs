//! What the operating system says about memory, disks and loaded libraries.

#[cfg(not(target_os = "macos"))]
#[path = "system/linux.rs"]
mod here;
#[cfg(target_os = "macos")]
#[path = "system/macos.rs"]
mod here;

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Main memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All that this process could ever have: the machine's, or its container's limit if that is lower.
    pub total: u64,
    /// What can be taken now without swapping.
    pub available: u64,
}

/// This machine's memory, a container's limit counted; None where the system does not tell.
pub fn memory() -> Option<Memory> {
    here::memory()
}

/// The most main memory (bytes) that this process has held since [`reset_peak`], or where that does nothing,
/// at all.
pub fn peak() -> Option<u64> {
    here::peak()
}

/// Starts the count of [`peak`] anew, where the system allows it.
pub fn reset_peak() {
    here::reset_peak();
}

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    here::cpu_name()
}

/// The processor's vector units, in the words of Linux' /proc/cpuinfo, with blanks between them.
pub fn cpu_units() -> Option<String> {
    here::cpu_units()
}

/// Bytes that this user may still write to the disk that holds `path`; None if it cannot be told.
pub fn disk_free(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero bytes are a valid statvfs; the pointers are good for the call, and it is read only
    // after success.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &mut stat) != 0 {
            return None;
        }
        stat
    };
    #[allow(clippy::unnecessary_cast)] // the fields' width differs between systems
    (stat.f_bavail as u64).checked_mul(stat.f_frsize as u64)
}

/// The real path of the shared library whose file name begins with `name`, if this process has loaded one.
pub(super) fn loaded_library(name: &str) -> Option<PathBuf> {
    here::loaded_library(name)
}

/// For how long the threads that this process has now have waited for a core that another thread had; None
/// where the system does not tell.
pub(super) fn waited_for_cores() -> Option<Duration> {
    here::waited_for_cores()
}

/// Cores that this thread may run on; None where the system does not tell.
pub(super) fn allowed_cores() -> Option<usize> {
    here::allowed_cores()
}

/// Where `name` is in shared library `library`, or anywhere in this process; null where it is not loaded.
pub(super) fn function_of_loaded(library: &CStr, name: &CStr) -> *mut c_void {
    // SAFETY: C strings; nothing is loaded that is not there already, and the handle stays open, as the
    // library does.
    unsafe {
        let anywhere = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        if !anywhere.is_null() {
            return anywhere;
        }
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if handle.is_null() { handle } else { libc::dlsym(handle, name.as_ptr()) }
    }
}

/// Why the last dlopen or dlsym of this thread failed, on one line.
pub(super) fn loader_error() -> String {
    // SAFETY: returns null or a C string that is valid until this thread's next call; it is copied at once.
    let text = unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "no reason given".into();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    };
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_a_processor_and_disk() {
        let memory = memory().unwrap();
        assert!(memory.available <= memory.total && memory.total > 1 << 20, "{memory:?}");
        let peak = peak().unwrap();
        assert!(peak > 1 << 20 && peak < memory.total, "{peak} {memory:?}");
        assert!(cpu_name().is_some_and(|name| !name.is_empty() && !name.contains('\n')));
        assert!(cpu_units().is_some_and(|units| ["sse2", "asimd"].iter().any(|u| units.contains(u))));
        assert!(disk_free(Path::new("/")).is_some());
        assert_eq!(disk_free(Path::new("/no/such/folder")), None);
    }
}
