//! The answers of macOS, from sysctl(3), Mach and the dynamic loader.

// libc would leave Mach to a crate of its own.
#![allow(deprecated)]

use super::Memory;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) fn memory() -> Option<Memory> {
    let total = u64::from_ne_bytes(sysctl(c"hw.memsize")?.try_into().ok()?);
    Some(Memory { total, available: available()?.min(total) })
}

/// Bytes that are free, or held by nobody who is running: what can be taken without swapping.
fn available() -> Option<u64> {
    // SAFETY: all-zero bytes are a valid vm_statistics64, and `count` is its length in the words that Mach
    // counts in.
    let (stats, page) = unsafe {
        let mut stats: libc::vm_statistics64 = std::mem::zeroed();
        let mut count = libc::HOST_VM_INFO64_COUNT;
        let host = libc::mach_host_self();
        let into = (&raw mut stats).cast();
        if libc::host_statistics64(host, libc::HOST_VM_INFO64, into, &raw mut count) != libc::KERN_SUCCESS {
            return None;
        }
        (stats, libc::sysconf(libc::_SC_PAGESIZE))
    };
    (u64::from(stats.free_count) + u64::from(stats.inactive_count)).checked_mul(u64::try_from(page).ok()?)
}

/// The system counts from the start of the process.
pub(super) fn peak() -> Option<u64> {
    // SAFETY: all-zero bytes are a valid rusage; the pointer is good for the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) != 0 {
            return None;
        }
        usage
    };
    // Bytes, unlike other systems' kilobytes.
    u64::try_from(usage.ru_maxrss).ok()
}

pub(super) fn reset_peak() {}

pub(super) fn cpu_name() -> Option<String> {
    let text = sysctl(c"machdep.cpu.brand_string")?;
    Some(CStr::from_bytes_until_nul(&text).ok()?.to_string_lossy().trim().to_string())
}

/// What libtorch makes use of here: its products of bfloat16 are made without the units that newer chips have
/// for it.
pub(super) fn cpu_units() -> Option<String> {
    Some(if cfg!(target_arch = "aarch64") { "asimd" } else { "sse2 avx2" }.into())
}

pub(super) fn waited_for_cores() -> Option<std::time::Duration> {
    None
}

pub(super) fn allowed_cores() -> Option<usize> {
    None
}

pub(super) fn loaded_library(name: &str) -> Option<PathBuf> {
    // SAFETY: takes no arguments.
    let count = unsafe { libc::_dyld_image_count() };
    (0..count).find_map(|image| {
        // SAFETY: null or a string of the loader's, copied before anything is unloaded: nothing here unloads
        // libraries.
        let path = unsafe {
            let path = libc::_dyld_get_image_name(image);
            if path.is_null() {
                return None;
            }
            Path::new(OsStr::from_bytes(CStr::from_ptr(path).to_bytes())).to_path_buf()
        };
        let found = path.file_name()?.as_bytes().starts_with(name.as_bytes());
        found.then(|| path.canonicalize().unwrap_or(path))
    })
}

/// The bytes of what sysctl(3) says under `name`.
fn sysctl(name: &CStr) -> Option<Vec<u8>> {
    let read = |into: *mut libc::c_void, length: &mut usize| {
        // SAFETY: `into` is null, or `length` bytes that may be written.
        unsafe { libc::sysctlbyname(name.as_ptr(), into, length, std::ptr::null_mut(), 0) == 0 }
    };
    let mut length = 0;
    if !read(std::ptr::null_mut(), &mut length) {
        return None;
    }
    let mut bytes = vec![0; length];
    if !read(bytes.as_mut_ptr().cast(), &mut length) {
        return None;
    }
    bytes.truncate(length);
    Some(bytes)
}
