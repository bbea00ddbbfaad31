//! The cache that Python's huggingface_hub keeps too: `models--ORG--NAME/{blobs,snapshots,refs,.no_exist}`,
//! the same for `datasets--ORG--NAME`, and `.locks`.
//!
//! A blob carries the name of its content and is whole: it is renamed to that name after it was checked. A
//! snapshot is a folder of links into the blobs, named after the commit; a ref says which commit a branch
//! stood for.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Once;

use hf_hub::{Cache, CacheRepo, Repo};

use crate::base::atomic::write_text;
use crate::base::console::say;
use crate::hub::names::RepoKind;
use crate::{Error, Result};

/// The files with weights, best first; the order in which a folder's are read.
pub(super) const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
/// The files of a tokenizer; any may be missing.
pub(super) use crate::config::tokenizer_files::TOKENIZER_FILES as TOKENIZER;
/// The file without which there is no model.
pub(super) const CONFIG: &str = "config.json";
/// More than any index needs.
const MAX_INDEX: u64 = 16 << 20;

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Model,
    Tokenizer,
}

/// How much of it a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Has {
    /// Too little to work with.
    Part,
    /// Config and weights, and no word about the tokenizer.
    Enough,
    /// All that there is.
    All,
}

/// One repository's folder in the cache.
pub(super) struct RepoCache {
    root: PathBuf,
    folder: String,
    revision: String,
    repo: CacheRepo,
}

impl RepoCache {
    pub(super) fn new(root: &Path, kind: RepoKind, id: &str, revision: &str) -> RepoCache {
        let repo = Repo::with_revision(id.into(), kind.repo_type(), revision.into());
        RepoCache {
            root: root.into(),
            folder: repo.folder_name(),
            revision: revision.into(),
            repo: Cache::new(root.into()).repo(repo),
        }
    }

    /// The snapshot that the revision stood for when it was last asked for, and how much it has.
    pub(super) fn find(&self, want: Want) -> Option<(PathBuf, Has)> {
        let commit = self.commit()?;
        let snapshot = self.snapshot(&commit);
        let has = self.has(&snapshot, &commit, want);
        Some((snapshot, has))
    }

    /// The commit that the revision stood for when it was last asked for, if it has a snapshot.
    pub(super) fn commit(&self) -> Option<String> {
        let noted = fs::read_to_string(self.ref_path()).ok();
        let commit = noted.as_deref().unwrap_or(&self.revision).trim();
        let plain = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric());
        (plain && self.snapshot(commit).is_dir()).then(|| commit.to_string())
    }

    /// The files that the snapshot of `commit` has, those in folders of it too, sorted.
    pub(super) fn files(&self, commit: &str) -> Vec<String> {
        let root = self.snapshot(commit);
        let (mut folders, mut files) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    files.extend(path.strip_prefix(&root).ok().and_then(|p| p.to_str()).map(String::from));
                }
            }
        }
        files.sort();
        files
    }

    fn has(&self, snapshot: &Path, commit: &str, want: Want) -> Has {
        let there = |name: &str| snapshot.join(name).is_file();
        let tokenizer = there("tokenizer.json") || (there("vocab.json") && there("merges.txt"));
        if want == Want::Tokenizer {
            return if tokenizer { Has::All } else { Has::Part };
        }
        if !there(CONFIG) || !has_weights(snapshot) {
            return Has::Part;
        }
        let none = ["tokenizer.json", "vocab.json"].iter().all(|name| self.absent(commit, name).is_file());
        if tokenizer || none { Has::All } else { Has::Enough }
    }

    /// The folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// The place of a content.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repo.blob_path(etag)
    }

    /// The place of a content that is not whole yet; huggingface_hub continues it too.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.repo.blob_path(&format!("{etag}.incomplete"))
    }

    /// Makes the folders that blobs and a snapshot need.
    pub(super) fn create(&self, commit: &str) -> Result<()> {
        for folder in [self.snapshot(commit), self.root.join(&self.folder).join("blobs"), self.locks()] {
            fs::create_dir_all(&folder).map_err(|e| not_writable(&folder, e))?;
        }
        Ok(())
    }

    /// Links `name` in the snapshot of `commit` to a blob.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        let folder = path.parent().unwrap_or(&path);
        let up = "../".repeat(Path::new(name).components().count());
        let target = PathBuf::from(format!("{up}../blobs")).join(etag);
        fs::create_dir_all(folder).map_err(|e| not_writable(folder, e))?;
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(());
        }
        // Made beside and renamed: a reader sees the old link or the new one.
        let beside = tempfile::Builder::new().prefix(".lnfree-").suffix(".tmp").make_in(folder, |beside| {
            match std::os::unix::fs::symlink(&target, beside) {
                // A file system without links, such as FAT.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOTSUP | libc::ENOSYS)) => {
                    fs::copy(self.blob(etag), beside).map(|_| ())
                }
                made => made,
            }
        });
        let beside = beside.map_err(|e| not_writable(&path, e))?.into_temp_path();
        beside.persist(&path).map_err(|e| not_writable(&path, e.error))
    }

    /// Notes that the commit has no file of this name, so that nobody asks again.
    pub(super) fn note_absent(&self, commit: &str, name: &str) -> Result<()> {
        let path = self.absent(commit, name);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(|e| not_writable(folder, e))?;
        File::create(&path).map(|_| ()).map_err(|e| not_writable(&path, e))
    }

    /// Notes which commit the revision stands for.
    pub(super) fn note_ref(&self, commit: &str) -> Result<()> {
        let path = self.ref_path();
        if self.revision == commit || fs::read_to_string(&path).is_ok_and(|there| there == commit) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(|e| not_writable(folder, e))?;
        write_text(&path, commit)
    }

    /// Waits for its turn to download a content, and calls `waiting` if that is not at once. The turn ends
    /// with the file's drop, or the process; the lock is the one that huggingface_hub takes. Where the file
    /// system has no locks, a line says so once, and it goes on: what is downloaded is checked before it
    /// takes its name.
    pub(super) fn lock(&self, etag: &str, waiting: impl FnOnce()) -> Result<File> {
        let path = self.locks().join(format!("{etag}.lock"));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| not_writable(&path, e))?;
        // SAFETY: the descriptor is open for as long as `file` lives.
        let flock = |how| match unsafe { libc::flock(file.as_raw_fd(), how) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        let mut taken = flock(libc::LOCK_EX | libc::LOCK_NB);
        if taken.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
            waiting();
            taken = flock(libc::LOCK_EX);
            while taken.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Interrupted) {
                taken = flock(libc::LOCK_EX);
            }
        }
        if let Err(error) = taken {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                let folder = self.root.display();
                say(&format!(
                    "{folder}: files cannot be locked here ({error}): download with one process at a time"
                ));
            });
        }
        Ok(file)
    }

    fn locks(&self) -> PathBuf {
        self.root.join(".locks").join(&self.folder)
    }

    fn ref_path(&self) -> PathBuf {
        self.root.join(&self.folder).join("refs").join(&self.revision)
    }

    fn absent(&self, commit: &str, name: &str) -> PathBuf {
        self.root.join(&self.folder).join(".no_exist").join(commit).join(name)
    }
}

/// Whether the weights that would be read from a folder are all there.
fn has_weights(snapshot: &Path) -> bool {
    let Some(name) = WEIGHTS.iter().find(|name| snapshot.join(name).exists()) else { return false };
    if !name.ends_with(".index.json") {
        return true;
    }
    shards(&snapshot.join(name)).is_ok_and(|shards| shards.iter().all(|shard| snapshot.join(shard).is_file()))
}

/// The names of the files that an index lists.
///
/// # Errors
/// If it is no index, or names anything but files beside it.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    let size = fs::metadata(index).map_err(|e| e.to_string())?.len();
    if size > MAX_INDEX {
        return Err("is too large for an index of shards".into());
    }
    let text = fs::read(index).map_err(|e| e.to_string())?;
    let value: serde_json::Value =
        crate::base::json::from_slice(&text).map_err(|e| format!("is not an index of shards: {e}"))?;
    let map = value.get("weight_map").and_then(|m| m.as_object()).filter(|m| !m.is_empty());
    let map = map.ok_or("is not an index of shards: it has no weight_map")?;
    map.values()
        .map(|shard| {
            let name = shard.as_str().unwrap_or_default();
            let mut parts = Path::new(name).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
                && !name.contains(|c: char| c.is_control() || "/\\?#%".contains(c))
                && (name.ends_with(".safetensors") || name.ends_with(".bin"));
            plain.then(|| name.to_string()).ok_or_else(|| {
                format!("names a shard `{}`, which is no file of weights beside it", name.escape_debug())
            })
        })
        .collect()
}

/// One line about something in the cache that cannot be written.
pub(super) fn not_writable(path: &Path, error: io::Error) -> Error {
    let message = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space left on the disk; free some and run again, the download goes on where it stopped; or set HF_HOME to \
             another disk"
                .to_string()
        }
        _ => format!("cannot be written: {error}; set HF_HOME to a folder that you can write to"),
    };
    Error::file(path, message)
}
