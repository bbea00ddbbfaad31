//! What was found out about this machine, kept for the next run: `~/.cache/lnfree`.

use std::io::Write;
use std::path::Path;

/// Writes a whole file, which another process may be writing too. A home that cannot be written costs time in
/// every run, nothing else.
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
