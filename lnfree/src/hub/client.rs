//! Requests to the hub.
//!
//! hf-hub builds addresses and asks for a repository's files; it knows no time limits, gives up the headers of a refusal,
//! follows redirects without end, and sends the token along with them. Files are therefore asked for with ureq, which it is built on.

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body, Proxy};

use super::failure::{Failure, Kind, one_line};
use super::names::RepoId;
use super::settings::{Settings, without_secrets};

/// The hub sends a file through one redirect or two.
const MAX_REDIRECTS: usize = 10;
/// A list of files is a few kilobytes.
const MAX_LISTING: u64 = 16 << 20;

/// A connection to the hub.
pub(super) struct Client<'a> {
    pub(super) settings: &'a Settings,
    agent: Agent,
    api: Api,
}

/// What the hub says of a file before it is downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// The name of the file's content in the cache: SHA-256 of a large file, git's SHA-1 of a small one.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: u64,
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a Settings) -> Result<Client<'a>, Failure> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .user_agent(concat!("lnfree/", env!("CARGO_PKG_VERSION")))
            // Compressed on the way, a file's size and the rest of an interrupted one would be anybody's guess.
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
        Ok(Client { settings, agent, api })
    }

    /// The commit that the revision stands for, and the names of its files.
    pub(super) fn info(&self, id: &RepoId) -> Result<RepoInfo, Failure> {
        let repo = Repo::with_revision(id.id.clone(), RepoType::Model, id.revision.clone());
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
            e => Failure::transport(self.settings, &e),
        })?;
        if !response.status().is_success() {
            return Err(Failure::status(self.settings, id, None, response.status(), response.headers()));
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
            Err(e) => return Err(Failure::transport(self.settings, &e)),
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
        let last = self.follow(id, file, &self.url(id, sha, file), None, |headers| {
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

    /// A file's content from byte `start` on; the answer may ignore that and be the whole (status 200).
    pub(super) fn get(
        &self,
        id: &RepoId,
        sha: &str,
        file: &str,
        start: u64,
    ) -> Result<Response<Body>, Failure> {
        self.follow(id, file, &self.url(id, sha, file), Some(start), |_| false)
    }

    fn url(&self, id: &RepoId, sha: &str, file: &str) -> String {
        self.api.repo(Repo::with_revision(id.id.clone(), RepoType::Model, sha.into())).url(file)
    }

    /// Follows redirects to a response that is none, or until `enough` is true of the headers on the way. Without `start`,
    /// asks for the headers alone. The token goes to the endpoint and to nobody else.
    fn follow(
        &self,
        id: &RepoId,
        file: &str,
        url: &str,
        start: Option<u64>,
        mut enough: impl FnMut(&HeaderMap) -> bool,
    ) -> Result<Response<Body>, Failure> {
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = if start.is_some() { self.agent.get(&url) } else { self.agent.head(&url) };
            if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_endpoint(&url)) {
                request = request.header("Authorization", format!("Bearer {}", token.value));
            }
            if let Some(start) = start.filter(|start| *start > 0) {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|e| Failure::transport(self.settings, &e))?;
            let (status, headers) = (response.status(), response.headers());
            if enough(headers) && (status.is_success() || status.is_redirection()) {
                return Ok(response);
            }
            if !status.is_redirection() {
                // Said of a part that begins at the end of the file: the caller starts over.
                return match status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                    true => Ok(response),
                    false if self.is_endpoint(&url) => {
                        Err(Failure::status(self.settings, id, Some(file), status, headers))
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

    fn is_endpoint(&self, url: &str) -> bool {
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

/// The proxy of the environment, unless the hub is on this machine.
fn proxy(endpoint: &str) -> Option<Proxy> {
    let host = endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(String::from)).unwrap_or_default();
    let here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    if here { None } else { Proxy::try_from_env() }
}

/// `"abc"`, `W/"abc"` → `abc`.
fn unquoted(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_string()
}

/// `scheme://host:port` of an address.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |i| i + 3);
    &url[..url[start..].find(['/', '?', '#']).map_or(url.len(), |i| start + i)]
}

/// Where `location`, absolute or relative, leads from `url`; None if it is no address, or leaves encryption behind.
fn joined(url: &str, location: &str) -> Option<String> {
    let scheme = url.split_once("://")?.0;
    let path = || &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let next = match location {
        "" => return None,
        l if l.starts_with("http://") || l.starts_with("https://") => l.to_string(),
        l if l.starts_with("//") => format!("{scheme}:{l}"),
        l if l.starts_with('/') => format!("{}{l}", origin(url)),
        l if l.contains("://") => return None,
        l => format!("{}/{l}", &path()[..path().rfind('/')?]),
    };
    let downgraded = scheme == "https" && !next.starts_with("https://");
    next.parse::<Uri>().ok().filter(|uri| uri.host().is_some() && !downgraded)?;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let url = "https://hub:1/org/name/resolve/main/x?y=/z";
        for (location, to) in [
            ("https://cdn/x?sig=1", "https://cdn/x?sig=1"),
            ("//cdn/x", "https://cdn/x"),
            ("/other/x", "https://hub:1/other/x"),
            ("w", "https://hub:1/org/name/resolve/main/w"),
        ] {
            assert_eq!(joined(url, location).as_deref(), Some(to));
        }
        for nowhere in ["", "http://cdn/x", "ftp://cdn/x", "https://", "/a b"] {
            assert_eq!(joined(url, nowhere), None, "{nowhere}");
        }
        assert_eq!(origin("http://127.0.0.1:80?x"), "http://127.0.0.1:80");
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
        assert_eq!(
            (unquoted("W/\"ab\""), unquoted("\"ab\""), unquoted("ab")),
            ("ab".into(), "ab".into(), "ab".into())
        );
    }
}
