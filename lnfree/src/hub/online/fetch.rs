//! Files of one commit into the cache, if the disk has room for them.

use indicatif::HumanBytes;

use super::cache::{RepoCache, shards};
use super::client::Client;
use super::download::{Download, persist};
use super::failure::{Failure, Kind};
use crate::base::device::disk_free;
use crate::hub::names::RepoId;

/// What the files of one commit are fetched with.
pub(super) struct Fetch<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a RepoCache,
    pub(super) id: &'a RepoId,
    pub(super) commit: &'a str,
}

impl Fetch<'_> {
    /// Those of `wanted` that the commit has; of the others it is noted that it has none.
    pub(super) fn small(&self, files: &[&str], wanted: &[&str]) -> Result<(), Failure> {
        let (there, absent): (Vec<&str>, Vec<&str>) = wanted.iter().partition(|name| files.contains(name));
        self.all(&there)?;
        for name in absent {
            self.cache.note_absent(self.commit, name)?;
        }
        Ok(())
    }

    /// The weights in `name`, which may be an index of shards.
    pub(super) fn weights(&self, name: &str, files: &[&str]) -> Result<(), Failure> {
        if !name.ends_with(".index.json") {
            return self.all(&[name]);
        }
        self.all(&[name])?;
        let wrong = |why: String| Failure::new(Kind::Final, format!("{}: {name} {why}", self.id.id));
        let shards = shards(&self.cache.snapshot(self.commit).join(name)).map_err(wrong)?;
        if let Some(missing) = shards.iter().find(|shard| !files.contains(&shard.as_str())) {
            return Err(wrong(format!("lists {missing}, which the repository does not have")));
        }
        self.all(&shards.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// These files, if the disk has room for them all.
    pub(super) fn all(&self, names: &[&str]) -> Result<(), Failure> {
        let mut downloads = Vec::new();
        for &file in names {
            let remote = persist(|_| self.client.head(self.id, self.commit, file))?;
            let Fetch { client, cache, id, commit } = *self;
            downloads.push(Download { client, cache, id, commit, file, remote });
        }
        let needed = downloads.iter().fold(0, |sum: u64, d| sum.saturating_add(d.missing()));
        let root = &self.client.settings.cache;
        if let Some(free) = disk_free(root).filter(|free| *free < needed) {
            return Err(Failure::new(
                Kind::Final,
                format!(
                    "{} needs {} more in {}, and {} are free; free some space, or set HF_HOME to another disk",
                    self.id.id,
                    HumanBytes(needed),
                    root.display(),
                    HumanBytes(free)
                ),
            ));
        }
        downloads.iter().try_for_each(Download::run)
    }
}
