//! What the NVIDIA driver says for itself, asked without libtorch and without taking any GPU memory.

use super::system;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// A GPU as the driver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// What it is called, say `NVIDIA H200`.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Compute capability, major and minor; bf16 is fast from 8.0 on.
    pub capability: (i32, i32),
    /// Whether its memory can be mapped piece by piece, which some virtual GPUs cannot.
    pub virtual_memory: bool,
}

/// The NVIDIA driver of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA version it serves, major and minor.
    pub cuda: (i32, i32),
    /// The GPUs it lets this process see, in the order of `cuda:N`.
    pub gpus: Vec<Gpu>,
}

/// The CUDA driver API's type of a result: 0 is success.
type Status = c_int;
const NO_DEVICE: Status = 100;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;
const VIRTUAL_MEMORY: c_int = 102;

/// Asks the driver.
///
/// # Errors
/// One line: no driver, or a driver that does not work, and what to do.
pub fn driver() -> Result<Driver, String> {
    // SAFETY: a C string that outlives the call.
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return Err(
            "no NVIDIA driver here (libcuda.so.1 cannot be loaded): install one if there is an NVIDIA GPU, or start the container with its GPUs"
                .into(),
        );
    }
    let ask = || {
        let mut version = 0;
        // SAFETY: the types are those of cuda.h, and the pointer is good for the call.
        unsafe {
            let get: extern "C" fn(*mut c_int) -> Status = symbol(library, c"cuDriverGetVersion")?;
            check(library, get(&mut version))?;
        }
        // 13020 is 13.2.
        Ok(Driver { cuda: (version / 1000, version % 1000 / 10), gpus: gpus(library)? })
    };
    ask().map_err(|why: String| format!("the NVIDIA driver does not work ({why}): nvidia-smi tells more"))
}

fn gpus(library: *mut c_void) -> Result<Vec<Gpu>, String> {
    // SAFETY: the types are those of cuda.h; every pointer is good for its call, and the name's buffer as
    // long as said.
    unsafe {
        let init: extern "C" fn(c_uint) -> Status = symbol(library, c"cuInit")?;
        let count_of: extern "C" fn(*mut c_int) -> Status = symbol(library, c"cuDeviceGetCount")?;
        let device_of: extern "C" fn(*mut c_int, c_int) -> Status = symbol(library, c"cuDeviceGet")?;
        let name_of: extern "C" fn(*mut c_char, c_int, c_int) -> Status =
            symbol(library, c"cuDeviceGetName")?;
        let memory_of: extern "C" fn(*mut usize, c_int) -> Status = symbol(library, c"cuDeviceTotalMem_v2")?;
        let attribute: extern "C" fn(*mut c_int, c_int, c_int) -> Status =
            symbol(library, c"cuDeviceGetAttribute")?;

        let started = init(0);
        if started == NO_DEVICE {
            return Ok(Vec::new());
        }
        check(library, started)?;
        let mut count = 0;
        check(library, count_of(&mut count))?;
        (0..count)
            .map(|index| {
                let (mut device, mut memory, mut major, mut minor, mut mapped) = (0, 0, 0, 0, 0);
                let mut name: [c_char; 256] = [0; 256];
                check(library, device_of(&mut device, index))?;
                check(library, name_of(name.as_mut_ptr(), 255, device))?;
                check(library, memory_of(&mut memory, device))?;
                check(library, attribute(&mut major, CAPABILITY_MAJOR, device))?;
                check(library, attribute(&mut minor, CAPABILITY_MINOR, device))?;
                check(library, attribute(&mut mapped, VIRTUAL_MEMORY, device))?;
                let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
                let virtual_memory = mapped != 0;
                Ok(Gpu { name, memory: memory as u64, capability: (major, minor), virtual_memory })
            })
            .collect()
    }
}

/// A function of a loaded library.
///
/// # Safety
/// `F` must be a function pointer of the type that the function has.
unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: an open library and a C string.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() {
        return Err(system::loader_error());
    }
    // SAFETY: as wide as a pointer (checked above), and of the right type (the caller's word).
    Ok(unsafe { std::mem::transmute_copy(&address) })
}

/// Turns a status other than success into the driver's own words.
fn check(library: *mut c_void, status: Status) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    let mut text: *const c_char = std::ptr::null();
    // SAFETY: the type is that of cuda.h; the text is the driver's, static, and checked for null.
    unsafe {
        let describe: extern "C" fn(Status, *mut *const c_char) -> Status =
            symbol(library, c"cuGetErrorString")?;
        describe(status, &mut text);
        if text.is_null() {
            return Err(format!("error {status}"));
        }
        Err(format!("error {status}, {}", CStr::from_ptr(text).to_string_lossy()))
    }
}
