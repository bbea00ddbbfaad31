//! A library that makes calls of a program fail, or kills it at one of them (see faults.c).
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The compiled library; `None`, with a word on stdout, where there is no C compiler or nothing can be
/// preloaded.
pub fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARY.get_or_init(compile).as_deref()
}

fn compile() -> Option<PathBuf> {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        println!("SKIPPED: nothing can be preloaded here");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/faults.c");
    // The loader takes spaces and colons for the ends of names.
    let can_be_preloaded = |folder: &PathBuf| !folder.to_string_lossy().contains([' ', ':']);
    let folders = [PathBuf::from(env!("CARGO_TARGET_TMPDIR")), std::env::temp_dir()];
    let Some(folder) = folders.into_iter().find(can_be_preloaded) else {
        println!("SKIPPED: nothing can be preloaded from folders with a space in their names");
        return None;
    };
    let out = folder.join(format!("faults-{}.so", std::process::id()));
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    let made = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&out, &source])
        .arg("-ldl")
        .status();
    match made {
        Ok(status) => {
            assert!(status.success(), "faults.c does not compile");
            Some(out)
        }
        Err(error) => {
            println!("SKIPPED: no C compiler: {error}");
            None
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The process is killed instead.
    Kill,
    /// It returns this error of the operating system, and so do all after it.
    Errno(i32),
}

/// Lets the `at`-th call that changes files below `folder`, and all after it, fail in `command`.
pub fn fail<'a>(command: &'a mut Command, folder: &Path, at: u64, fault: Fault) -> &'a mut Command {
    let library = library().expect("asked for before");
    command.env("LD_PRELOAD", library).env("FAULT_UNDER", folder).env("FAULT_AT", at.to_string());
    match fault {
        Fault::Kill => command,
        Fault::Errno(error) => command.env("FAULT_ERRNO", error.to_string()),
    }
}

/// Lets no file be locked in `command`.
pub fn without_locks(command: &mut Command, error: i32) -> &mut Command {
    command.env("LD_PRELOAD", library().expect("asked for before")).env("FAULT_FLOCK", error.to_string())
}

/// Lets the clocks of `command` jump and stand still.
pub fn with_wrong_clocks(command: &mut Command) -> &mut Command {
    command.env("LD_PRELOAD", library().expect("asked for before")).env("FAULT_CLOCK", "1")
}
