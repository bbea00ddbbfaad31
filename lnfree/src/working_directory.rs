//! A working directory that has been deleted.
//!
//! MKL, which is part of libtorch on x86-64, asks for it while the program is loaded, before `main`, and ends
//! the process with "Cannot load libtorch_cpu.so" when there is none. The functions of `.preinit_array` run
//! before those of all libraries, so this one can say what it is.

/// What MKL has room for.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LONGEST: usize = 4096;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_LIBRARIES: extern "C" fn() = check;

/// Ends the process with one line where the working directory has no path. Nothing but system calls works
/// this early.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn check() {
    let mut path = [0u8; LONGEST];
    // SAFETY: the buffer is as long as said; the others take plain values and static text.
    unsafe {
        if !libc::getcwd(path.as_mut_ptr().cast(), LONGEST).is_null() {
            return;
        }
        let text: &[u8] = match *libc::__errno_location() {
            libc::ERANGE => {
                b"lnfree: the path of the working directory is too long; go to another (cd) and run again\n"
            }
            libc::EACCES => {
                b"lnfree: the working directory may not be read; go to another (cd) and run again\n"
            }
            _ => {
                b"lnfree: the working directory has been deleted; go to one that exists (cd) and run again\n"
            }
        };
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        libc::_exit(1);
    }
}
