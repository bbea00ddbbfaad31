//! What the operating system says about memory, disks and loaded libraries.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Main memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All that this process could ever have: the machine's, or its container's limit if that is lower.
    pub total: u64,
    /// What can be taken now without swapping.
    pub available: u64,
}

/// This machine's memory, a container's limit counted; None where `/proc/meminfo` is missing (macOS).
pub fn memory() -> Option<Memory> {
    let machine = parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(match container_limit() {
        Some(container) if container.total < machine.total => {
            Memory { total: container.total, available: container.available.min(machine.available) }
        }
        _ => machine,
    })
}

fn parse_meminfo(text: &str) -> Option<Memory> {
    let bytes = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

/// The control group's limit as a container sees its own (version 2, then version 1). Cached files count as available:
/// the kernel drops them when the limit nears.
fn container_limit() -> Option<Memory> {
    let group = Path::new("/sys/fs/cgroup");
    let files = [
        ("memory.max", "memory.current", "memory.stat", "inactive_file "),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file ",
        ),
    ];
    files.iter().find_map(|(limit, used, stat, cached)| {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let total = number(&read(limit)?)?;
        let cached = read(stat)?.lines().find_map(|l| number(l.strip_prefix(cached)?)).unwrap_or(0);
        let used = number(&read(used)?)?.saturating_sub(cached);
        Some(Memory { total, available: total.saturating_sub(used) })
    })
}

/// Bytes that this user may still write to the disk that holds `path`; None if it cannot be told.
pub fn disk_free(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero bytes are a valid statvfs; the pointers are good for the call, and it is read only after success.
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
    library_in_maps(&std::fs::read("/proc/self/maps").ok()?, name)
}

fn library_in_maps(maps: &[u8], name: &str) -> Option<PathBuf> {
    // address perms offset device inode path; the path may hold blanks, so it is found by its first slash.
    maps.split(|&b| b == b'\n').find_map(|line| {
        let path = Path::new(OsStr::from_bytes(&line[line.iter().position(|&b| b == b'/')?..]));
        path.file_name()?.as_bytes().starts_with(name.as_bytes()).then(|| path.to_path_buf())
    })
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
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       24576000 kB\nMemFree:          100 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(parse_meminfo(text), Some(Memory { total: 24_576_000 * 1024, available: 1024 * 1024 }));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
        assert_eq!(parse_meminfo("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory_and_disk() {
        let memory = memory().unwrap();
        assert!(memory.available <= memory.total && memory.total > 1 << 20, "{memory:?}");
        assert!(disk_free(Path::new("/")).is_some());
        assert_eq!(disk_free(Path::new("/no/such/folder")), None);
    }

    #[test]
    fn a_library_is_found_in_the_maps_with_blanks_in_its_path() {
        let maps = b"7f00-7f01 r-xp 00000000 fe:00 12      /lib/libc.so.6\n\
                     7f02-7f03 rw-p 00000000 00:00 0 \n\
                     7f04-7f05 r--p 00000000 fe:00 13      /home/a b/lib/libtorch_cpu.so\n";
        assert_eq!(library_in_maps(maps, "libtorch_cpu.so"), Some("/home/a b/lib/libtorch_cpu.so".into()));
        assert_eq!(library_in_maps(maps, "libtorch_cuda.so"), None);
    }
}
