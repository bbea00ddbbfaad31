//! The search: libFuzzer on one target. `scripts/fuzz.sh` builds it with coverage and calls it.

use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::process::{ExitCode, abort};
use std::sync::OnceLock;

// For the engine that it brings.
use libfuzzer_sys as _;
use lnfree_fuzz::{Scratch, TARGETS, Target, target};

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        one: extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

/// libfuzzer-sys asks for one; the driver is given [`one`].
#[unsafe(no_mangle)]
#[allow(improper_ctypes_definitions)] // both sides are Rust
extern "C" fn rust_fuzzer_test_input(_: &[u8]) -> c_int {
    0
}

static TARGET: OnceLock<&'static Target> = OnceLock::new();
static SCRATCH: OnceLock<Scratch> = OnceLock::new();

extern "C" fn one(data: *const u8, length: usize) -> c_int {
    let (Some(target), Some(scratch)) = (TARGET.get(), SCRATCH.get()) else { abort() };
    // SAFETY: libFuzzer's contract; an empty input may come without an address.
    let input = if length == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(data, length) } };
    if let Err(fault) = target.check(scratch, input) {
        eprintln!("\n{}: {fault}", target.name);
        abort();
    }
    0
}

/// `fuzz TARGET CORPUS [LIBFUZZER'S FLAGS]`, where the corpus is a folder to search from or one input to look
/// at; nothing for the names of all targets.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, corpus, flags @ ..] = arguments.as_slice() else {
        TARGETS.iter().copied().flatten().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    };
    let Some(found) = target(name) else {
        eprintln!("{name}: no such target");
        return ExitCode::from(2);
    };
    let Ok(scratch) = Scratch::new() else { return ExitCode::from(74) };
    let dictionary = scratch.write("dictionary", dictionary(found));
    let mut line = vec![
        arguments[0].clone(),
        format!("-dict={}", dictionary.display()),
        // One input is stopped by the clock on the wall only if it hangs for good: the processor's time is
        // measured.
        "-timeout=120".into(),
        "-rss_limit_mb=4096".into(),
        "-max_len=4096".into(),
        "-print_final_stats=1".into(),
    ];
    line.extend_from_slice(flags);
    line.push(corpus.clone());
    if Path::new(corpus).is_dir() {
        line.push(found.seeds().display().to_string());
    }
    let _ = (TARGET.set(found), SCRATCH.set(scratch));
    drive(line)
}

fn drive(line: Vec<String>) -> ExitCode {
    let line: Vec<CString> = line.into_iter().filter_map(|argument| CString::new(argument).ok()).collect();
    let mut pointers: Vec<*mut c_char> = line.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let (mut count, mut first) = (line.len() as c_int, pointers.as_mut_ptr());
    // SAFETY: as many strings as are counted, which live until it returns.
    match unsafe { LLVMFuzzerRunDriver(&mut count, &mut first, one) } {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The target's words in the form of libFuzzer's dictionaries.
fn dictionary(target: &Target) -> String {
    let escaped = |word: &str| word.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    target.words.iter().map(|word| format!("\"{}\"\n", escaped(word))).collect()
}
