//! libtorch and the machine under it.

use super::{Check, bytes};
use crate::base::device::{self, LIBTORCH_VERSION};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Below this much free memory or disk (bytes), even small work gets into trouble.
const LITTLE_MEMORY: u64 = 2_000_000_000;
const LITTLE_DISK: u64 = 5_000_000_000;

/// The version and the folder of the libtorch that was loaded, and whether it computes.
pub(super) fn libtorch() -> Check {
    const NAME: &str = "libtorch";
    let again = "./scripts/setup.sh gets the right one; then build again";
    if let Err(why) = computes() {
        return Check::fail(NAME, format!("a product of two matrices fails: {why}"), again);
    }
    let folder = device::libtorch_folder().or_else(|| option_env!("LNFREE_LINKED_LIBTORCH").map(Into::into));
    let Some(folder) = folder else {
        return Check::ok(
            NAME,
            format!("it computes; expected is {LIBTORCH_VERSION}, and its folder cannot be told here"),
        );
    };
    let place = folder.display();
    match folder.parent().and_then(device::version_in) {
        Some(version) if version == LIBTORCH_VERSION => Check::ok(NAME, format!("{version} in {place}")),
        Some(version) => {
            Check::fail(NAME, format!("{version} in {place}, made for {LIBTORCH_VERSION}"), again)
        }
        None => {
            Check::ok(NAME, format!("in {place}, which names no version; expected is {LIBTORCH_VERSION}"))
        }
    }
}

/// Ones times ones in both number formats of a run.
fn computes() -> Result<(), String> {
    for kind in [Kind::Float, Kind::BFloat16] {
        let product = || -> crate::Result<f64> {
            let ones = Tensor::f_ones([16, 16], (kind, Device::Cpu))?;
            let sum = ones.f_matmul(&ones)?.f_sum(Kind::Double)?;
            Ok(f64::try_from(&sum)?)
        };
        match product() {
            Ok(4096.0) => {}
            Ok(sum) => return Err(format!("{kind:?} sums to {sum}, not to 4096")),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// The CUDA devices, or why there are none. Only a machine with an NVIDIA GPU is told to do something about
/// it.
pub(super) fn cuda() -> Check {
    const NAME: &str = "CUDA";
    match device::cuda_devices() {
        Ok(_) => {
            let gpus = device::driver().map(|d| describe(&d)).unwrap_or_default();
            match device::gpu_kernels(0) {
                Ok(()) => Check::ok(NAME, format!("{gpus}; lnfree's own kernels run")),
                Err(why) => Check::warn(
                    NAME,
                    format!("{gpus}; lnfree's own kernels do not run ({why})"),
                    "without them libtorch computes the same more slowly; ./scripts/setup.sh --cuda gets a whole libtorch",
                ),
            }
        }
        Err(why) if nvidia_gpu_present() => match why.rsplit_once(": ") {
            Some((what, to_do)) => Check::warn(NAME, format!("not used: {what}"), to_do),
            None => Check::warn(NAME, format!("not used: {why}"), "./scripts/setup.sh --cuda"),
        },
        Err(_) => {
            const NONE: &str = "no NVIDIA GPU on this machine: the CPU is used";
            match device::cuda_part().map(|part| (part, device::load_cuda())) {
                None => Check::ok(NAME, NONE),
                Some((_, Ok(()))) => {
                    Check::ok(NAME, format!("{NONE}; CUDA's part of libtorch is there and loads"))
                }
                Some((part, Err(_))) => Check::warn(
                    NAME,
                    format!("{NONE}; {} would not load where there is one", part.display()),
                    "./scripts/setup.sh --cuda gets a whole one",
                ),
            }
        }
    }
}

fn describe(driver: &device::Driver) -> String {
    let gpu = |(index, gpu): (usize, &device::Gpu)| {
        let (major, minor) = gpu.capability;
        format!("cuda:{index} {}, {}, capability {major}.{minor}", gpu.name, bytes(gpu.memory))
    };
    let gpus: Vec<String> = driver.gpus.iter().enumerate().map(gpu).collect();
    format!("{}; the driver serves CUDA {}.{}", gpus.join("; "), driver.cuda.0, driver.cuda.1)
}

/// Whether the driver, its kernel module or the PCI bus knows of an NVIDIA GPU.
fn nvidia_gpu_present() -> bool {
    let on_the_bus = || {
        let devices = std::fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
        let starts =
            |path: std::path::PathBuf, text| std::fs::read_to_string(path).is_ok_and(|t| t.starts_with(text));
        // Vendor NVIDIA, class display controller.
        devices
            .map(|d| d.path())
            .any(|d| starts(d.join("vendor"), "0x10de") && starts(d.join("class"), "0x03"))
    };
    device::driver().is_ok_and(|d| !d.gpus.is_empty())
        || Path::new("/proc/driver/nvidia/version").exists()
        || on_the_bus()
}

/// How many threads libtorch uses of how many cores.
pub(super) fn threads() -> Check {
    const NAME: &str = "threads";
    let (threads, cores) = (device::threads(), device::cores());
    let detail = format!(
        "{threads} of libtorch on {cores} core(s){}",
        device::cpu_name().map_or(String::new(), |n| format!(", {n}"))
    );
    if threads > cores {
        return Check::warn(
            NAME,
            detail,
            format!("more threads than cores slow each other down: OMP_NUM_THREADS={cores}"),
        );
    }
    Check::ok(NAME, detail)
}

/// The vector units that decide how fast float32 and bf16 are.
pub(super) fn vector_units() -> Check {
    match device::cpu_units() {
        Some(flags) => {
            let products = device::products();
            let found = judge_units(&flags);
            let faster = if products.bfloat16_pays() { "bfloat16" } else { "float32" };
            let [float32, bfloat16] =
                [products.fastest_float32(), products.bfloat16].map(|speed| (speed / 1e9).round());
            let detail = format!(
                "{}; products reach {float32} GFLOP/s in float32, {bfloat16} in bfloat16: {faster} is the faster one here",
                found.detail
            );
            Check { detail, ..found }
        }
        None => {
            Check::ok("CPU", format!("{}, whose vector units cannot be told here", std::env::consts::ARCH))
        }
    }
}

/// Judges the flags of /proc/cpuinfo, x86 or ARM.
fn judge_units(flags: &str) -> Check {
    const NAME: &str = "CPU";
    const UNITS: [&str; 8] =
        ["avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16", "svebf16"];
    let found: Vec<&str> =
        UNITS.into_iter().filter(|unit| flags.split_whitespace().any(|f| f == *unit)).collect();
    let wide = found.iter().any(|u| ["avx2", "avx512f", "asimd", "sve"].contains(u));
    let bf16 = found.iter().any(|u| ["avx512_bf16", "amx_bf16", "bf16", "svebf16"].contains(u));
    let list = found.join(" ");
    match (wide, bf16) {
        (true, true) => Check::ok(NAME, list),
        (true, false) => Check::ok(NAME, format!("{list}, no bf16 units")),
        _ => Check::warn(
            NAME,
            "no AVX2 or NEON",
            "expect a tenth of the usual speed; another machine would serve better",
        ),
    }
}

/// Main memory, all of it and what is free.
pub(super) fn memory() -> Check {
    const NAME: &str = "memory";
    let Some(memory) = device::memory() else {
        return Check::ok(NAME, "cannot be told here");
    };
    let detail = format!("{} of {} available", bytes(memory.available), bytes(memory.total));
    if memory.available < LITTLE_MEMORY {
        return Check::warn(
            NAME,
            detail,
            "close other programs: fine-tuning gpt2 (124M) takes several GB, nano less than one",
        );
    }
    Check::ok(NAME, detail)
}

/// The disk under the current folder, where runs go unless --out says otherwise.
pub(super) fn disk() -> Check {
    const NAME: &str = "disk";
    let here = std::env::current_dir().unwrap_or_else(|_| ".".into());
    let free = device::disk_free(&here);
    let detail = match free {
        Some(free) => format!("{} free in {}", bytes(free), here.display()),
        None => format!("{}, whose free space cannot be told", here.display()),
    };
    if tempfile::tempfile_in(&here).is_err() {
        return Check::warn(NAME, format!("{detail}, not writable"), "write runs elsewhere with --out");
    }
    if free.is_some_and(|f| f < LITTLE_DISK) {
        return Check::warn(
            NAME,
            detail,
            "free some space, or write runs elsewhere with --out: a gpt2 checkpoint takes 1.5 GB",
        );
    }
    Check::ok(NAME, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::doctor::Status;

    #[test]
    fn the_units_say_which_number_format_is_fast() {
        let bf16 = judge_units("fpu sse2 avx2 avx512f avx512_bf16 amx_bf16");
        assert_eq!(bf16.detail, "avx2 avx512f avx512_bf16 amx_bf16");
        let plain = judge_units("fpu sse2 avx2 avx512_bf16x");
        assert_eq!(plain.detail, "avx2, no bf16 units");
        assert!(judge_units("fp asimd bf16").detail.contains("bf16"));
        assert_eq!(judge_units("fpu sse2").status, Status::Warn);
    }

    #[test]
    fn gpus_are_listed_by_the_name_a_user_types() {
        let gpu = |name: &str| device::Gpu {
            name: name.into(),
            memory: 150_754_820_096,
            capability: (9, 0),
            virtual_memory: true,
        };
        let driver = device::Driver { cuda: (13, 2), gpus: vec![gpu("NVIDIA H200"), gpu("NVIDIA A40")] };
        let text = describe(&driver);
        assert!(text.starts_with("cuda:0 NVIDIA H200, 151 GB, capability 9.0; cuda:1 NVIDIA A40"), "{text}");
        assert!(text.ends_with("the driver serves CUDA 13.2"), "{text}");
    }
}
