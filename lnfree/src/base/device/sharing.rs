//! Sharing the cores with other programs.
//!
//! Threads of libgomp, on which libtorch computes, wait for each other by spinning: on a core of one's own
//! that is the fastest way, but where another program wants the core, the thread that is waited for does not
//! get it. libgomp spins a thousandth as long once it has more threads than there are cores (libgomp's
//! `gomp_managed_threads` and `gomp_available_cpus`), and asks that at every wait. So while the process's
//! threads have to wait for cores, a second team of threads sleeps; when they no longer have to, it goes.
//! Other OpenMP libraries (Macs have LLVM's) are left as they are.

mod crowd;

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tch::Device;

use super::{system, threads};
use crowd::Crowd;

/// Time between looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// Share of their time for which threads wait for cores, from which on they are crowded. Alone on a machine
/// it is below 0.01.
const CROWDED: f64 = 0.05;
/// Share below which they no longer are.
const QUIET: f64 = 0.02;
/// Looks in a row that have to be quiet.
const QUIET_LOOKS: u32 = 15;
/// Where users say how libgomp waits.
const SETTINGS: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];

/// While it lives, libtorch's threads give way where other programs want their cores.
#[derive(Debug, Clone)]
pub struct CoreSharing {
    _watch: Arc<Watch>,
}

/// Begins to look whether others want the cores, while work on `device` goes on; None where there is nothing
/// to do: on a GPU, with one thread, where the user has said how libgomp waits, or where the system does not
/// tell.
pub fn share_cores(device: Device) -> Option<CoreSharing> {
    static WATCH: Mutex<Weak<Watch>> = Mutex::new(Weak::new());
    let settled = SETTINGS.iter().any(|name| std::env::var_os(name).is_some());
    if device != Device::Cpu || settled || threads() < 2 || !Crowd::is_possible() {
        return None;
    }
    system::waited_for_cores()?;
    let mut watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = watch.upgrade().or_else(|| Watch::begin().map(Arc::new))?;
    *watch = Arc::downgrade(&shared);
    Some(CoreSharing { _watch: shared })
}

/// The thread that looks.
#[derive(Debug)]
struct Watch {
    stop: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn begin() -> Option<Watch> {
        let stop = Arc::new(Signal::default());
        let seen = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("core sharing".into()).spawn(move || watch(&seen)).ok()?;
        Some(Watch { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.give();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(stop: &Signal) {
    let mut judge = Judge::default();
    let mut crowd = None;
    let (mut before, mut at) = (system::waited_for_cores(), Instant::now());
    while !stop.wait(INTERVAL) {
        let (now, moment) = (system::waited_for_cores(), Instant::now());
        // Threads that have ended take what they waited for with them.
        let waited = now.zip(before).map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
        let share = waited.as_secs_f64() / moment.duration_since(at).as_secs_f64() / threads() as f64;
        (before, at) = (now, moment);
        if !judge.crowded(share) {
            crowd = None;
        } else if crowd.is_none() {
            crowd = Crowd::gather(threads());
        }
    }
}

/// Whether threads are crowded, by shares of their time.
#[derive(Debug, Default)]
struct Judge {
    crowded: bool,
    quiet_looks: u32,
}

impl Judge {
    fn crowded(&mut self, share: f64) -> bool {
        self.quiet_looks = if share < QUIET { self.quiet_looks + 1 } else { 0 };
        self.crowded = share > CROWDED || (self.crowded && self.quiet_looks < QUIET_LOOKS);
        self.crowded
    }
}

/// Given once, and waited for.
#[derive(Debug, Default)]
pub(super) struct Signal {
    given: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(super) fn give(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it is given, at the latest after `time`.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let (given, _) = self
            .changed
            .wait_timeout_while(given, time, |given| !*given)
            .unwrap_or_else(PoisonError::into_inner);
        *given
    }

    /// Returns once it is given.
    pub(super) fn wait_long(&self) {
        while !self.wait(Duration::from_secs(3600)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_believed_at_once_and_quiet_after_a_while() {
        let mut judge = Judge::default();
        assert!(!judge.crowded(0.0) && !judge.crowded(0.04));
        assert!(judge.crowded(0.3));
        for _ in 0..QUIET_LOOKS - 1 {
            assert!(judge.crowded(0.0));
        }
        // In between it begins anew.
        assert!(judge.crowded(0.03));
        for _ in 0..QUIET_LOOKS - 1 {
            assert!(judge.crowded(0.01));
        }
        assert!(!judge.crowded(0.0) && !judge.crowded(0.04));
    }

    #[test]
    fn guards_share_a_thread_that_ends_with_the_last() {
        let Some(first) = share_cores(Device::Cpu) else { return };
        let stop = Arc::downgrade(&first._watch.stop);
        let second = share_cores(Device::Cpu).unwrap();
        assert!(Arc::ptr_eq(&first._watch, &second._watch));
        drop(first);
        assert!(stop.upgrade().is_some());
        drop(second);
        assert!(stop.upgrade().is_none());
        assert!(share_cores(Device::Cuda(0)).is_none());
    }
}
