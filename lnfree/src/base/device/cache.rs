//! What was found out about this machine, kept for the next run: `~/.cache/lnfree`.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder, which need not be there; None where the environment names no home.
pub(super) fn folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("lnfree"))
}

/// Writes a whole file, which another process may be writing too. A home that cannot be written costs time in every run, nothing else.
pub(super) fn keep(path: &Path, bytes: &[u8]) {
    let Some(folder) = path.parent() else { return };
    if std::fs::create_dir_all(folder).is_err() {
        return;
    }
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(bytes)?;
        Ok(file)
    });
    if let Ok(file) = written {
        let _ = file.persist(path);
    }
}
