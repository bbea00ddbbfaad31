//! Requests that write to one repository, and what their refusals mean.

use std::io::Read;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::typestate::WithBody;
use ureq::{Body, RequestBuilder, SendBody};

use crate::hub::names::RepoId;
use crate::hub::online::address::{encoded, origin, without_secrets};
use crate::hub::online::client::Client;
use crate::hub::online::failure::{Failure, Kind, one_line, reason};

/// More than any answer needs.
const MAX_ANSWER: u64 = 16 << 20;
/// A hub takes its time to put large things together: so many times the usual silence is borne.
const PATIENCE: u32 = 12;

/// What writes to one repository.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) id: &'a RepoId,
}

impl Writer<'_> {
    /// An address of the hub's interface.
    pub(super) fn api(&self, what: &str) -> String {
        format!("{}/api/{what}", self.client.settings.endpoint)
    }

    /// An address of the interface for this branch of the repository.
    pub(super) fn at_revision(&self, what: &str) -> String {
        let revision = encoded(&self.id.revision).replace('/', "%2F");
        self.api(&format!("models/{}/{what}/{revision}", self.id.id))
    }

    /// Sends JSON with the token, if it goes to the hub.
    pub(super) fn post_json(&self, url: &str, value: &Value) -> Result<Response<Body>, Failure> {
        let request = self.request(self.client.agent.post(url), url, true);
        self.answer(url, request.header("Content-Type", "application/json").send(value.to_string()))
    }

    /// Sends JSON to a part of git-lfs; addresses that are signed want no token.
    pub(super) fn post_lfs(
        &self,
        url: &str,
        headers: &[(String, String)],
        with_token: bool,
        value: &Value,
    ) -> Result<Response<Body>, Failure> {
        const LFS: &str = "application/vnd.git-lfs+json";
        let request = self.request(self.client.agent.post(url), url, with_token).header("Accept", LFS);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        self.answer(url, request.header("Content-Type", LFS).send(value.to_string()))
    }

    /// Sends lines of JSON, `length` bytes of them.
    pub(super) fn send_lines(
        &self,
        url: &str,
        length: u64,
        lines: &mut dyn Read,
    ) -> Result<Response<Body>, Failure> {
        let request = self.request(self.client.agent.post(url), url, true);
        let request = request.header("Content-Type", "application/x-ndjson").header("Content-Length", length);
        self.answer(url, request.send(SendBody::from_reader(lines)))
    }

    /// Sends `length` bytes to a store of large files.
    pub(super) fn put(
        &self,
        url: &str,
        headers: &[(String, String)],
        length: u64,
        bytes: &mut dyn Read,
    ) -> Result<Response<Body>, Failure> {
        let request = self.request(self.client.agent.put(url), url, false).header("Content-Length", length);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        self.answer(url, request.send(SendBody::from_reader(bytes)))
    }

    /// With the token, if that is wanted and the address is the hub's own.
    fn request(
        &self,
        request: RequestBuilder<WithBody>,
        url: &str,
        with_token: bool,
    ) -> RequestBuilder<WithBody> {
        let settings = &self.client.settings;
        let patience = settings.timeout.checked_mul(PATIENCE).unwrap_or(Duration::MAX);
        let request =
            request.config().timeout_recv_response(Some(patience)).timeout_per_read(Some(patience)).build();
        match &settings.token {
            Some(token) if with_token && self.client.is_endpoint(url) => {
                request.header("Authorization", format!("Bearer {}", token.value))
            }
            _ => request,
        }
    }

    fn answer(
        &self,
        url: &str,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Failure> {
        answer.map_err(|error| match &error {
            ureq::Error::Http(_) => Failure::transport(&self.client.settings, &error),
            _ => {
                let (kind, why) = reason(&self.client.settings, &error);
                let place = without_secrets(origin(url));
                Failure::new(
                    kind,
                    format!("{}: cannot reach {place}: {why}; check the network and push again", self.id.id),
                )
            }
        })
    }

    /// What a successful answer says.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        what: &str,
        response: Response<Body>,
    ) -> Result<T, Failure> {
        if !response.status().is_success() {
            return Err(self.refused(what, response));
        }
        response.into_body().into_with_config().limit(MAX_ANSWER).read_json().map_err(|error| match &error {
            ureq::Error::Json(e) if !e.is_io() => {
                let (endpoint, why) = (self.client.settings.shown_endpoint(), one_line(&e.to_string()));
                let message =
                    format!("{endpoint} does not answer like a hub to {what} ({why}); check HF_ENDPOINT");
                Failure::new(Kind::Final, message)
            }
            _ => Failure::transport(&self.client.settings, &error),
        })
    }

    /// The code of a refusal and its words, which are in a header or in the answer.
    pub(super) fn said(&self, mut response: Response<Body>) -> (String, String) {
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(one_line);
        let code = header("x-error-code").unwrap_or_default();
        let words = header("x-error-message").or_else(|| {
            let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_json::<Value>().ok()?;
            let words = answer.get("error").or_else(|| answer.get("message"))?;
            Some(one_line(words.as_str()?))
        });
        (code, words.unwrap_or_default())
    }

    /// The hub answered `what`, and it was not a yes.
    pub(super) fn refused(&self, what: &str, response: Response<Body>) -> Failure {
        let settings = &self.client.settings;
        let (id, endpoint, status) = (&self.id.id, settings.shown_endpoint(), response.status());
        let moved = response.headers().get("location").and_then(|v| v.to_str().ok()).map(one_line);
        let (code, words) = self.said(response);
        let said = if words.is_empty() { words } else { format!(" ({words})") };
        let origin = settings.token.as_ref().map_or("", |token| &token.origin);
        let (kind, message) = match (status.as_u16(), code.as_str()) {
            (401, _) => (
                Kind::Final,
                format!(
                    "{endpoint} does not accept the token in {origin}{said}; make a new one with write access at {endpoint}/settings/tokens"
                ),
            ),
            (403, _) => (
                Kind::Final,
                format!(
                    "the token in {origin} may not write to {id}{said}; make one with write access to it at {endpoint}/settings/tokens"
                ),
            ),
            (404, "RevisionNotFound") => {
                (Kind::Final, format!("{id} has no branch {} at {endpoint}{said}", self.id.revision))
            }
            (300..=399, _) => (
                Kind::Final,
                format!("{id} has another name now ({}); push to that", moved.unwrap_or_default()),
            ),
            (408 | 412 | 429 | 500..=599, _) => (
                Kind::Transient,
                format!(
                    "{endpoint} is in trouble: it answers {status} to {what} for {id}{said}; push again later"
                ),
            ),
            _ => (Kind::Final, format!("{endpoint} refuses {what} for {id}: {status}{said}")),
        };
        Failure::new(kind, message)
    }
}
