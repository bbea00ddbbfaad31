//! Ctrl-C, SIGTERM, Slurm's warning (SIGUSR1) and Jupyter's stop button: the first asks the work to stop
//! where nothing is lost, the second ends the program at once.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::base::console::in_notebook;
use crate::{Error, Result};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
/// How many [`Listening`] there are, one inside the other.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// What a notebook says when its stop button is pressed: the cell may go on for seconds.
const NOTICE: &str = "stopping after the step in progress; interrupting once more ends it at once, and all variables with it\n";

/// Installs the handlers, once however often it is called.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn install() -> Result<()> {
    INSTALLED
        .get_or_init(|| [SIGINT, SIGTERM, SIGUSR1].into_iter().try_for_each(handle))
        .clone()
        .map_err(Error::invalid)
}

fn handle(signal: i32) -> Result<(), String> {
    let error = |e: std::io::Error| format!("cannot handle signal {signal}: {e}");
    let notice = if in_notebook() { NOTICE } else { "" };
    let requested = Arc::clone(&REQUESTED);
    // Order matters: on the first signal the flag is still unset when this handler looks at it.
    signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&REQUESTED))
        .map_err(error)?;
    // SAFETY: the handler stores to atomics and calls write(2), both async-signal-safe.
    unsafe {
        signal_hook::low_level::register(signal, move || {
            SIGNAL.store(signal, Ordering::SeqCst);
            requested.store(true, Ordering::SeqCst);
            if !notice.is_empty() {
                libc::write(libc::STDOUT_FILENO, notice.as_ptr().cast(), notice.len());
            }
        })
    }
    .map_err(error)?;
    on_signal_stack(signal).map_err(error)
}

/// Lets the handler of `signal` run on the stack that Rust gives its threads for signals. While oneDNN
/// multiplies float32 matrices its stack pointer may lie in the heap, and what a handler then puts below it
/// overwrites other memory (<https://github.com/uxlfoundation/oneDNN/issues/4845>): Ctrl-C then ended some
/// runs at once instead of saving them.
fn on_signal_stack(signal: i32) -> std::io::Result<()> {
    let done = |code: i32| if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: what is there is read and put back with one flag more.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        done(libc::sigaction(signal, std::ptr::null(), &mut action))?;
        action.sa_flags |= libc::SA_ONSTACK;
        done(libc::sigaction(signal, &action, std::ptr::null_mut()))
    }
}

/// Whether a signal, or [`request`], has asked the work to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Asks the work in progress to stop after its step.
pub fn request() {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// Forgets an earlier request, so that new work can begin in the same process.
pub fn clear() {
    REQUESTED.store(false, Ordering::SeqCst);
}

/// The exit code of interrupted work: 128 + the signal.
pub fn exit_code() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 130,
        signal => (128 + signal).clamp(1, 255) as u8,
    }
}

/// Long work in a notebook: while this lives, the stop button asks for an end. Elsewhere it does nothing, and
/// the default of the operating system, or what [`install`] has set up, stays.
pub(crate) struct Listening {
    /// How many there were before this one; `None` where nothing is listened to.
    depth: Option<usize>,
}

/// Begins long work. The outermost one forgets what an earlier cell was asked.
pub(crate) fn listen() -> Listening {
    // Without a handler Jupyter's interrupt is ignored, which is no reason not to work.
    let depth = (in_notebook() && install().is_ok()).then(|| DEPTH.fetch_add(1, Ordering::SeqCst));
    if depth == Some(0) {
        clear();
    }
    Listening { depth }
}

impl Listening {
    /// Fails when the work was asked to stop; what goes on inside other work leaves that to it.
    pub(crate) fn check(&self) -> Result<()> {
        if self.depth == Some(0) && requested() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.depth.is_some() {
            DEPTH.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_do_not_run_where_the_work_has_its_stack() {
        install().unwrap();
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            // SAFETY: both calls only read.
            let (flags, stack) = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                assert_eq!(libc::sigaction(signal, std::ptr::null(), &mut action), 0);
                let mut stack: libc::stack_t = std::mem::zeroed();
                assert_eq!(libc::sigaltstack(std::ptr::null(), &mut stack), 0);
                (action.sa_flags, stack)
            };
            assert_ne!(flags & libc::SA_ONSTACK, 0);
            // Rust gives one to every thread it starts.
            assert_eq!(stack.ss_flags & libc::SS_DISABLE, 0);
        }
    }
}
