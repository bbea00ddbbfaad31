//! Where progress is told: on stderr for commands, on stdout in notebooks, which show stderr as an error.

use std::io::Write;

/// Whether a cell of an evcxr notebook is running this.
pub fn in_notebook() -> bool {
    std::env::var_os("EVCXR_IS_RUNTIME").is_some()
}

/// Tells a line; work goes on when nobody listens any more.
pub(crate) fn say(line: &str) {
    let _ = match in_notebook() {
        true => writeln!(std::io::stdout(), "{line}"),
        false => writeln!(std::io::stderr(), "{line}"),
    };
}
