//! What a person sees when something goes wrong: one line, whatever it was.

use std::io::Write;
use std::panic::PanicHookInfo;

/// Turns every panic into one line without a backtrace; the program then ends with code 101.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| say(&describe(panic))));
}

/// Prints `lnfree: MESSAGE` on stderr as one line; nothing happens where stderr is closed.
pub fn say(message: &str) {
    let line = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    let _ = writeln!(std::io::stderr(), "lnfree: {line}");
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("unknown cause");
    if let Some(reason) = text.strip_prefix("failed printing to stdout: ") {
        return format!("cannot write to standard output: {reason}");
    }
    // libtorch's messages go on with its C++ stack.
    let text = text.split("Exception raised from").next().unwrap_or(text);
    let memory = ["out of memory", "can't allocate memory", "not enough memory"];
    if memory.iter().any(|words| text.contains(words)) {
        return format!(
            "out of memory: {}; a smaller batch, or train.gradient_checkpointing = true, needs less",
            first_line(text)
        );
    }
    let place = panic.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    format!("internal error: {}{place}; please report this with the command that led to it", first_line(text))
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("unknown cause")
}
