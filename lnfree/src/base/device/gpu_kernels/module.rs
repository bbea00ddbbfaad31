//! Machine code on a GPU, by CUDA's driver API (docs.nvidia.com/cuda/cuda-driver-api).

use std::ffi::{CStr, c_char, c_int, c_void};

use super::library::Library;
use crate::base::ffi::{GPU_KERNELS, set_gpu_kernels};

type Handle = *mut c_void;
type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type RetainContext = unsafe extern "C" fn(*mut Handle, c_int) -> c_int;
type SetContext = unsafe extern "C" fn(Handle) -> c_int;
type LoadData = unsafe extern "C" fn(*mut Handle, *const c_void) -> c_int;
type GetFunction = unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> c_int;
type ErrorString = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
const CAPABILITY: [c_int; 2] = [75, 76];

/// A CUDA device, as the driver has it.
pub(super) struct Gpu<'a> {
    library: &'a Library,
    index: usize,
    device: c_int,
}

impl Gpu<'_> {
    pub fn new(library: &Library, index: usize) -> Result<Gpu<'_>, String> {
        let ordinal = c_int::try_from(index).map_err(|e| e.to_string())?;
        let mut device = 0;
        // SAFETY: the type of cuDeviceGet, which writes a number.
        let code = unsafe { library.function::<GetDevice>("cuDeviceGet")?(&mut device, ordinal) };
        done(library, code)?;
        Ok(Gpu { library, index, device })
    }

    /// What NVRTC compiles for it: `sm_90`.
    pub fn architecture(&self) -> Result<String, String> {
        let mut found = [0; 2];
        for (number, attribute) in found.iter_mut().zip(CAPABILITY) {
            // SAFETY: the type of cuDeviceGetAttribute, which writes a number.
            let code = unsafe {
                self.library.function::<GetAttribute>("cuDeviceGetAttribute")?(number, attribute, self.device)
            };
            done(self.library, code)?;
        }
        Ok(format!("sm_{}{}", found[0], found[1]))
    }

    /// Hands the kernels in `program` to `native/`, which starts them.
    pub fn load(&self, program: &[u8]) -> Result<(), String> {
        let Gpu { library, index, device } = *self;
        // SAFETY: the types of the driver's functions. The context is the one that libtorch has, and stays
        // until the process ends, as does the module; `program` outlives its loading.
        unsafe {
            let mut context = std::ptr::null_mut();
            done(
                library,
                library.function::<RetainContext>("cuDevicePrimaryCtxRetain")?(&mut context, device),
            )?;
            done(library, library.function::<SetContext>("cuCtxSetCurrent")?(context))?;
            let mut module = std::ptr::null_mut();
            done(
                library,
                library.function::<LoadData>("cuModuleLoadData")?(&mut module, program.as_ptr().cast()),
            )?;
            let get: GetFunction = library.function("cuModuleGetFunction")?;
            let mut functions = [std::ptr::null_mut(); GPU_KERNELS.len()];
            for (function, name) in functions.iter_mut().zip(GPU_KERNELS) {
                done(library, get(function, module, name.as_ptr()))?;
            }
            let driver =
                ["cuLaunchKernel", "cuCtxGetCurrent", "cuCtxSetCurrent"].map(|name| library.address(name));
            let [launch, current, set_current] = driver;
            set_gpu_kernels(index, [launch?, current?, set_current?], context, functions)
                .map_err(|e| e.to_string())
        }
    }
}

fn done(library: &Library, code: c_int) -> Result<(), String> {
    if code == 0 {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: the type of cuGetErrorString, which writes the address of a constant, or null.
    let message = unsafe {
        library.function::<ErrorString>("cuGetErrorString")?(code, &mut text);
        if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy() }
    };
    Err(format!("CUDA driver: error {code}, {message}"))
}
