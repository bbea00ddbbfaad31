//! Files and folders that are either the old ones or the new ones, never something in between.
//!
//! New content is written beside its place under a name of its own, forced to the disk, and renamed: whoever
//! reads the place sees the old content or the new, even after a power cut. Leftovers of a killed process
//! carry a recognisable name and are found by [`remove_leftovers`].

mod checksums;
mod target;

pub use checksums::{CHECKSUMS, sha256_file, verify_checksums, write_checksums};
pub(crate) use checksums::{digest_file, has_listed_files};
pub(crate) use target::{Target, target};

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::base::console::say;
use crate::{Error, Result};

/// How the names of unfinished files and folders begin and end.
const PREFIX: &str = ".lnfree-";
const SUFFIX: &str = ".tmp";

/// Writes the file `path` through `write`, all or nothing.
///
/// What `write` puts into the (buffered) file appears under `path` only when it is complete and on the disk;
/// on any error, of `write` or of the system, the file that was at `path` stays as it was and nothing else is
/// left behind. A link at `path` is followed. A device or a pipe (`/dev/stdout`) is written to as it is.
///
/// # Errors
/// Whatever `write` returns; [`Error::Io`] or [`Error::File`] naming `path` when the folder is missing or not
/// writable, the disk is full, or `path` is a link to nothing.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    match target(path).map_err(|why| Error::file(path, why))? {
        Target::Stream => return write_stream(path, write),
        Target::Folder => return Err(Error::file(path, "is a folder; name a file")),
        Target::File | Target::Nothing => {}
    }
    let (path, parent, name) = place(path)?;
    let temporary = temporary(&name, 0o666, |b| b.tempfile_in(&parent));
    let temporary = temporary.map_err(|e| cannot_write(&path, e))?;
    lock(temporary.as_file());
    let mut buffered = BufWriter::new(temporary.as_file());
    write(&mut buffered).map_err(|e| name_full_disk(&path, e))?;
    let synced = buffered.flush().and_then(|()| temporary.as_file().sync_all());
    // Nothing may be left for the buffer's drop to write again after a failure.
    drop(buffered.into_parts());
    synced.map_err(|e| cannot_write(&path, e))?;
    temporary.persist(&path).map_err(|e| cannot_write(&path, e.error))?;
    sync_folder(&parent)
}

/// Writes to what cannot be replaced by another file.
fn write_stream(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let file = target::open_stream(path).map_err(|e| cannot_write(path, e))?;
    let mut buffered = BufWriter::new(&file);
    let written = write(&mut buffered).map_err(|e| name_full_disk(path, e));
    let flushed = written.and_then(|()| buffered.flush().map_err(|e| cannot_write(path, e)));
    drop(buffered.into_parts());
    flushed
}

/// Writes the folder `dir` through `fill`, all or nothing.
///
/// `fill` gets an empty folder beside `dir`. When it returns, every file in it is forced to the disk and the
/// folder takes the name `dir`; an older folder of that name is swapped out in the same instant (on file
/// systems that can swap; else between two renames) and deleted afterwards. On any error the old folder stays
/// as it was.
///
/// # Errors
/// Whatever `fill` returns; [`Error::Io`] or [`Error::File`] naming `dir` when the folder above it is missing
/// or not writable, when `dir` is a file, or when the disk is full.
pub fn write_dir_atomic(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (dir, parent, name) = place(dir)?;
    let replaces = dir.exists();
    if replaces && !dir.is_dir() {
        return Err(Error::file(&dir, "is a file where a folder has to be written; move it away"));
    }
    let temporary = temporary(&name, 0o777, |b| b.tempdir_in(&parent));
    let temporary = temporary.map_err(|e| cannot_write(&dir, e))?;
    let handle = File::open(temporary.path()).map_err(Error::io(&dir))?;
    lock(&handle);
    fill(temporary.path()).map_err(|e| name_full_disk(&dir, in_place(e, temporary.path(), &dir)))?;
    sync_tree(temporary.path()).map_err(|e| cannot_write(&dir, e))?;
    if replaces {
        swap(temporary.path(), &dir).map_err(|e| cannot_write(&dir, e))?;
        sync_folder(&parent)?;
        // The old folder now has the temporary name, and goes when `temporary` is dropped.
        return Ok(());
    }
    fs::rename(temporary.path(), &dir).map_err(|e| cannot_write(&dir, e))?;
    let _ = temporary.keep();
    sync_folder(&parent)
}

/// Deletes the folder `dir`. It loses its name first: killed at any moment, nothing half is left under it,
/// and what is left is found by [`remove_leftovers`].
///
/// # Errors
/// [`Error::File`] naming `dir` when it is not there or cannot be deleted.
pub fn remove_dir_atomic(dir: &Path) -> Result<()> {
    let cannot = |e: io::Error| Error::file(dir, format!("cannot be deleted: {e}"));
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A new name takes no space: on a full disk this is what makes some.
    let renamed = temporary(&name, 0o777, |b| b.make_in(parent, |aside| fs::rename(dir, aside)));
    let aside = renamed.and_then(|t| t.into_temp_path().keep().map_err(|e| e.error)).map_err(cannot)?;
    sync_folder(parent)?;
    let gone = if aside.is_symlink() { fs::remove_file(&aside) } else { fs::remove_dir_all(&aside) };
    gone.map_err(cannot)
}

/// Deletes what killed processes left unfinished in `folder`, and returns the names.
///
/// A living process holds a lock on what it is writing, so that its files are not touched; where the file
/// system has no locks, nothing is, and a line names what may be deleted by hand. Call it where this process
/// is about to write.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed or a leftover cannot be deleted.
pub fn remove_leftovers(folder: &Path) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) || !name.ends_with(SUFFIX) {
            continue;
        }
        let Ok(handle) = File::open(&path) else { continue };
        if !lock(&handle) {
            if io::Error::last_os_error().kind() != ErrorKind::WouldBlock {
                let path = path.display();
                say(&format!(
                    "{path}: unfinished, and no locks here tell of what process; delete it if none runs"
                ));
            }
            continue;
        }
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.map_err(Error::io(&path))?;
        removed.push(name);
    }
    removed.sort();
    Ok(removed)
}

/// The real path behind `path`, the folder it lies in, and its last component.
pub(crate) fn place(path: &Path) -> Result<(PathBuf, PathBuf, String)> {
    // Renaming onto a link would replace the link and leave what it points to.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = path.file_name().map(OsStr::to_string_lossy).map(|n| n.into_owned());
    let name = name.ok_or_else(|| Error::file(&path, "is not a name that can be written to"))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    if !parent.is_dir() {
        return Err(Error::file(&path, format!("there is no folder {} to write it in", parent.display())));
    }
    Ok((path, parent, name))
}

/// Makes a file or folder for unfinished content named after `name`; `mode` as for a plain `open` or `mkdir`,
/// from which the umask is taken.
pub(crate) fn temporary<T>(
    name: &str,
    mode: u32,
    make: impl FnOnce(&tempfile::Builder) -> io::Result<T>,
) -> io::Result<T> {
    // File names end at 255 bytes: a long one is cut, it only serves the reader of a leftover.
    let prefix = format!("{PREFIX}{}-", name.chars().take(40).collect::<String>());
    let mut builder = tempfile::Builder::new();
    make(builder.prefix(&prefix).suffix(SUFFIX).permissions(Permissions::from_mode(mode)))
}

/// Tries to take the lock that says "this is still being written"; it ends with the process. False if another
/// has it.
pub(crate) fn lock(file: &File) -> bool {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Exchanges the folders `new` and `old`, at once where the file system can.
fn swap(new: &Path, old: &Path) -> io::Result<()> {
    match exchange(new, old) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::ENOTSUP)) => {
            swap_by_renames(new, old)
        }
        done => done,
    }
}

/// The same in three steps, for file systems that know no exchange.
fn swap_by_renames(new: &Path, old: &Path) -> io::Result<()> {
    // A name that `remove_leftovers` leaves alone: killed between the renames, this is the last good copy.
    let aside = old.with_file_name(format!("{}.previous", old.file_name().unwrap_or_default().display()));
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(old, &aside)?;
    if let Err(error) = fs::rename(new, old) {
        fs::rename(&aside, old)?;
        return Err(error);
    }
    fs::rename(&aside, new)
}

/// renameat2(2) with RENAME_EXCHANGE.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let a = std::ffi::CString::new(a.as_os_str().as_bytes())?;
    let b = std::ffi::CString::new(b.as_os_str().as_bytes())?;
    // SAFETY: both are strings that end in a zero byte and outlive the call.
    let status = unsafe {
        libc::renameat2(libc::AT_FDCWD, a.as_ptr(), libc::AT_FDCWD, b.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Forces every file and folder under `folder`, and itself, to the disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Forces the names in `folder` to the disk.
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io(folder))
}

/// One line about `path` not having been written.
fn cannot_write(path: &Path, error: io::Error) -> Error {
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        let what =
            "no space left on the disk; what was there before is untouched; free some space and run again";
        return Error::file(path, what);
    }
    Error::file(path, format!("cannot be written: {error}"))
}

/// An error about a file in the folder `temporary`, as one about the file that it was to become.
fn in_place(mut error: Error, temporary: &Path, dir: &Path) -> Error {
    if let Error::Io { path, .. } | Error::File { path, .. } = &mut error
        && let Ok(name) = path.strip_prefix(temporary)
    {
        *path = dir.join(name);
    }
    error
}

/// Says of a full disk that it is full, naming `path` and not the temporary file.
fn name_full_disk(path: &Path, error: Error) -> Error {
    match error {
        Error::Io { source, .. }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
        {
            cannot_write(path, source)
        }
        other => other,
    }
}

/// [`write_atomic`] for a text.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes())
}

/// [`write_atomic`] for bytes.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |file| file.write_all(bytes).map_err(Error::io(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_renames_do_what_an_exchange_does() {
        let folder = tempfile::tempdir().unwrap();
        for (i, swap) in [exchange, swap_by_renames].into_iter().enumerate() {
            let (new, old) = (folder.path().join(format!("new{i}")), folder.path().join(format!("old{i}")));
            for (path, text) in [(&new, "new"), (&old, "old")] {
                fs::create_dir(path).unwrap();
                fs::write(path.join("x"), text).unwrap();
            }
            // A kill between earlier renames has left this.
            fs::create_dir(folder.path().join("old1.previous")).ok();
            swap(&new, &old).unwrap();
            assert_eq!(fs::read_to_string(old.join("x")).unwrap(), "new");
            assert_eq!(fs::read_to_string(new.join("x")).unwrap(), "old");
        }
        assert!(!folder.path().join("old1.previous").exists());
        // What cannot be swapped is left where it was.
        let (gone, old) = (folder.path().join("gone"), folder.path().join("old0"));
        assert!(swap_by_renames(&gone, &old).is_err());
        assert_eq!(fs::read_to_string(old.join("x")).unwrap(), "new");
    }
}
