//! NVIDIA's compiler of CUDA source at run time (docs.nvidia.com/cuda/nvrtc).

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use super::library::Library;

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type Message = unsafe extern "C" fn(c_int) -> *const c_char;

/// Major and minor.
pub(super) fn version(library: &Library) -> Result<(c_int, c_int), String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the type of nvrtcVersion, which writes two numbers.
    let code = unsafe { library.function::<Version>("nvrtcVersion")?(&mut major, &mut minor) };
    done(library, code)?;
    Ok((major, minor))
}

/// Machine code of `source` for `architecture` (sm_90).
pub(super) fn compile(library: &Library, source: &str, architecture: &str) -> Result<Vec<u8>, String> {
    load_builtins(library);
    let text = |x: &str| CString::new(x).map_err(|e| e.to_string());
    let (source, name) = (text(source)?, text("rows.cu")?);
    let options = [text("--std=c++17")?, text(&format!("--gpu-architecture={architecture}"))?];
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    let null = std::ptr::null();
    let mut program = std::ptr::null_mut();
    // SAFETY: the types of NVRTC's functions; the strings outlive the calls, `program` is destroyed once, and
    // buffers are as long as NVRTC says.
    unsafe {
        let create: Create = library.function("nvrtcCreateProgram")?;
        let destroy: Destroy = library.function("nvrtcDestroyProgram")?;
        let compile: Compile = library.function("nvrtcCompileProgram")?;
        done(library, create(&mut program, source.as_ptr(), name.as_ptr(), 0, null, null))?;
        let compiled = done(library, compile(program, options.len() as c_int, options.as_ptr()));
        let found = compiled
            .map_err(|why| {
                let log = output(library, program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
                let log = String::from_utf8_lossy(&log.unwrap_or_default()).into_owned();
                let line = log.lines().find(|line| line.contains("error")).unwrap_or_default().to_string();
                format!("{why}: {line}")
            })
            .and_then(|()| output(library, program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"));
        destroy(&mut program);
        found
    }
}

/// What one function writes, as long as another says.
///
/// # Safety
/// Both are NVRTC's, for `program`.
unsafe fn output(library: &Library, program: Program, size: &str, get: &str) -> Result<Vec<u8>, String> {
    let mut length = 0;
    // SAFETY: see the caller's.
    unsafe {
        done(library, library.function::<Size>(size)?(program, &mut length))?;
        let mut bytes = vec![0u8; length];
        done(library, library.function::<Text>(get)?(program, bytes.as_mut_ptr().cast()))?;
        Ok(bytes)
    }
}

/// NVRTC looks for its second half along the loader's path, on which Python's packages are not: loaded once,
/// it is found.
fn load_builtins(library: &Library) {
    let (Ok((major, minor)), Ok(file)) = (version(library), library.file_of("nvrtcVersion")) else { return };
    // Where it cannot be loaded, NVRTC says so itself.
    let _ = Library::open(&file.with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}")));
}

fn done(library: &Library, code: c_int) -> Result<(), String> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the type of nvrtcGetErrorString, which returns a constant.
    let message = unsafe {
        CStr::from_ptr(library.function::<Message>("nvrtcGetErrorString")?(code)).to_string_lossy()
    };
    Err(format!("NVRTC: {message}"))
}
