//! Where lnfree keeps things, and where it comes from.

use std::path::{Path, PathBuf};

/// The folder of what is found out or made once, `$XDG_CACHE_HOME/lnfree` or `~/.cache/lnfree`. It need not
/// be there; None where the environment names no home.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("lnfree"))
}

/// lnfree's repository: the one around the current folder, else the one that this crate was built in, where
/// that is still there.
pub(crate) fn repository() -> Option<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(""));
    let is_ours = |folder: &Path| {
        folder.join("data/nano/tokenizer.json").is_file() && folder.join("lnfree/Cargo.toml").is_file()
    };
    here.ancestors().chain([built]).find(|folder| is_ours(folder)).map(Path::to_path_buf)
}
