//! Requests to the hub.
//!
//! hf-hub builds addresses and asks for a repository's files; it knows no time limits, gives up the headers
//! of a refusal, follows redirects without end, and sends the token along with them. Files are therefore
//! asked for with ureq, which it is built on.

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

use super::address::{encoded, joined, origin, proxy, unquoted, without_secrets};
use super::failure::{Failure, Kind, one_line};
use super::settings::Settings;
use crate::hub::names::RepoId;

/// The hub sends a file through one redirect or two.
const MAX_REDIRECTS: usize = 10;
/// A list of files is a few kilobytes.
const MAX_LISTING: u64 = 16 << 20;

/// A connection to the hub.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) settings: Settings,
    pub(super) agent: Agent,
    api: Api,
}

/// What is asked for of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// The headers alone.
    Head,
    /// Everything from this byte on.
    From(u64),
    /// The bytes from the first number up to, and without, the second.
    Part(u64, u64),
}

impl Ask {
    /// The header `Range`; none where it is the whole file.
    fn range(self) -> Option<String> {
        match self {
            Ask::Head | Ask::From(0) => None,
            Ask::From(start) => Some(format!("bytes={start}-")),
            Ask::Part(start, end) => Some(format!("bytes={start}-{}", end.saturating_sub(1))),
        }
    }
}

/// What the hub says of a file before it is downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// The name of the file's content in the cache: SHA-256 of a large file, git's SHA-1 of a small one.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: u64,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Client, Failure> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .timeout_per_write(Some(settings.timeout))
            .user_agent(concat!("lnfree/", env!("CARGO_PKG_VERSION")))
            // Compressed on the way, a file's size and the rest of an interrupted one would be anybody's
            // guess.
            .accept_encoding("identity")
            .proxy(proxy(&settings.endpoint))
            .build()
            .into();
        let api = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.as_ref().map(|t| t.value.clone()))
            .with_user_agent("lnfree", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|e| Failure::new(Kind::Final, format!("hf-hub: {}", one_line(&e.to_string()))))?;
        Ok(Client { settings: settings.clone(), agent, api })
    }

    /// The commit that the revision stands for, and the names of its files.
    pub(super) fn info(&self, id: &RepoId) -> Result<RepoInfo, Failure> {
        let repo = Repo::with_revision(id.id.clone(), id.kind.repo_type(), id.revision.clone());
        let response = self
            .api
            .repo(repo)
            .info_request()
            .config()
            .http_status_as_error(false)
            .timeout_resolve(Some(self.settings.timeout))
            .timeout_connect(Some(self.settings.timeout))
            .timeout_recv_response(Some(self.settings.timeout))
            .timeout_per_read(Some(self.settings.timeout))
            .proxy(proxy(&self.settings.endpoint))
            .build()
            .call();
        let mut response = response.map_err(|e| match e {
            ureq::Error::TooManyRedirects => self.redirect_loop(&id.id),
            e => Failure::transport(&self.settings, &e),
        })?;
        if !response.status().is_success() {
            return Err(Failure::status(&self.settings, id, None, response.status(), response.headers()));
        }
        let info: RepoInfo = match response.body_mut().with_config().limit(MAX_LISTING).read_json() {
            Ok(info) => info,
            Err(ureq::Error::Json(e)) if !e.is_io() => {
                return Err(Failure::new(
                    Kind::Final,
                    format!(
                        "{} does not answer like a hub (no list of files: {}); check HF_ENDPOINT, or whether the network \
                         wants a login first",
                        self.settings.shown_endpoint(),
                        one_line(&e.to_string())
                    ),
                ));
            }
            Err(e) => return Err(Failure::transport(&self.settings, &e)),
        };
        // It becomes the name of a folder.
        if info.sha.len() != 40 || !info.sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(self.garbled(id, "the commit", &info.sha));
        }
        Ok(info)
    }

    /// Content and size of a file of the commit `sha`.
    pub(super) fn head(&self, id: &RepoId, sha: &str, file: &str) -> Result<Remote, Failure> {
        let (mut etag, mut size) = (None, None);
        let (last, _) = self.follow(id, file, &self.url(id, sha, file), Ask::Head, |headers| {
            let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
            etag = etag.take().or_else(|| header("x-linked-etag").map(unquoted));
            size = size.take().or_else(|| header("x-linked-size").map(String::from));
            etag.is_some() && size.is_some()
        })?;
        let header = |name: &str| last.headers().get(name).and_then(|v| v.to_str().ok());
        let etag = etag.or_else(|| header("etag").map(unquoted)).unwrap_or_default();
        let size = size.or_else(|| header("content-length").map(String::from)).unwrap_or_default();
        // It becomes the name of a file.
        if etag.is_empty()
            || etag.len() > 128
            || !etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(self.garbled(id, &format!("the etag of {file}"), &etag));
        }
        let size = size.parse().map_err(|_| self.garbled(id, &format!("the size of {file}"), &size))?;
        Ok(Remote { etag: etag.to_ascii_lowercase(), size })
    }

    /// The address of a file of the commit `sha`.
    pub(super) fn url(&self, id: &RepoId, sha: &str, file: &str) -> String {
        let repo = Repo::with_revision(id.id.clone(), id.kind.repo_type(), sha.into());
        self.api.repo(repo).url(&encoded(file))
    }

    /// Follows redirects from `url` to a response that is none, or until `enough` is true of the headers on
    /// the way; returns it and where it came from. The answer to a range may be the whole (status 200), or
    /// that there is no such range (416). The token goes to the endpoint and to nobody else.
    pub(super) fn follow(
        &self,
        id: &RepoId,
        file: &str,
        url: &str,
        ask: Ask,
        mut enough: impl FnMut(&HeaderMap) -> bool,
    ) -> Result<(Response<Body>, String), Failure> {
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = if ask == Ask::Head { self.agent.head(&url) } else { self.agent.get(&url) };
            if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_endpoint(&url)) {
                request = request.header("Authorization", format!("Bearer {}", token.value));
            }
            if let Some(range) = ask.range() {
                request = request.header("Range", range);
            }
            let response = request.call().map_err(|e| Failure::transport(&self.settings, &e))?;
            let (status, headers) = (response.status(), response.headers());
            if enough(headers) && (status.is_success() || status.is_redirection()) {
                return Ok((response, url));
            }
            if !status.is_redirection() {
                // Said of a part that begins at the end of the file: the caller starts over.
                return match status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                    true => Ok((response, url)),
                    false if self.is_endpoint(&url) => {
                        Err(Failure::status(&self.settings, id, Some(file), status, headers))
                    }
                    // An address that the hub signs holds for some minutes; the next one is fresh.
                    false => Err(Failure::new(
                        Kind::Transient,
                        format!(
                            "{}: {}, where {} sends for {file}, answers {status}; try again later or set HF_ENDPOINT",
                            id.id,
                            without_secrets(origin(&url)),
                            self.settings.shown_endpoint()
                        ),
                    )),
                };
            }
            let location = headers.get("location").and_then(|v| v.to_str().ok()).unwrap_or_default();
            let next = joined(&url, location);
            url = next.ok_or_else(|| self.garbled(id, &format!("where {file} has moved to"), location))?;
        }
        Err(self.redirect_loop(file))
    }

    /// Whether an address is the hub's own, which alone may see the token.
    pub(super) fn is_endpoint(&self, url: &str) -> bool {
        origin(url) == origin(&self.settings.endpoint)
    }

    fn redirect_loop(&self, what: &str) -> Failure {
        let endpoint = self.settings.shown_endpoint();
        Failure::new(
            Kind::Final,
            format!(
                "{endpoint} redirects {what} more than {MAX_REDIRECTS} times, in a circle it seems; check HF_ENDPOINT"
            ),
        )
    }

    fn garbled(&self, id: &RepoId, what: &str, found: &str) -> Failure {
        let endpoint = self.settings.shown_endpoint();
        Failure::new(
            Kind::Final,
            format!(
                "{endpoint} does not answer like a hub: {what} in {} is `{}`; check HF_ENDPOINT",
                id.id,
                one_line(&without_secrets(found))
            ),
        )
    }
}
