//! One file into the cache: continued where it was interrupted, tried again, and checked before it gets its
//! name.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, StatusCode};

use super::cache::{RepoCache, not_writable};
use super::client::{Ask, Client, Remote};
use super::failure::{Failure, Kind, reason};
use super::progress::Progress;
use crate::base::atomic::digest_file;
use crate::hub::names::RepoId;
use crate::{Error, Result};

/// Attempts in a row that bring nothing before it is given up.
const MAX_FRUITLESS: u32 = 4;
/// The wait before the second attempt; it doubles from one to the next.
const FIRST_WAIT: Duration = Duration::from_millis(500);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(Kind::Final, error.to_string())
    }
}

/// Calls `attempt` until it succeeds, fails for good, or failed too often without moving on; it says whether
/// it moved on.
pub(super) fn persist<T>(attempt: impl FnMut(&mut bool) -> Result<T, Failure>) -> Result<T, Failure> {
    persist_with(false, attempt)
}

/// [`persist`], where `there_before` says whether the hub has answered before: a network that was there may
/// come back.
pub(super) fn persist_with<T>(
    there_before: bool,
    mut attempt: impl FnMut(&mut bool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (mut fruitless, mut there) = (0, there_before);
    loop {
        let mut moved = false;
        match attempt(&mut moved) {
            Err(failure)
                if failure.kind == Kind::Transient || (there && failure.kind == Kind::Unreachable) =>
            {
                there |= moved;
                fruitless = if moved { 1 } else { fruitless + 1 };
                if fruitless >= MAX_FRUITLESS {
                    return Err(Failure { kind: Kind::Unreachable, ..failure });
                }
                std::thread::sleep(FIRST_WAIT * 2u32.pow(fruitless - 1));
            }
            done => return done,
        }
    }
}

/// One file of a commit.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a RepoCache,
    pub(super) id: &'a RepoId,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
    pub(super) remote: Remote,
}

impl Download<'_> {
    /// Whether the content is in the cache already, from this commit or another.
    pub(super) fn is_there(&self) -> bool {
        fs::metadata(self.cache.blob(&self.remote.etag)).is_ok_and(|blob| blob.len() == self.remote.size)
    }

    /// Bytes that still have to come.
    pub(super) fn missing(&self) -> u64 {
        let part = fs::metadata(self.cache.incomplete(&self.remote.etag)).map_or(0, |part| part.len());
        if self.is_there() { 0 } else { self.remote.size.saturating_sub(part) }
    }

    /// Brings the file into the snapshot.
    pub(super) fn run(&self) -> Result<(), Failure> {
        if !self.is_there() {
            let mut progress = Progress::new(self.file, self.remote.size);
            let name = format!("{}/{}", self.id.id, self.file);
            let _turn = self.cache.lock(&self.remote.etag, || {
                progress.note(&format!("{name}: waiting for another process that downloads it"));
            })?;
            // The other process may have brought it.
            if !self.is_there() {
                self.fetch(&mut progress)?;
            }
        }
        Ok(self.cache.link(self.commit, self.file, &self.remote.etag)?)
    }

    /// Downloads, checks, and names the content. Its turn has come.
    fn fetch(&self, progress: &mut Progress) -> Result<(), Failure> {
        let part = self.cache.incomplete(&self.remote.etag);
        let mut again = true;
        loop {
            persist(|moved| self.attempt(&part, progress, moved))?;
            let Some(wrong) = self.wrong(&part)? else { break };
            fs::remove_file(&part).map_err(|e| not_writable(&part, e))?;
            // The beginning may have been left by an interrupted download of who knows what.
            if !std::mem::take(&mut again) {
                let (id, endpoint) = (&self.id.id, self.client.settings.shown_endpoint());
                let message = format!(
                    "{id}: {} arrives damaged from {endpoint}: {wrong}; nothing of it was kept; try again later, or set \
                     HF_ENDPOINT to another mirror",
                    self.file
                );
                return Err(Failure::new(Kind::Final, message));
            }
            progress.note(&format!("{}/{}: damaged, once more from the start", self.id.id, self.file));
        }
        let blob = self.cache.blob(&self.remote.etag);
        fs::rename(&part, &blob).map_err(|e| not_writable(&blob, e))?;
        progress.finish();
        Ok(())
    }

    /// Brings what is missing of `part`, from one connection.
    fn attempt(&self, part: &Path, progress: &mut Progress, moved: &mut bool) -> Result<(), Failure> {
        let size = self.remote.size;
        let file = OpenOptions::new().append(true).create(true).open(part);
        let mut file = file.map_err(|e| not_writable(part, e))?;
        let mut had = file.metadata().map_err(|e| not_writable(part, e))?.len();
        if had > size {
            restart(&file, part, &mut had)?;
        }
        if had < size || size == 0 {
            let url = self.client.url(self.id, self.commit, self.file);
            let (response, _) = self.client.follow(self.id, self.file, &url, Ask::From(had), |_| false)?;
            let continued = response.status() == StatusCode::PARTIAL_CONTENT
                && range_start(response.headers()) == Some((had, size));
            if had > 0 && !continued {
                restart(&file, part, &mut had)?;
                if response.status() != StatusCode::OK {
                    return Err(self.short(0, "nothing came"));
                }
            }
            progress.start(had);
            let body = response.into_body().into_with_config().limit(u64::MAX).reader();
            self.copy(body, &mut file, part, &mut had, progress, moved)?;
        }
        Ok(file.sync_all().map_err(|e| not_writable(part, e))?)
    }

    fn copy(
        &self,
        mut body: impl Read,
        file: &mut File,
        part: &Path,
        had: &mut u64,
        progress: &mut Progress,
        moved: &mut bool,
    ) -> Result<(), Failure> {
        let mut buffer = vec![0; 1 << 17];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => {
                    let why = reason(&self.client.settings, &ureq::Error::from(e)).1;
                    return Err(self.short(*had, &why));
                }
            };
            *had += n as u64;
            if *had > self.remote.size {
                // Never more on the disk than was announced.
                restart(file, part, had)?;
                let message = format!(
                    "{}: {} sends more of {} than the {} bytes it has; check HF_ENDPOINT",
                    self.id.id,
                    self.client.settings.shown_endpoint(),
                    self.file,
                    self.remote.size
                );
                return Err(Failure::new(Kind::Final, message));
            }
            file.write_all(&buffer[..n]).map_err(|e| not_writable(part, e))?;
            *moved = true;
            progress.add(n as u64);
        }
        if *had < self.remote.size { Err(self.short(*had, "the connection was closed")) } else { Ok(()) }
    }

    /// The connection ended too early; it can be taken up again, whatever ended it.
    fn short(&self, had: u64, why: &str) -> Failure {
        let endpoint = self.client.settings.shown_endpoint();
        Failure::new(
            Kind::Transient,
            format!(
                "{}: {endpoint} does not give {} to its end ({had} of {} bytes): {why}; run again to go on from there",
                self.id.id, self.file, self.remote.size
            ),
        )
    }

    /// What is wrong with the downloaded bytes: the etag is the SHA-256 of a large file, and git's SHA-1 of a
    /// small one. A mirror's own etags say nothing.
    fn wrong(&self, part: &Path) -> Result<Option<String>, Failure> {
        let etag = &self.remote.etag;
        let hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
        let (name, found) = match etag.len() {
            64 if hex => ("sha256", digest_file(part, Sha256::new())?),
            40 if hex => {
                let header = format!("blob {}\0", self.remote.size);
                ("git hash", digest_file(part, Sha1::new_with_prefix(header))?)
            }
            _ => return Ok(None),
        };
        Ok((found != *etag)
            .then(|| format!("its {name} is {}… and should be {}…", &found[..12], &etag[..12])))
    }
}

/// Throws the beginning of a download away.
fn restart(file: &File, part: &Path, had: &mut u64) -> Result<()> {
    *had = 0;
    file.set_len(0).map_err(|e| not_writable(part, e))
}

/// `bytes 5-9/10` → (5, 10).
pub(super) fn range_start(headers: &HeaderMap) -> Option<(u64, u64)> {
    let range = headers.get("content-range")?.to_str().ok()?.trim().strip_prefix("bytes")?.trim_start();
    let (span, total) = range.split_once('/')?;
    Some((span.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}
