//! Ctrl-C and SIGTERM: the first asks the run to finish its step and save, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Installs the handlers; call once, before training.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn install() -> Result<()> {
    let second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let error = |e: std::io::Error| Error::invalid(format!("cannot handle signal {signal}: {e}"));
        // Order matters: on the first signal the flag is still unset when this handler looks at it.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&second))
            .map_err(error)?;
        signal_hook::flag::register(signal, Arc::clone(&second)).map_err(error)?;
        // SAFETY: the handler only stores to atomics, which is async-signal-safe.
        unsafe {
            signal_hook::low_level::register(signal, move || {
                SIGNAL.store(signal, Ordering::SeqCst);
                REQUESTED.store(true, Ordering::SeqCst);
            })
        }
        .map_err(error)?;
    }
    Ok(())
}

/// Whether a signal, or [`request`], has asked the run to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Asks the current run to stop after its step.
pub fn request() {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// Forgets an earlier request, so that a new run can start in the same process.
pub fn clear() {
    REQUESTED.store(false, Ordering::SeqCst);
}

/// The exit code for an interrupted run: 128 + the signal.
pub fn exit_code() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 130,
        signal => (128 + signal).clamp(1, 255) as u8,
    }
}
