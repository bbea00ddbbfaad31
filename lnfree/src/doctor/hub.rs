//! Whether models and data sets can be fetched from the Hugging Face hub, and where they are kept.
//!
//! The variables are those of huggingface_hub: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN, HF_TOKEN_PATH.

use super::{Check, Env, bytes, home};
use crate::device;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const ENDPOINT: &str = "https://huggingface.co";
/// How long the hub may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
const OFFLINE_HELP: &str = "to work without it, give models and data by path (the embedded nano model needs no hub); a mirror goes into HF_ENDPOINT";

/// What the environment says about the hub.
pub(super) struct Hub {
    endpoint: String,
    offline: bool,
    cache: PathBuf,
    token: Option<String>,
    proxy: Option<String>,
}

/// An answer of the hub that may still be on its way.
pub(super) enum Access {
    Settled(Check),
    Asked { what: String, answer: Receiver<Result<(), String>>, since: Instant },
}

impl Hub {
    pub(super) fn from_env(env: Env) -> Hub {
        let caches = env("XDG_CACHE_HOME").map_or_else(|| home(env).join(".cache"), PathBuf::from);
        let root = env("HF_HOME").map_or_else(|| caches.join("huggingface"), PathBuf::from);
        let token_file = env("HF_TOKEN_PATH").map_or_else(|| root.join("token"), PathBuf::from);
        let in_file = || {
            let token = std::fs::read_to_string(&token_file).ok().filter(|t| !t.trim().is_empty());
            token.map(|_| token_file.display().to_string())
        };
        let endpoint = env("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let offline = env("HF_HUB_OFFLINE")
            .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()));
        let scheme = endpoint.split("://").next().unwrap_or_default().to_uppercase();
        let proxy = [format!("{scheme}_PROXY"), "ALL_PROXY".into()]
            .iter()
            .find_map(|name| env(name).or_else(|| env(&name.to_lowercase())))
            .filter(|_| !spared(&endpoint, env("NO_PROXY").or_else(|| env("no_proxy"))));
        Hub {
            offline,
            proxy,
            token: env("HF_TOKEN").map(|_| "HF_TOKEN".into()).or_else(in_file),
            cache: env("HF_HUB_CACHE").map_or_else(|| root.join("hub"), PathBuf::from),
            endpoint: endpoint.trim_end_matches('/').to_string(),
        }
    }

    /// Begins to ask whether the hub (or the proxy on the way to it) takes connections.
    pub(super) fn ask(&self) -> Access {
        if self.offline {
            return Access::Settled(Check::ok(
                "hub",
                "not asked: HF_HUB_OFFLINE is set, so only what is cached can be used",
            ));
        }
        let Some((host, port)) = host_and_port(self.proxy.as_ref().unwrap_or(&self.endpoint)) else {
            let (name, url) =
                self.proxy.as_ref().map_or(("HF_ENDPOINT", &self.endpoint), |p| ("the proxy variable", p));
            let detail = format!("{name} is {}, which is no http or https address", without_secrets(url));
            return Access::Settled(Check::warn(
                "hub",
                detail,
                format!("give it as {ENDPOINT}, or unset it"),
            ));
        };
        let (tell, answer) = channel();
        let what = match &self.proxy {
            Some(_) => format!("the proxy {host}:{port} on the way to {}", without_secrets(&self.endpoint)),
            None => without_secrets(&self.endpoint),
        };
        // On a thread of its own: looking up a name knows no time limit. It is left behind if it takes too long.
        std::thread::spawn(move || {
            let _ = tell.send(connect(&host, port));
        });
        Access::Asked { what, answer, since: Instant::now() }
    }

    /// Where downloads are kept: writable, with room.
    pub(super) fn cache(&self) -> Check {
        const NAME: &str = "cache";
        let folder = self.cache.display();
        let whole = std::path::absolute(&self.cache).unwrap_or_else(|_| self.cache.clone());
        let existing = whole.ancestors().find(|p| p.exists()).unwrap_or(&whole);
        // A file in the way is no folder to write in either.
        if tempfile::tempfile_in(existing).is_err() {
            return Check::warn(
                NAME,
                format!("{folder} is not writable"),
                "set HF_HOME to a folder that you can write to",
            );
        }
        let free = device::disk_free(existing);
        let room = free.map_or(String::new(), |f| format!(", {} free", bytes(f)));
        let made = if existing == whole { "" } else { " (not made yet)" };
        match free {
            Some(free) if free < 10_000_000_000 => Check::warn(
                NAME,
                format!("{folder}{made}{room}"),
                "gpt2-xl takes 6.4 GB: free some space, or set HF_HOME to another disk",
            ),
            _ => Check::ok(NAME, format!("{folder}{made}{room}")),
        }
    }

    /// Where a token was found; it is never printed.
    pub(super) fn token(&self) -> Check {
        Check::ok(
            "token",
            match &self.token {
                Some(place) => format!("found in {place}"),
                None => "none; only --push needs one (HF_TOKEN)".into(),
            },
        )
    }
}

impl Access {
    /// The hub's answer, waited for no longer than [`PATIENCE`] after it was asked.
    pub(super) fn check(self) -> Check {
        match self {
            Access::Settled(check) => check,
            Access::Asked { what, answer, since } => match answer
                .recv_timeout(PATIENCE.saturating_sub(since.elapsed()))
            {
                Ok(Ok(())) => Check::ok("hub", format!("{what} takes connections")),
                Ok(Err(why)) => Check::warn("hub", format!("{what} cannot be reached: {why}"), OFFLINE_HELP),
                Err(_) => Check::warn("hub", format!("{what} does not answer within 2 s"), OFFLINE_HELP),
            },
        }
    }
}

fn connect(host: &str, port: u16) -> Result<(), String> {
    let addresses =
        (host, port).to_socket_addrs().map_err(|_| format!("the name {host} is not known (no network?)"))?;
    let mut why = format!("the name {host} leads nowhere");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Host and port of `http(s)://[user@]host[:port][/path]`, the host in brackets if it is an IPv6 address.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default), |p| p.parse().ok().filter(|p| *p > 0))?;
    let whole = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    whole.then(|| (host.to_string(), port))
}

/// An address without the name and password that may stand before its host.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |i| i + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}{}{path}", authority.rsplit('@').next().unwrap_or_default())
}

/// Whether NO_PROXY, a list of hosts and domains, or `*`, names the endpoint's host.
fn spared(endpoint: &str, no_proxy: Option<String>) -> bool {
    let Some((host, _)) = host_and_port(endpoint) else { return false };
    no_proxy.unwrap_or_default().split(',').map(|d| d.trim().trim_start_matches('.')).any(|domain| {
        domain == "*" || (!domain.is_empty() && (host == domain || host.ends_with(&format!(".{domain}"))))
    })
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
