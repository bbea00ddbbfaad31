//! Whether models and data sets can be fetched from the Hugging Face hub, and where they are kept.
//!
//! The variables are those that [`crate::hub::Settings`] reads, and those of proxies.

use super::{Check, Env, bytes};
use crate::base::device;
use crate::hub::{Settings, without_secrets};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long the hub may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Said where the variables make no sense.
const NOT_LOOKED_AT: &str = "not looked at: see hub";
const OFFLINE_HELP: &str = "to work without it, give models and data by path (the embedded nano model needs no hub); a mirror goes into HF_ENDPOINT";

/// What the environment says about the hub.
pub(super) struct Hub {
    /// Or what is wrong with a variable.
    settings: Result<Settings, String>,
    proxy: Option<String>,
}

/// An answer of the hub that may still be on its way.
pub(super) enum Access {
    Settled(Check),
    Asked { what: String, answer: Receiver<Result<(), String>>, since: Instant },
}

impl Hub {
    pub(super) fn from_env(env: Env) -> Hub {
        let settings = Settings::read(env).map_err(|e| e.to_string());
        let proxy = settings.as_ref().ok().and_then(|Settings { endpoint, .. }| {
            let scheme = endpoint.split("://").next().unwrap_or_default().to_uppercase();
            [format!("{scheme}_PROXY"), "ALL_PROXY".into()]
                .iter()
                .find_map(|name| env(name).or_else(|| env(&name.to_lowercase())))
                .filter(|_| !spared(endpoint, env("NO_PROXY").or_else(|| env("no_proxy"))))
        });
        Hub { settings, proxy }
    }

    /// Begins to ask whether the hub (or the proxy on the way to it) takes connections.
    pub(super) fn ask(&self) -> Access {
        let settings = match &self.settings {
            Ok(settings) => settings,
            Err(why) => return Access::Settled(Check::warn("hub", why, OFFLINE_HELP)),
        };
        if settings.offline {
            return Access::Settled(Check::ok(
                "hub",
                "not asked: HF_HUB_OFFLINE is set, so only what is cached can be used",
            ));
        }
        let Some((host, port)) = host_and_port(self.proxy.as_ref().unwrap_or(&settings.endpoint)) else {
            let (name, url) = self
                .proxy
                .as_ref()
                .map_or(("HF_ENDPOINT", &settings.endpoint), |p| ("the proxy variable", p));
            let detail = format!("{name} is {}, which is no http or https address", without_secrets(url));
            return Access::Settled(Check::warn("hub", detail, "mend it, or unset it"));
        };
        let (tell, answer) = channel();
        let what = match &self.proxy {
            Some(_) => format!("the proxy {host}:{port} on the way to {}", settings.shown_endpoint()),
            None => settings.shown_endpoint(),
        };
        // On a thread of its own: looking up a name knows no time limit. It is left behind if it takes too
        // long.
        std::thread::spawn(move || {
            let _ = tell.send(connect(&host, port));
        });
        Access::Asked { what, answer, since: Instant::now() }
    }

    /// Where downloads are kept: writable, with room.
    pub(super) fn cache(&self) -> Check {
        const NAME: &str = "cache";
        let Ok(Settings { cache, .. }) = &self.settings else { return Check::ok(NAME, NOT_LOOKED_AT) };
        let folder = cache.display();
        let existing = cache.ancestors().find(|p| p.exists()).unwrap_or(cache);
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
        let made = if existing == cache { "" } else { " (not made yet)" };
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
        let Ok(Settings { token, .. }) = &self.settings else { return Check::ok("token", NOT_LOOKED_AT) };
        Check::ok(
            "token",
            match token {
                Some(token) => format!("found in {}", token.origin),
                None => "none; only gated repositories and pushing need one (HF_TOKEN)".into(),
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
