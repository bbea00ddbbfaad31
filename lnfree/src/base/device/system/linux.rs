//! Linux' answers, from /proc and /sys. Other systems have neither, so there all of them are None.

use super::Memory;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn memory() -> Option<Memory> {
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

/// The control group's limit as a container sees its own (version 2, then version 1). Cached files count as
/// available: the kernel drops them when the limit nears.
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

pub(super) fn waited_for_cores() -> Option<Duration> {
    let mut waited = None;
    for thread in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread may have ended meanwhile.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        waited = waited.into_iter().chain(waited_in(&text)).reduce(|a, b| a + b);
    }
    waited
}

/// schedstat: nanoseconds on a core, nanoseconds waited for one, time slices.
fn waited_in(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(target_os = "linux")]
pub(super) fn allowed_cores() -> Option<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set, which the call fills.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return None;
        }
        set
    };
    // SAFETY: counts bits.
    usize::try_from(unsafe { libc::CPU_COUNT(&set) }).ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allowed_cores() -> Option<usize> {
    None
}

pub(super) fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

pub(super) fn reset_peak() {
    // proc(5): 5 resets the peak to what is held now.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

pub(super) fn cpu_name() -> Option<String> {
    name_in(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

pub(super) fn cpu_units() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    value_of(&text, "flags").or_else(|| value_of(&text, "Features"))
}

/// The first value of a key of /proc/cpuinfo.
fn value_of(cpuinfo: &str, key: &str) -> Option<String> {
    let mut pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(k, _)| k.trim() == key).map(|(_, value)| value.trim().to_string())
}

/// x86 names its model; ARM has two numbers, those of the maker and of the core.
fn name_in(cpuinfo: &str) -> Option<String> {
    value_of(cpuinfo, "model name").or_else(|| {
        let (maker, core) = (value_of(cpuinfo, "CPU implementer")?, value_of(cpuinfo, "CPU part")?);
        let known = ARM_CORES.iter().find(|(m, c, _)| (*m, *c) == (maker.as_str(), core.as_str()));
        Some(known.map_or_else(|| format!("ARM {maker} {core}"), |(_, _, name)| (*name).into()))
    })
}

/// Cores of servers and boards on which models are trained, as in Linux' arch/arm64/include/asm/cputype.h.
const ARM_CORES: [(&str, &str, &str); 10] = [
    ("0x41", "0xd0b", "ARM Cortex-A76"),
    ("0x41", "0xd08", "ARM Cortex-A72"),
    ("0x41", "0xd0c", "ARM Neoverse-N1"),
    ("0x41", "0xd40", "ARM Neoverse-V1"),
    ("0x41", "0xd42", "ARM Cortex-A78AE"),
    ("0x41", "0xd49", "ARM Neoverse-N2"),
    ("0x41", "0xd4f", "ARM Neoverse-V2"),
    ("0x41", "0xd84", "ARM Neoverse-V3"),
    ("0x41", "0xd8e", "ARM Neoverse-N3"),
    ("0xc0", "0xac3", "Ampere-1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_say_how_long_they_waited() {
        assert_eq!(waited_in("5000 1500 7\n"), Some(Duration::from_nanos(1500)));
        assert!(waited_in("").is_none() && waited_in("1 x 2").is_none());
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       24576000 kB\nMemFree:          100 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(parse_meminfo(text), Some(Memory { total: 24_576_000 * 1024, available: 1024 * 1024 }));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
        assert_eq!(parse_meminfo("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    fn a_library_is_found_in_the_maps_with_blanks_in_its_path() {
        let maps = b"7f00-7f01 r-xp 00000000 fe:00 12      /lib/libc.so.6\n\
                     7f02-7f03 rw-p 00000000 00:00 0 \n\
                     7f04-7f05 r--p 00000000 fe:00 13      /home/a b/lib/libtorch_cpu.so\n";
        assert_eq!(library_in_maps(maps, "libtorch_cpu.so"), Some("/home/a b/lib/libtorch_cpu.so".into()));
        assert_eq!(library_in_maps(maps, "libtorch_cuda.so"), None);
    }

    #[test]
    fn processors_of_both_kinds_have_a_name() {
        let x86 = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 9V74\nmodel name\t: other\n";
        assert_eq!(name_in(x86).unwrap(), "AMD EPYC 9V74");
        let arm = |core| {
            format!("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: {core}\n")
        };
        assert_eq!(name_in(&arm("0xd4f")).unwrap(), "ARM Neoverse-V2");
        assert_eq!(name_in(&arm("0xfff")).unwrap(), "ARM 0x41 0xfff");
        assert_eq!(name_in("processor : 0\n"), None);
    }
}
