//! A data set's repository at one commit: its files, whole into the cache or read where they are.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::cache::RepoCache;
use super::client::Client;
use super::download::{Download, persist};
use super::failure::{Failure, Kind};
use super::fetch::Fetch;
use super::remote::RemoteFile;
use super::settings::Settings;
use crate::base::closest::closest;
use crate::base::console::say;
use crate::hub::names::RepoId;
use crate::{Error, Result};

/// A data set repository at one commit; clones share everything.
#[derive(Clone)]
pub struct DatasetRepo {
    inner: Arc<Inner>,
}

struct Inner {
    id: RepoId,
    commit: String,
    files: Vec<String>,
    cache: RepoCache,
    settings: Settings,
    /// Why the hub is not asked, where it is not.
    client: Result<Client, String>,
}

impl std::fmt::Debug for DatasetRepo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DatasetRepo({}@{}, {} files)", self.id(), self.commit(), self.files().len())
    }
}

impl DatasetRepo {
    /// Asks the hub for the commit and its files; else the cache says what it knows.
    pub(super) fn find(settings: &Settings, id: RepoId) -> Result<DatasetRepo> {
        let cache = RepoCache::new(&settings.cache, id.kind, &id.id, &id.revision);
        let new = |commit: String, files, client| {
            let cache = RepoCache::new(&settings.cache, id.kind, &id.id, &commit);
            let (id, settings) = (id.clone(), settings.clone());
            DatasetRepo { inner: Arc::new(Inner { id, commit, files, cache, settings, client }) }
        };
        let cached = |why: String| {
            let commit = cache.commit()?;
            let files = cache.files(&commit);
            Some(new(commit, files, Err(why)))
        };
        if settings.offline {
            return cached("HF_HUB_OFFLINE is set: unset it to download".into()).ok_or_else(|| {
                Error::invalid(format!(
                    "data set {} is not in {}; HF_HUB_OFFLINE is set: unset it to download",
                    id.typed,
                    settings.cache.display()
                ))
            });
        }
        let client = Client::new(settings)?;
        match persist(|_| client.info(&id)) {
            Ok(info) => {
                cache.create(&info.sha)?;
                cache.note_ref(&info.sha)?;
                let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
                Ok(new(info.sha, files, Ok(client)))
            }
            Err(failure) if failure.kind == Kind::Final => Err(failure.into()),
            Err(failure) => match cached(failure.message.clone()) {
                Some(repo) => {
                    say(&format!("{}: using what the cache has of it ({})", id.id, failure.message));
                    Ok(repo)
                }
                None => {
                    Err(Failure { message: format!("data set {}: {}", id.typed, failure.message), ..failure }
                        .into())
                }
            },
        }
    }

    /// `ORG/NAME`.
    pub fn id(&self) -> &str {
        &self.inner.id.id
    }

    /// The commit, 40 hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.inner.commit
    }

    /// Names of the files, with the folders they are in, in the hub's order; without a hub those that the
    /// cache has.
    pub fn files(&self) -> &[String] {
        &self.inner.files
    }

    /// The path of a file in the cache; what the cache does not have is downloaded, with a progress bar,
    /// continued where it was interrupted, and checked.
    ///
    /// # Errors
    /// One line: no such file, no network, offline, no room on the disk, or a file that arrives damaged.
    pub fn download(&self, file: &str) -> Result<PathBuf> {
        let inner = &*self.inner;
        if let Some(path) = self.cached(file)? {
            return Ok(path);
        }
        inner.cache.create(&inner.commit)?;
        let Inner { cache, id, commit, .. } = inner;
        Fetch { client: self.client(file)?, cache, id, commit }.all(&[file])?;
        Ok(cache.snapshot(commit).join(file))
    }

    /// A file to be read in parts: from the cache if it is there, else over the network, of which nothing is
    /// kept. Only its size is asked for here.
    ///
    /// # Errors
    /// One line: no such file, no network, or offline.
    pub fn open(&self, file: &str) -> Result<RemoteFile> {
        let Inner { cache, id, commit, .. } = &*self.inner;
        let name = format!("{}/{file}", id.id);
        if let Some(path) = self.cached(file)? {
            return RemoteFile::on_disk(name, &path);
        }
        let client = self.client(file)?;
        let remote = persist(|_| client.head(id, commit, file))?;
        let download = Download { client, cache, id, commit, file, remote };
        // The content may have come with another commit.
        match download.is_there() {
            true => RemoteFile::on_disk(name, &cache.blob(&download.remote.etag)),
            false => Ok(RemoteFile::on_the_hub(name, &download)),
        }
    }

    /// Where the cache has the file, if it does.
    fn cached(&self, file: &str) -> Result<Option<PathBuf>> {
        let inner = &*self.inner;
        let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        let plausible = inside && !file.is_empty() && !file.contains(|c: char| c.is_control() || c == '\\');
        if inner.files.iter().any(|there| there == file) && plausible {
            let path = inner.cache.snapshot(&inner.commit).join(file);
            return Ok(path.is_file().then_some(path));
        }
        self.client(file)?;
        let hint = closest(file, inner.files.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        Err(Error::invalid(format!(
            "data set {} has no file {}{hint}; it has {} others",
            inner.id.typed,
            file.escape_debug(),
            inner.files.len()
        )))
    }

    fn client(&self, file: &str) -> Result<&Client> {
        let Inner { id, settings, client, .. } = &*self.inner;
        client.as_ref().map_err(|why| {
            let (file, folder) = (file.escape_debug(), settings.cache.display());
            Error::invalid(format!("{}: {file} is not in {folder}, and {why}", id.id))
        })
    }
}
