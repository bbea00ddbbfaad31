//! One process at a time writes into a run directory.

use std::fs::File;
use std::path::Path;

use crate::base::atomic;
use crate::base::console::say;
use crate::{Error, Result};

/// A run directory is this process's until the value is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct RunLock(#[allow(dead_code)] File);

/// Takes the run directory `dir`, made if need be.
///
/// # Errors
/// When another process is writing into it, or it cannot be made.
pub fn lock_run(dir: &Path) -> Result<RunLock> {
    if dir.exists() && !dir.is_dir() {
        return Err(Error::file(dir, "is a file where a run directory has to be made; choose another --out"));
    }
    std::fs::create_dir_all(dir)
        .map_err(|e| Error::file(dir, format!("the run directory cannot be made: {e}")))?;
    let handle = File::open(dir).map_err(Error::io(dir))?;
    if atomic::lock(&handle) {
        return Ok(RunLock(handle));
    }
    let error = std::io::Error::last_os_error();
    if error.kind() == std::io::ErrorKind::WouldBlock {
        return Err(Error::file(
            dir,
            "another process is running in this directory; wait for it, or choose another --out",
        ));
    }
    // Some network file systems lock no folders: better unlocked than not at all.
    let dir = dir.display();
    say(&format!("{dir}: cannot be locked here ({error}): let one process at a time run in it"));
    Ok(RunLock(handle))
}
