//! One file of a repository, read in parts where it is: HTTP ranges, taken up again when a connection breaks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::{Response, StatusCode};
use ureq::{Body, BodyReader};

use super::address::unquoted;
use super::client::{Ask, Client, Remote};
use super::download::{Download, persist_with, range_start};
use super::failure::{Failure, Kind, reason};
use crate::hub::names::RepoId;
use crate::{Error, Result};

/// A file of a repository that is read in parts, from the hub or from the cache; clones share everything, and
/// any number of threads may read.
#[derive(Clone)]
pub struct RemoteFile {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    len: u64,
    source: Source,
}

enum Source {
    Disk(File, PathBuf),
    Hub(Box<OnHub>),
}

/// A file on the hub.
struct OnHub {
    client: Client,
    id: RepoId,
    commit: String,
    file: String,
    remote: Remote,
    /// Where the hub has sent for it last. Such addresses hold for some minutes only.
    place: Mutex<Option<Place>>,
}

#[derive(Clone)]
struct Place {
    url: String,
    /// The etag that it gave.
    etag: Option<String>,
}

impl std::fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteFile({}, {} bytes)", self.name(), self.len())
    }
}

impl RemoteFile {
    pub(super) fn on_disk(name: String, path: &Path) -> Result<RemoteFile> {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(RemoteFile { inner: Arc::new(Inner { name, len, source: Source::Disk(file, path.into()) }) })
    }

    pub(super) fn on_the_hub(name: String, of: &Download) -> RemoteFile {
        let hub = OnHub {
            client: of.client.clone(),
            id: of.id.clone(),
            commit: of.commit.into(),
            file: of.file.into(),
            remote: of.remote.clone(),
            place: Mutex::default(),
        };
        RemoteFile {
            inner: Arc::new(Inner { name, len: of.remote.size, source: Source::Hub(Box::new(hub)) }),
        }
    }

    /// Bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.inner.len
    }

    /// `ORG/NAME/FILE`, for messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// `len` bytes from byte `offset` on.
    ///
    /// # Errors
    /// When the file has less; else as [`RemoteFile::stream`].
    pub fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.len()).ok_or_else(|| {
            let what = format!("{}: no {len} bytes from {offset} on, it has {}", self.name(), self.len());
            io::Error::new(io::ErrorKind::UnexpectedEof, what)
        })?;
        let mut bytes = vec![0; len];
        match &self.inner.source {
            Source::Disk(file, path) => file.read_exact_at(&mut bytes, offset).map_err(|e| on(path, e))?,
            Source::Hub(_) => self.span(offset, end).read_exact(&mut bytes)?,
        }
        Ok(bytes)
    }

    /// Everything from byte `offset` on; a broken connection is taken up again where it broke.
    ///
    /// # Errors
    /// When `offset` is beyond the end. What it returns fails with one line: no network for some seconds, a
    /// server that does not give parts of files, a file that has changed in between.
    pub fn stream(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        if offset > self.len() {
            let what = format!("{}: begins after its end: {offset} of {} bytes", self.name(), self.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        match &self.inner.source {
            Source::Disk(_, path) => {
                let mut file = File::open(path).map_err(|e| on(path, e))?;
                file.seek(SeekFrom::Start(offset)).map_err(|e| on(path, e))?;
                Ok(Box::new(file.take(self.len() - offset)))
            }
            Source::Hub(_) => Ok(Box::new(self.span(offset, self.len()))),
        }
    }

    /// The bytes from `at` up to `end` of one answer of the hub, which is not asked again.
    pub(super) fn once(&self, at: u64, end: u64) -> Result<Vec<u8>, Failure> {
        let Source::Hub(hub) = &self.inner.source else { return Ok(Vec::new()) };
        let (mut bytes, most) = (Vec::new(), end.saturating_sub(at));
        let body = hub.get(at, end)?.into_body().into_with_config().limit(u64::MAX).reader();
        let read = body.take(most).read_to_end(&mut bytes);
        read.map_err(|e| hub.failure(Kind::Transient, format!("breaks off: {e}")))?;
        Ok(bytes)
    }

    fn span(&self, at: u64, end: u64) -> Span {
        Span { file: self.clone(), at, end, body: None }
    }
}

/// The bytes of a file on the hub from one place to another.
struct Span {
    file: RemoteFile,
    at: u64,
    end: u64,
    body: Option<BodyReader<'static>>,
}

impl Read for Span {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Source::Hub(hub) = &self.file.inner.source else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let (at, end, body) = (self.at, self.end, &mut self.body);
        // The hub has answered before, when it was asked for the size.
        let read = persist_with(true, |_| {
            let open = match body {
                Some(open) => open,
                None => {
                    body.insert(hub.get(at, end)?.into_body().into_with_config().limit(u64::MAX).reader())
                }
            };
            let read = open.read(&mut buffer[..most]);
            let why = match read {
                Ok(0) => "the connection was closed".into(),
                Ok(n) => return Ok(n),
                Err(e) => reason(&hub.client.settings, &ureq::Error::from(e)).1,
            };
            *body = None;
            hub.forget();
            Err(hub
                .failure(Kind::Transient, format!("breaks off at byte {at} of {}: {why}", hub.remote.size)))
        });
        let n = read.map_err(|failure| match failure.message.contains(&self.file.inner.name) {
            true => io::Error::other(failure.message),
            false => io::Error::other(format!("{}: {}", self.file.inner.name, failure.message)),
        })?;
        self.at += n as u64;
        if self.at == self.end
            && let Some(mut body) = self.body.take()
        {
            // A connection whose answer was read to its end serves the next request.
            let _ = body.read(&mut [0]);
        }
        Ok(n)
    }
}

impl OnHub {
    /// The bytes from `at` up to `end`: from the place that gave some before, else from where the hub sends
    /// now.
    fn get(&self, at: u64, end: u64) -> Result<Response<Body>, Failure> {
        let ask = if end == self.remote.size { Ask::From(at) } else { Ask::Part(at, end) };
        let known = self.place().clone();
        if let Some(place) = known {
            let found = self.client.follow(&self.id, &self.file, &place.url, ask, |_| false);
            if let Ok(response) = found.and_then(|(response, _)| self.check(response, at, ask, &place.etag)) {
                return Ok(response);
            }
            self.forget();
        }
        let mut linked = None;
        let url = self.client.url(&self.id, &self.commit, &self.file);
        let (response, url) = self.client.follow(&self.id, &self.file, &url, ask, |headers| {
            linked = linked.take().or_else(|| etag(headers.get("x-linked-etag")));
            false
        })?;
        let response = self.check(response, at, ask, &None)?;
        let place = Place { url, etag: etag(response.headers().get("etag")) };
        // The name of the content, as it was found when the size was asked for.
        let content = linked.or_else(|| place.etag.clone());
        if content.is_some_and(|content| content.to_ascii_lowercase() != self.remote.etag) {
            return Err(self.changed("another content"));
        }
        *self.place() = Some(place);
        Ok(response)
    }

    /// An answer that is the part that was asked for, of the file as it was.
    fn check(
        &self,
        response: Response<Body>,
        at: u64,
        ask: Ask,
        before: &Option<String>,
    ) -> Result<Response<Body>, Failure> {
        let headers = response.headers();
        let length = || headers.get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT => match range_start(headers) {
                Some((start, total)) if start == at => Some(total),
                _ => None,
            },
            StatusCode::OK if ask == Ask::From(0) => Some(length().unwrap_or(self.remote.size)),
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.changed("fewer bytes")),
            _ => None,
        };
        let total = total.ok_or_else(|| {
            let what = format!(
                "gives the whole where a part is asked for (status {}); download the file",
                response.status()
            );
            self.failure(Kind::Final, what)
        })?;
        let now = etag(headers.get("etag"));
        if total != self.remote.size {
            return Err(self.changed(&format!("{total} bytes")));
        }
        if before.is_some() && now.is_some() && *before != now {
            return Err(self.changed("another etag"));
        }
        Ok(response)
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        *self.place() = None;
    }

    fn changed(&self, to: &str) -> Failure {
        let what = format!("has changed while it was read: it has {to} now; start again");
        self.failure(Kind::Final, what)
    }

    fn failure(&self, kind: Kind, what: String) -> Failure {
        let endpoint = self.client.settings.shown_endpoint();
        Failure::new(kind, format!("{}/{}: {endpoint} {what}", self.id.id, self.file))
    }
}

fn etag(value: Option<&ureq::http::HeaderValue>) -> Option<String> {
    value.and_then(|v| v.to_str().ok()).map(unquoted)
}

fn on(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
