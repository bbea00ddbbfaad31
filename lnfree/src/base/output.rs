//! Results that may cost hours: whether they can be written is asked before the work, and what then cannot be
//! is put elsewhere.
//!
//! A folder that a command fills is made, with those above it. What appears whole, a file or an export, needs
//! the folder that it is to be in.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::atomic::{Target, place, target, temporary};
use crate::{Error, Result};

/// What a disk has to take before the work starts.
const PROBE: [u8; 4096] = [0; 4096];

/// Refuses the file `path` of the option `option` (`--json`) if it cannot be written: by a file made beside
/// it and taken away again.
///
/// # Errors
/// When its folder is missing, cannot be written, or has no space; when it is a folder, a link to nothing, or
/// may not be written itself.
pub fn check_file(option: &str, path: &Path) -> Result<()> {
    refused(option, path, check_file_at(path))
}

/// Refuses the folder `path` of the option `option` (`--out`) if it cannot be made or written into. It is not
/// made.
///
/// # Errors
/// As [`check_file`], of the folder or the first above it that is there.
pub fn check_folder(option: &str, path: &Path) -> Result<()> {
    refused(option, path, check_folder_at(path))
}

/// Refuses the folder `path` of the option `option` if it cannot be made beside its place and then take it,
/// as an export does.
///
/// # Errors
/// As [`check_file`], of the folder above it.
pub fn check_whole_folder(option: &str, path: &Path) -> Result<()> {
    refused(option, path, check_whole_folder_at(path))
}

/// Refuses outputs that are one file, or that would replace an input. Each with the option that names it.
///
/// # Errors
/// Names the two.
pub fn check_apart(outputs: &[(String, PathBuf)], inputs: &[(String, PathBuf)]) -> Result<()> {
    let real = |path: &Path| match place(path) {
        Ok((path, parent, name)) => parent.canonicalize().map_or(path, |parent| parent.join(name)),
        Err(_) => path.to_path_buf(),
    };
    // What goes through a device or a pipe replaces nothing.
    let replaced = |path: &Path| !matches!(target(path), Ok(Target::Stream));
    for (i, (option, path)) in outputs.iter().enumerate().filter(|(_, (_, path))| replaced(path)) {
        let others = outputs[..i].iter().chain(inputs);
        if let Some((other, _)) = others.into_iter().find(|(_, other)| real(other) == real(path)) {
            return Err(Error::invalid(format!(
                "{option} {}: is also what {other} names; it would be replaced: name another",
                path.display()
            )));
        }
    }
    Ok(())
}

/// What became of a result.
#[derive(Debug)]
pub enum Kept {
    /// It is where it was to go.
    Here,
    /// It is in another place, which the error names beside the reason.
    Elsewhere(Error),
    /// It could be written nowhere.
    Nowhere(Error),
}

impl Kept {
    /// An error unless it is where it was to go.
    ///
    /// # Errors
    /// Why it is not, and where it is.
    pub fn here(self) -> Result<()> {
        match self {
            Kept::Here => Ok(()),
            Kept::Elsewhere(error) | Kept::Nowhere(error) => Err(error),
        }
    }
}

/// Writes the file `path` through `write`; where that fails, a file of its name in a new folder under the
/// system's folder for temporary files, the working directory or the home directory, whichever takes it
/// first.
pub fn keep_file(path: &Path, write: impl Fn(&Path) -> Result<()>) -> Kept {
    let name = path.file_name().unwrap_or_else(|| "result".as_ref());
    keep(write(path), |folder| {
        let place = folder.join(name);
        write(&place).map(|()| place)
    })
}

/// Writes into the folder `path` through `write`; where that fails, into another folder, as [`keep_file`].
pub fn keep_folder(path: &Path, write: impl Fn(&Path) -> Result<()>) -> Kept {
    keep(write(path), |folder| write(folder).map(|()| folder.to_path_buf()))
}

fn keep(written: Result<()>, write_into: impl Fn(&Path) -> Result<PathBuf>) -> Kept {
    let Err(error) = written else { return Kept::Here };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let places = [Some(std::env::temp_dir()), std::env::current_dir().ok(), home];
    for place in places.into_iter().flatten() {
        let Ok(folder) = tempfile::Builder::new().prefix("lnfree-").tempdir_in(place) else { continue };
        if let Ok(path) = write_into(folder.path()) {
            let _ = folder.keep();
            let message = format!("{error}; what was computed is in {} instead", path.display());
            return Kept::Elsewhere(Error::Invalid(message));
        }
    }
    Kept::Nowhere(error)
}

fn refused(option: &str, path: &Path, why: Result<(), String>) -> Result<()> {
    why.map_err(|why| Error::invalid(format!("{option} {}: {why}", path.display())))
}

fn check_file_at(path: &Path) -> Result<(), String> {
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err("names a folder; name a file".into());
    }
    match target(path)? {
        Target::Stream => return check_stream(path),
        Target::Folder => return Err("is a folder; name a file".into()),
        Target::File => may_write(path)?,
        Target::Nothing => {}
    }
    let (_, parent, _) = place(path).map_err(|error| reason(path, &error))?;
    probe(&parent)
}

fn check_folder_at(path: &Path) -> Result<(), String> {
    match target(path)? {
        Target::Folder => return probe(path),
        Target::File | Target::Stream => {
            return Err("is a file where a folder has to be; name another".into());
        }
        Target::Nothing => {}
    }
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    for above in absolute.ancestors().skip(1) {
        match target(above)? {
            Target::Nothing => {}
            Target::Folder => return probe(above),
            _ => return Err(format!("{} is a file where a folder has to be", above.display())),
        }
    }
    Err("there is no folder above it".into())
}

fn check_whole_folder_at(path: &Path) -> Result<(), String> {
    if matches!(target(path)?, Target::File | Target::Stream) {
        return Err("is a file where a folder has to be; name another".into());
    }
    let (_, parent, _) = place(path).map_err(|error| reason(path, &error))?;
    probe(&parent)
}

/// A device or pipe takes no bytes where it is full, which `/dev/full` says even of none.
fn check_stream(path: &Path) -> Result<(), String> {
    may_write(path)?;
    let device = fs::metadata(path).is_ok_and(|meta| {
        use std::os::unix::fs::FileTypeExt;
        meta.file_type().is_char_device()
    });
    if !device {
        return Ok(());
    }
    let file = fs::File::options().write(true).open(path);
    // Straight to the system: the library writes nothing for no bytes.
    file.and_then(|file| {
        use std::os::fd::AsRawFd;
        // SAFETY: no byte is read from the pointer; the descriptor is open.
        match unsafe { libc::write(file.as_raw_fd(), PROBE.as_ptr().cast(), 0) } {
            0.. => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    })
    .map_err(|error| format!("cannot be written: {error}"))
}

/// Makes a file in `folder`, fills it a little, and takes it away.
fn probe(folder: &Path) -> Result<(), String> {
    let tried = temporary("probe", 0o600, |builder| builder.tempfile_in(folder)).and_then(|file| {
        let mut file = file;
        file.write_all(&PROBE)?;
        file.as_file().sync_data()
    });
    tried.map_err(|error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("no space left on the disk of {}; free some, or name another place", folder.display())
        }
        _ => format!("the folder {} cannot be written into: {error}", folder.display()),
    })
}

/// What permissions, or a disk that is read-only, say of a file.
fn may_write(path: &Path) -> Result<(), String> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: a string that ends in a zero byte and outlives the call.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK) } {
        0 => Ok(()),
        _ => Err(format!("may not be written: {}", std::io::Error::last_os_error())),
    }
}

/// What an error says beside the path.
fn reason(path: &Path, error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", path.display())).map_or(text.clone(), str::to_string)
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
