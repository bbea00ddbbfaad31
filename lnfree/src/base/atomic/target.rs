//! What is at a path that is to be written.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::FromRawFd;
use std::path::Path;

/// What a path names, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Nothing,
    File,
    Folder,
    /// A device, pipe or socket, or a descriptor of this process: a file renamed to it would take its place.
    Stream,
}

/// What is at `path`, or why that cannot be told; a link to nothing is an error, for a file renamed to it
/// would replace the link.
pub(crate) fn target(path: &Path) -> Result<Target, String> {
    if descriptor(path).is_some() {
        return Ok(Target::Stream);
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(Target::Folder),
        Ok(meta) if meta.is_file() => Ok(Target::File),
        Ok(_) => Ok(Target::Stream),
        // A file in the place of one of the folders, too.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            match fs::read_link(path) {
                Ok(to) => Err(format!("is a link to {}, which is not there", to.display())),
                Err(_) => Ok(Target::Nothing),
            }
        }
        Err(error) => Err(format!("cannot be written: {error}")),
    }
}

/// Opens a [`Target::Stream`] to be written to.
pub(super) fn open_stream(path: &Path) -> io::Result<File> {
    let Some(descriptor) = descriptor(path) else { return File::options().write(true).open(path) };
    // A copy shares the place in a file that `> FILE` opened: opened anew, it would be written from its start
    // again. SAFETY: the number need not be open, and the copy is this file's alone.
    match unsafe { libc::dup(descriptor) } {
        -1 => Err(io::Error::last_os_error()),
        copy => Ok(unsafe { File::from_raw_fd(copy) }),
    }
}

/// The descriptor of this process that a path stands for.
fn descriptor(path: &Path) -> Option<i32> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => ["/dev/fd/", "/proc/self/fd/"].iter().find_map(|of| path.strip_prefix(of)?.parse().ok()),
    }
}
