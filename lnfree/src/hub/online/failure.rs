//! Why the hub did not give what was asked for, in one line, and what can be done about it.

use ureq::http::{HeaderMap, StatusCode};

use super::settings::Settings;
use crate::Error;
use crate::hub::names::{RepoId, RepoKind};

/// What a failure means for who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The same request may succeed in a moment.
    Transient,
    /// The hub is out of reach; what is cached has to do.
    Unreachable,
    /// Asking again changes nothing.
    Final,
}

/// A request that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// Nothing came back.
    pub(super) fn transport(settings: &Settings, error: &ureq::Error) -> Failure {
        if let (ureq::Error::Http(_), Some(token)) = (error, &settings.token) {
            let message = format!("the token in {} has a character that no token has", token.origin);
            return Failure::new(Kind::Final, message);
        }
        let (kind, why) = reason(settings, error);
        let endpoint = settings.shown_endpoint();
        Failure::new(
            kind,
            format!(
                "cannot reach {endpoint}: {why}; check the network, set HF_ENDPOINT to a mirror, or give the path of \
                 what is on this disk"
            ),
        )
    }

    /// The hub answered, and it was not a yes. `file` is what was asked for, if it was not the whole
    /// repository.
    pub(super) fn status(
        settings: &Settings,
        repo: &RepoId,
        file: Option<&str>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Failure {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (id, endpoint) = (&repo.id, settings.shown_endpoint());
        let said = one_line(header("x-error-message"));
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let final_ = |message: String| Failure::new(Kind::Final, message);
        match (status.as_u16(), header("x-error-code")) {
            (_, "GatedRepo") => final_(gated(settings, repo, &endpoint)),
            (_, "RevisionNotFound") => {
                final_(format!("{id} has no branch, tag or commit {} at {endpoint}", repo.revision))
            }
            (404, _) if file.is_some() => {
                let file = file.unwrap_or_default();
                final_(format!("{id} has no file {file} at {endpoint}, though it lists it{said}"))
            }
            (401 | 403, code) if code != "RepoNotFound" && settings.token.is_some() => {
                let origin = settings.token.as_ref().map_or("", |token| &token.origin);
                final_(format!(
                    "{endpoint} does not accept the token in {origin} for {id}{said}; make a new one with read access at \
                     {endpoint}/settings/tokens"
                ))
            }
            (401 | 403 | 404, _) => final_(not_found(settings, repo, &endpoint)),
            (429, _) => Failure::new(
                Kind::Transient,
                format!(
                    "{endpoint} takes no more requests for now{said}; wait, or set HF_TOKEN to be allowed more"
                ),
            ),
            (500..=599, _) => Failure::new(
                Kind::Transient,
                format!(
                    "{endpoint} is in trouble: it answers {status}{said}; try again later or set HF_ENDPOINT"
                ),
            ),
            _ => final_(format!(
                "{endpoint} answers {status} to a request for {id}{said}; is HF_ENDPOINT a hub?"
            )),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::invalid(failure.message)
    }
}

/// A repository behind conditions that an account has to accept.
fn gated(settings: &Settings, repo: &RepoId, endpoint: &str) -> String {
    let folder = if repo.kind == RepoKind::Dataset { "datasets/" } else { "" };
    let conditions = format!("{0} is gated: accept its conditions at {endpoint}/{folder}{0}", repo.id);
    match &settings.token {
        Some(token) => format!("{conditions} with the account of the token in {}", token.origin),
        None => {
            format!("{conditions}, then set HF_TOKEN to a token of that account ({endpoint}/settings/tokens)")
        }
    }
}

/// The hub does not tell a private repository from one that is not there.
fn not_found(settings: &Settings, repo: &RepoId, endpoint: &str) -> String {
    let RepoId { kind, id, typed, .. } = repo;
    let private = match &settings.token {
        Some(token) => format!("the token in {} may not see it", token.origin),
        None => "it is private and HF_TOKEN is not set".into(),
    };
    let name = if typed == id { id.to_string() } else { format!("{typed} ({id})") };
    // Data by path is not looked for here.
    let here = if *kind == RepoKind::Model { "no such file or folder here, and " } else { "" };
    format!("{} {name}: {here}no such repository at {endpoint}{}, or {private}", kind.noun(), repo.hint())
}

/// Why a connection gave nothing, or not all.
pub(super) fn reason(settings: &Settings, error: &ureq::Error) -> (Kind, String) {
    use ureq::{Error::*, Timeout::*};
    let silent = || format!("no answer within {} s", settings.timeout.as_secs_f64());
    match error {
        HostNotFound => (Kind::Unreachable, "its name is not known here (no network?)".into()),
        Timeout(Resolve | Connect) => (Kind::Unreachable, silent()),
        Timeout(_) => (Kind::Transient, silent()),
        Io(e) if is_timeout(e) => (Kind::Transient, silent()),
        Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            (Kind::Unreachable, "it refuses connections".into())
        }
        Io(e) if e.to_string().contains("lookup address") => {
            (Kind::Unreachable, "its name is not known here (no network?)".into())
        }
        Io(e) if e.to_string().contains("certificate") => (
            Kind::Unreachable,
            format!("{} (does a proxy open encrypted connections?)", one_line(&e.to_string())),
        ),
        Io(e) if broken(e) => {
            (Kind::Transient, format!("the connection broke off ({})", one_line(&e.to_string())))
        }
        Io(e) => (Kind::Unreachable, one_line(&e.to_string())),
        other => (Kind::Unreachable, one_line(&other.to_string())),
    }
}

/// Whether a socket's error means that it waited too long.
fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    let inside = error.get_ref().and_then(|e| e.downcast_ref::<ureq::Error>());
    matches!(error.kind(), TimedOut | WouldBlock) || matches!(inside, Some(ureq::Error::Timeout(_)))
}

/// Whether the other side went away.
fn broken(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | Interrupted | Other
    )
}

/// A text from outside, fit for one line of a message.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect::<String>()
        .trim()
        .to_string()
}
