//! CUDA's part of libtorch: loaded when it is there, and the reason why not when it is not.

use super::{Driver, LIBTORCH_VERSION, driver, libtorch_folder, system};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

const CUDA_PART: &str = "libtorch_cuda.so";
/// Where users set up libtorch's allocator of GPU memory.
const ALLOCATOR_VARIABLES: [&str; 2] = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];
const GROWING_SEGMENTS: &str = "expandable_segments:True";

/// Loads CUDA's part of libtorch, once; later calls return what the first one found. It is looked for beside
/// the loaded libtorch, then in `$LIBTORCH/lib` if that is the same version.
///
/// # Errors
/// One line that says why it cannot be loaded and what to do.
pub fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(load).clone()
}

fn load() -> Result<(), String> {
    if system::loaded_library(CUDA_PART).is_some() {
        return Ok(());
    }
    let Some(library) = cuda_part() else {
        let place = libtorch_folder().map_or(String::new(), |d| format!(" in {}", d.display()));
        return Err(format!("the libtorch{place} is the CPU kind: ./scripts/setup.sh --cuda gets the other"));
    };
    open(&library).map_err(|why| {
        format!("{} cannot be loaded ({why}): ./scripts/setup.sh --cuda gets a whole one", library.display())
    })
}

/// CUDA's part of libtorch, where it is found first; None for a libtorch for CPUs.
pub(crate) fn cuda_part() -> Option<PathBuf> {
    let folders = libtorch_folder().into_iter().chain(folder_of_libtorch_variable());
    folders.map(|folder| folder.join(CUDA_PART)).find(|file| file.is_file())
}

/// `$LIBTORCH/lib`, if it is of our version: parts of two versions do not go together.
fn folder_of_libtorch_variable() -> Option<PathBuf> {
    let root = PathBuf::from(std::env::var_os("LIBTORCH")?);
    (version_in(&root)? == LIBTORCH_VERSION).then(|| root.join("lib"))
}

/// The version that libtorch folder `root` gives itself, without its `+cpu` or `+cu130`: in `build-version`,
/// or in the `version.py` of a PyTorch package.
pub(crate) fn version_in(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("build-version")).ok().or_else(|| {
        let python = std::fs::read_to_string(root.join("version.py")).ok()?;
        let line = python.lines().find_map(|l| l.strip_prefix("__version__"))?;
        line.split(['\'', '"']).nth(1).map(str::to_string)
    })?;
    let version = text.trim().split('+').next().unwrap_or_default();
    (!version.is_empty()).then(|| version.to_string())
}

/// Loads a shared library for good, its symbols visible to all.
fn open(library: &Path) -> Result<(), String> {
    let path =
        CString::new(library.as_os_str().as_bytes()).map_err(|_| "its path holds a zero byte".to_string())?;
    // SAFETY: `path` is a C string that outlives the call; loading runs the library's constructors, which is
    // the purpose.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() { Err(system::loader_error()) } else { Ok(()) }
}

/// How many CUDA devices libtorch can use, at least 1.
///
/// # Errors
/// One line that says why there is none and what to do: the first of no driver, no GPU, a driver too old, no
/// CUDA part of libtorch, and libtorch's own refusal.
pub fn cuda_devices() -> Result<usize, String> {
    let driver = driver()?;
    if driver.gpus.is_empty() {
        return Err(no_gpu(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()));
    }
    if let Some(needed) = runtime_major().filter(|needed| driver.cuda.0 < *needed) {
        let (major, minor) = driver.cuda;
        return Err(format!(
            "the NVIDIA driver serves CUDA {major}.{minor} and this libtorch needs {needed}.0: install a newer driver"
        ));
    }
    // Before libtorch is asked anything: it settles at the first question.
    load_cuda()?;
    prefer_growing_segments(&driver);
    match device_count()? {
        0 => Err(format!(
            "the driver sees {} GPU(s) and libtorch none: it may have been used before CUDA was loaded, so ask for the \
             device first",
            driver.gpus.len()
        )),
        count => Ok(count),
    }
}

/// Lets libtorch's allocator of GPU memory grow its segments instead of taking new ones, unless the user has
/// set it up, or a GPU cannot do that: what a step frees then serves larger tensors too, where sizes change
/// from forward to evaluation, and from one micro-batch to half of it.
fn prefer_growing_segments(driver: &Driver) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let set_up = ALLOCATOR_VARIABLES.iter().any(|name| std::env::var_os(name).is_some());
        if wants_growing_segments(set_up, driver) {
            // What it does not take leaves it as it was, which only wastes memory.
            let _ = crate::base::ffi::set_allocator(GROWING_SEGMENTS);
        }
    });
}

fn wants_growing_segments(set_up: bool, driver: &Driver) -> bool {
    !set_up && driver.gpus.iter().all(|gpu| gpu.virtual_memory)
}

fn no_gpu(visible: Option<&str>) -> String {
    match visible {
        Some(list) => {
            format!("CUDA_VISIBLE_DEVICES={list} leaves no GPU: unset it, or name one that is there")
        }
        None => "the NVIDIA driver sees no GPU: nvidia-smi tells more".into(),
    }
}

/// The major version of the CUDA runtime that libtorch was loaded with, from the name `libcudart.so.13`.
fn runtime_major() -> Option<i32> {
    let path = system::loaded_library("libcudart.so.")?;
    path.file_name()?.to_str()?.strip_prefix("libcudart.so.")?.split('.').next()?.parse().ok()
}

/// Asks libtorch itself. tch's own function panics where libtorch refuses, so its error is read here.
fn device_count() -> Result<usize, String> {
    // SAFETY: no arguments; an exception is caught on the C++ side and kept for the next call.
    let count = unsafe { torch_sys::cuda::atc_cuda_device_count() };
    // SAFETY: hands over a C string from malloc, or null.
    let error = unsafe { torch_sys::get_and_reset_last_err() };
    if error.is_null() {
        return Ok(usize::try_from(count).unwrap_or(0));
    }
    // SAFETY: not null, ended by a zero byte, and ours: read once, then freed by the allocator it came from.
    let text = unsafe {
        let text = std::ffi::CStr::from_ptr(error).to_string_lossy().into_owned();
        libc::free(error.cast());
        text
    };
    Err(format!("libtorch refuses CUDA ({}): nvidia-smi tells more", text.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "kernels")]
    use super::super::Gpu;
    use super::*;

    #[test]
    fn a_missing_or_broken_library_is_an_error_of_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join(CUDA_PART);
        assert!(open(&library).unwrap_err().contains("No such file"));
        std::fs::write(&library, "no library").unwrap();
        let why = open(&library).unwrap_err();
        assert!(why.contains("file too short") && !why.contains('\n'), "{why}");
    }

    #[test]
    fn the_version_is_read_from_either_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(version_in(folder.path()), None);
        let python = folder.path().join("version.py");
        std::fs::write(&python, "from typing import Optional\n__version__ = '2.11.0+cu130'\ndebug = False\n")
            .unwrap();
        assert_eq!(version_in(folder.path()).as_deref(), Some("2.11.0"));
        std::fs::write(folder.path().join("build-version"), "2.6.0+cpu\n").unwrap();
        assert_eq!(version_in(folder.path()).as_deref(), Some("2.6.0"));
        std::fs::write(folder.path().join("build-version"), "\n").unwrap();
        assert_eq!(version_in(folder.path()), None);
    }

    #[cfg(feature = "kernels")]
    #[test]
    fn segments_grow_where_nobody_says_otherwise_and_every_gpu_can() {
        let gpu = |virtual_memory| Gpu { name: "GPU".into(), memory: 1, capability: (9, 0), virtual_memory };
        let driver =
            |gpus: &[bool]| Driver { cuda: (13, 0), gpus: gpus.iter().map(|&can| gpu(can)).collect() };
        assert!(wants_growing_segments(false, &driver(&[true, true])));
        assert!(!wants_growing_segments(true, &driver(&[true])));
        assert!(!wants_growing_segments(false, &driver(&[true, false])));
        // In words that this libtorch knows.
        crate::base::ffi::set_allocator(GROWING_SEGMENTS).unwrap();
        assert_eq!(crate::base::ffi::allocator_settings(), GROWING_SEGMENTS);
    }

    #[test]
    fn a_hidden_gpu_is_blamed_on_the_variable() {
        assert!(no_gpu(Some("")).starts_with("CUDA_VISIBLE_DEVICES= leaves no GPU"));
        assert!(no_gpu(None).contains("nvidia-smi"));
    }
}
