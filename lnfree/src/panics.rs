//! What a person sees when something goes wrong: one line, whatever it was.

use std::io::Write;
use std::panic::PanicHookInfo;

use lnfree::{is_lack_of_memory, panic_text};

/// Turns every panic into one line without a backtrace; the program then ends with code 101.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| say(&describe(panic))));
}

/// Prints `lnfree: MESSAGE` on stderr as one line; nothing happens where stderr is closed.
pub fn say(message: &str) {
    let line = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    // In one piece: other ranks may speak at the same moment.
    let _ = std::io::stderr().write_all(format!("lnfree: {line}\n").as_bytes());
}

/// Prints a line on stderr; nothing happens where stderr is closed.
pub fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let text = panic_text(panic.payload());
    if let Some(reason) = text.strip_prefix("failed printing to stdout: ") {
        return format!("cannot write to standard output: {reason}");
    }
    let text = cause(&text);
    if is_lack_of_memory(text) {
        return format!("{text}; a smaller batch, or train.gradient_checkpointing = true, needs less memory");
    }
    let place = panic.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    format!("internal error: {text}{place}; please report this with the command that led to it")
}

/// The message itself: libtorch's comes wrapped in an unwrapped `Result`, with its newlines escaped and its
/// stack after it.
fn cause(text: &str) -> &str {
    let text = text.split_once("Torch(\"").map_or(text, |(_, message)| message);
    let end = ["\\n", "\n", "Exception raised from", "\")"].iter().filter_map(|mark| text.find(mark)).min();
    match text[..end.unwrap_or(text.len())].trim() {
        "" => "unknown cause",
        message => message,
    }
}

#[cfg(test)]
mod tests {
    use super::cause;

    #[test]
    fn libtorch_is_cut_to_its_message() {
        let text = r#"called `Result::unwrap()` on an `Err` value: Torch("index out of range in self\nframe #0: x")"#;
        assert_eq!(cause(text), "index out of range in self");
        assert_eq!(cause("called `Result::unwrap()` on an `Err` value: Torch(\"no\")"), "no");
        assert_eq!(cause("attempt to divide by zero"), "attempt to divide by zero");
        assert_eq!(cause("two\nlines"), "two");
        assert_eq!(cause(""), "unknown cause");
    }
}
