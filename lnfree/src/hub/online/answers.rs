//! What a hub answers, one question at a time, without the patience around it: where `lnfree/fuzz` comes in.

use std::path::Path;

use super::cache::{RepoCache, Want, shards};
use super::client::{Client, Remote};
use super::download::Download;
use super::push;
use super::remote::RemoteFile;
use super::repositories::check_files;
use super::settings::Settings;
use crate::hub::names::RepoId;
use crate::{Error, Result};

/// The commit that is asked for.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A connection to a hub, and a repository of it.
pub struct Answers {
    client: Client,
    id: RepoId,
    cache: RepoCache,
}

impl Answers {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn new(settings: &Settings) -> Result<Answers> {
        let id = RepoId::parse("some/model")?;
        let cache = RepoCache::new(&settings.cache, id.kind, &id.id, COMMIT);
        Ok(Answers { client: Client::new(settings)?, id, cache })
    }

    /// The list of files, of which those of a model are looked for.
    ///
    /// # Errors
    /// As a download that fails there.
    pub fn listing(&self) -> Result<usize> {
        let info = self.client.info(&self.id)?;
        let files: Vec<&str> = info.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
        check_files(&self.id, &files, Want::Tokenizer)?;
        check_files(&self.id, &files, Want::Model)?;
        Ok(files.len())
    }

    /// The headers of a file.
    ///
    /// # Errors
    /// As a download that fails there.
    pub fn head(&self, file: &str) -> Result<u64> {
        let Remote { etag, size } = self.client.head(&self.id, COMMIT, file)?;
        Ok(size.saturating_sub(etag.len() as u64))
    }

    /// The bytes from `start` up to `end` of a file that has `size`.
    ///
    /// # Errors
    /// As reading a data set that fails there.
    pub fn part(&self, size: u64, start: u64, end: u64) -> Result<Vec<u8>> {
        let remote = Remote { etag: "e".into(), size };
        let Answers { client, id, cache } = self;
        let of = Download { client, cache, id, commit: COMMIT, file: "train.parquet", remote };
        Ok(RemoteFile::on_the_hub("some/model/train.parquet".into(), &of).once(start, end)?)
    }

    /// Where the files of `folder` go.
    ///
    /// # Errors
    /// As a push that fails there.
    pub fn upload(&self, folder: &Path) -> Result<()> {
        Ok(push::ask_once(&self.client, &self.id, folder)?)
    }

    /// The shards of an index that has come.
    ///
    /// # Errors
    /// When it is none.
    pub fn shards(index: &Path) -> Result<usize> {
        shards(index).map(|shards| shards.len()).map_err(|why| Error::file(index, why))
    }
}
