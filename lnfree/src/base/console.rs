//! Where progress is told: on stderr for commands, on stdout in notebooks, which show stderr as an error.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

static SILENT: AtomicBool = AtomicBool::new(false);

/// Whether a cell of an evcxr notebook is running this.
pub fn in_notebook() -> bool {
    std::env::var_os("EVCXR_IS_RUNTIME").is_some()
}

/// Lets this process tell nothing of its progress from here on: it is one of several ranks, of which the
/// first tells. Errors are told all the same.
pub fn be_silent() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Whether [`be_silent`] was called.
pub fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Tells a line; work goes on when nobody listens any more.
pub(crate) fn say(line: &str) {
    if is_silent() {
        return;
    }
    let _ = match in_notebook() {
        true => writeln!(std::io::stdout(), "{line}"),
        false => writeln!(std::io::stderr(), "{line}"),
    };
}

/// [`say`] for what is not as it should be and is gone on with: each line once in a process, however often a
/// file is read.
pub(crate) fn warn_once(line: &str) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(line.to_string()) {
        say(&format!("warning: {line}"));
    }
}
