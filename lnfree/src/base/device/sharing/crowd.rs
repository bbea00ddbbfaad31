//! Threads of libgomp that sleep, so that there are more than cores.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::Signal;
use crate::base::device::system;

/// `GOMP_parallel(fn, data, num_threads, flags)`: runs fn(data) on as many threads, the caller's among them.
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// Sleeping threads that a team may have: where fewer threads compute than a machine with many cores has,
/// these are not crowded.
const LARGEST: usize = 16;

/// A team that sleeps until this goes.
pub(super) struct Crowd {
    release: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Whether the process has a libgomp.
    pub fn is_possible() -> bool {
        parallel().is_some()
    }

    /// So many threads that there are more than cores, besides `computing` ones.
    pub fn gather(computing: usize) -> Option<Crowd> {
        let parallel = parallel()?;
        // The caller's is counted only once it has a team: two threads are one more.
        let size = system::allowed_cores()?.saturating_sub(computing) + 2;
        if size > LARGEST {
            return None;
        }
        let release = Arc::new(Signal::default());
        let given = Arc::clone(&release);
        let sleep = move || {
            let data = Arc::as_ptr(&given).cast_mut().cast::<c_void>();
            // SAFETY: `sleep_until_given` gets a signal that `given` keeps until all have returned; flags 0
            // are the default.
            unsafe { parallel(sleep_until_given, data, size as c_uint, 0) };
        };
        let thread = std::thread::Builder::new().name("sleeping team".into()).spawn(sleep).ok()?;
        Some(Crowd { release, thread: Some(thread) })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.release.give();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

extern "C" fn sleep_until_given(signal: *mut c_void) {
    // SAFETY: see `gather`.
    unsafe { &*signal.cast::<Signal>() }.wait_long();
}

/// libgomp's function, if a libgomp is loaded; it is never loaded here.
fn parallel() -> Option<Parallel> {
    let address = system::function_of_loaded(c"libgomp.so.1", c"GOMP_parallel");
    // SAFETY: the type of that function.
    (!address.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Parallel>(address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_sleeps_beside_the_computing_threads_and_goes() {
        if !Crowd::is_possible() {
            return;
        }
        let count = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        let computing = system::allowed_cores().unwrap();
        let crowd = Crowd::gather(computing).unwrap();
        let sum = tch::Tensor::ones([300, 300], (tch::Kind::Float, tch::Device::Cpu)).sum(tch::Kind::Float);
        assert_eq!(sum.double_value(&[]), 90000.0);
        assert!(count() >= 3);
        drop(crowd);
        assert!(Crowd::gather(computing + 1).is_some(), "another after it");
        assert!(Crowd::gather(0).is_some() == (computing + 2 <= LARGEST));
    }
}
