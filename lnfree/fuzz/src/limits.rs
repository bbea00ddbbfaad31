//! What one input costs: bytes that are held at once, by whatever language, and seconds of the processor.
//!
//! With glibc the allocation functions of C are replaced, so that libtorch's tensors and zstd's windows count
//! like Rust's own values. Elsewhere only Rust's are counted.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Bytes in use, and the most that there have been since the last [`Meter::start`].
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// What one input may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes for any input …
    pub base: usize,
    /// … and this many for each byte of it.
    pub per_byte: usize,
    /// Time of the processor, all threads together.
    pub cpu: Duration,
}

/// Measures from its start on.
pub struct Meter {
    live: usize,
    cpu: Duration,
}

impl Meter {
    /// Begins to measure.
    pub fn start() -> Meter {
        let live = LIVE.load(Relaxed);
        PEAK.store(live, Relaxed);
        Meter { live, cpu: cpu_time() }
    }

    /// What was needed beyond `limits` for an input of `length` bytes, in words.
    pub fn exceeded(&self, limits: Limits, length: usize) -> Option<String> {
        let held = PEAK.load(Relaxed).saturating_sub(self.live);
        let most = limits.base + limits.per_byte * length;
        if held > most {
            return Some(format!("asks for {held} bytes at once for {length} of input; {most} are allowed"));
        }
        let cpu = cpu_time().saturating_sub(self.cpu);
        (cpu > limits.cpu).then(|| format!("takes {cpu:?}; {:?} are allowed", limits.cpu))
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock writes into the structure that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Counts what is asked for, whether it is given or not.
fn taken(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

fn given_back(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod c {
    //! glibc's allocator under its own names, and in front of it the same functions with a count.

    use std::ffi::{c_int, c_void};

    use super::{given_back, taken};

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(n: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
        fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
        fn __libc_free(old: *mut c_void);
        fn malloc_usable_size(of: *mut c_void) -> usize;
    }

    /// Counts `made`; where there is none, the request still shows in the peak.
    fn counted(made: *mut c_void, size: usize) -> *mut c_void {
        if made.is_null() {
            taken(size);
            given_back(size);
        } else {
            // SAFETY: the pointer has just come from the allocator.
            taken(unsafe { malloc_usable_size(made) });
        }
        made
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        // SAFETY: here and below the caller keeps malloc's contract, which is handed on.
        counted(unsafe { __libc_malloc(size) }, size)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(n: usize, size: usize) -> *mut c_void {
        counted(unsafe { __libc_calloc(n, size) }, n.saturating_mul(size))
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
        let before = if old.is_null() { 0 } else { unsafe { malloc_usable_size(old) } };
        let made = unsafe { __libc_realloc(old, size) };
        if !made.is_null() || size == 0 {
            given_back(before);
        }
        counted(made, size)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(old: *mut c_void) {
        if !old.is_null() {
            given_back(unsafe { malloc_usable_size(old) });
            unsafe { __libc_free(old) };
        }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
        counted(unsafe { __libc_memalign(align, size) }, size)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
        counted(unsafe { __libc_memalign(align, size) }, size)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> c_int {
        if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
            return libc::EINVAL;
        }
        let made = counted(unsafe { __libc_memalign(align, size) }, size);
        if made.is_null() {
            return libc::ENOMEM;
        }
        unsafe { *to = made };
        0
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod rust {
    use std::alloc::{GlobalAlloc, Layout, System};

    use super::{given_back, taken};

    struct Counting;

    #[global_allocator]
    static COUNTING: Counting = Counting;

    // SAFETY: the system's allocator, with a count beside it.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            taken(layout.size());
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            given_back(layout.size());
            unsafe { System.dealloc(at, layout) }
        }
    }
}

/// What is measured is all that the process does: tests that measure take turns.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_measured() {
        let _alone = alone();
        let limits = Limits { base: 1 << 20, per_byte: 2, cpu: Duration::from_secs(3600) };
        let meter = Meter::start();
        drop(std::hint::black_box(vec![1u8; 1 << 19]));
        assert_eq!(meter.exceeded(limits, 0), None);
        // Given back before it is asked, and not even touched.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 21)));
        assert!(meter.exceeded(limits, 0).is_some_and(|why| why.contains("bytes at once")));
        assert_eq!(meter.exceeded(limits, 1 << 20), None);
        let none = Limits { base: usize::MAX / 2, per_byte: 0, cpu: Duration::ZERO };
        assert!(meter.exceeded(none, 0).is_some_and(|why| why.contains("takes")));
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn memory_of_libtorch_counts() {
        let _alone = alone();
        let limits = Limits { base: 1 << 20, per_byte: 0, cpu: Duration::from_secs(3600) };
        let meter = Meter::start();
        let kind = (lnfree::tch::Kind::Float, lnfree::tch::Device::Cpu);
        drop(lnfree::tch::Tensor::empty([1 << 20], kind));
        assert!(meter.exceeded(limits, 0).is_some());
    }
}
