//! What the environment says about the hub: the variables of Python's huggingface_hub, with its defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::address::without_secrets;
use crate::{Error, Result};

/// The hub itself, when HF_ENDPOINT names no other.
pub(super) const ENDPOINT: &str = "https://huggingface.co";
/// Seconds without a byte after which a connection counts as dead.
const TIMEOUT: u64 = 10;

/// A token and where it was found, which messages may tell; the token itself they may not.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub(super) value: String,
    pub(crate) origin: String,
}

impl Token {
    /// A token that messages say comes from `origin`.
    pub fn new(value: impl Into<String>, origin: impl Into<String>) -> Token {
        Token { value: value.into(), origin: origin.into() }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}

/// Where the hub is, where downloads are kept, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address of the hub or of a mirror, `http://…` or `https://…`, without a slash at its end
    /// (HF_ENDPOINT).
    pub endpoint: String,
    /// The folder of `models--ORG--NAME` folders (HF_HUB_CACHE, or `hub` in HF_HOME).
    pub cache: PathBuf,
    /// HF_TOKEN, or the file that `hf auth login` writes (`token` in HF_HOME, or HF_TOKEN_PATH).
    pub token: Option<Token>,
    /// Whether nothing may be asked of the network (HF_HUB_OFFLINE).
    pub offline: bool,
    /// How long a connection may stay silent (HF_HUB_DOWNLOAD_TIMEOUT, in seconds).
    pub timeout: Duration,
}

impl Settings {
    /// The settings of this process.
    ///
    /// # Errors
    /// An HF_ENDPOINT that is no address, an HF_HUB_DOWNLOAD_TIMEOUT that is no number, or no home folder.
    pub fn from_env() -> Result<Settings> {
        Settings::read(&|name| std::env::var(name).ok())
    }

    /// The settings in the variables `env`; an empty one counts as not set.
    pub(crate) fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let env = |name: &str| env(name).map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let folder = |name: &str| {
            let value = env(name)?;
            let path = match (value.strip_prefix("~/"), env("HOME")) {
                (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
                _ => PathBuf::from(value),
            };
            Some(std::path::absolute(&path).unwrap_or(path))
        };
        let caches = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        let home = folder("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let cache = folder("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let token_file = folder("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
        let offline =
            |name| env(name).is_some_and(|v| ["1", "on", "yes", "true"].contains(&&*v.to_lowercase()));
        Ok(Settings {
            endpoint: endpoint(env("HF_ENDPOINT"))?,
            cache: cache.ok_or_else(|| {
                Error::invalid("no folder to keep downloads in: set HF_HOME (HOME is not set either)")
            })?,
            token: match env("HF_TOKEN") {
                Some(value) => Some(Token { value, origin: "HF_TOKEN".into() }),
                None => token_file.and_then(|file| {
                    let value = std::fs::read_to_string(&file).ok()?.trim().to_string();
                    (!value.is_empty()).then(|| Token { value, origin: file.display().to_string() })
                }),
            },
            offline: offline("HF_HUB_OFFLINE") || offline("TRANSFORMERS_OFFLINE"),
            timeout: timeout(env("HF_HUB_DOWNLOAD_TIMEOUT"))?,
        })
    }

    /// The endpoint for messages: without the name and password that may stand before its host.
    pub(crate) fn shown_endpoint(&self) -> String {
        without_secrets(&self.endpoint)
    }
}

fn endpoint(value: Option<String>) -> Result<String> {
    let given = value.unwrap_or_else(|| ENDPOINT.into());
    let url = given.trim_end_matches('/').to_string();
    let parsed = url.parse::<ureq::http::Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    match parsed {
        Some(_) => Ok(url),
        None => Err(Error::invalid(format!(
            "HF_ENDPOINT is {}, which is no http or https address; give it as {ENDPOINT}, or unset it",
            without_secrets(&given).escape_debug()
        ))),
    }
}

fn timeout(value: Option<String>) -> Result<Duration> {
    let Some(value) = value else { return Ok(Duration::from_secs(TIMEOUT)) };
    let seconds = value.parse::<f64>().ok().filter(|s| *s > 0.0 && *s <= 86400.0);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Error::invalid(format!(
            "HF_HUB_DOWNLOAD_TIMEOUT is {}, which is no number of seconds",
            value.escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Settings::read(&move |name| variables.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn variables_are_those_of_huggingface_hub() {
        let plain = read(&[("HOME", "/home/me"), ("HF_TOKEN", " "), ("HF_HUB_OFFLINE", "0")]).unwrap();
        assert_eq!(plain.endpoint, ENDPOINT);
        assert_eq!(plain.cache, PathBuf::from("/home/me/.cache/huggingface/hub"));
        assert_eq!((plain.token, plain.offline, plain.timeout), (None, false, Duration::from_secs(10)));
        let xdg = read(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(xdg.cache, PathBuf::from("/c/huggingface/hub"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().display().to_string();
        let all = [
            ("HOME", "/home/me"),
            ("HF_HOME", &home),
            ("HF_HUB_CACHE", "~/models"),
            ("HF_ENDPOINT", "http://me:secret@mirror:81/hub/"),
            ("HF_HUB_OFFLINE", "True"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0.5"),
        ];
        let all = read(&all).unwrap();
        assert_eq!(all.cache, PathBuf::from("/home/me/models"));
        assert_eq!(all.endpoint, "http://me:secret@mirror:81/hub");
        assert_eq!(all.shown_endpoint(), "http://mirror:81/hub");
        assert!(all.offline && all.timeout == Duration::from_millis(500));
        assert_eq!(all.token.as_ref().unwrap().value, "hf_file");
        assert!(!format!("{:?}", all.token).contains("hf_file"), "a token is never shown");
        let token = read(&[("HF_HOME", &home), ("HF_TOKEN", "hf_variable")]).unwrap().token.unwrap();
        assert_eq!((&*token.value, &*token.origin), ("hf_variable", "HF_TOKEN"));
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (name, value) in [
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_ENDPOINT", "ftp://x"),
            ("HF_ENDPOINT", "http://"),
            ("HF_ENDPOINT", "http://a b"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "NaN"),
        ] {
            let error = read(&[("HOME", "/h"), (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        assert!(read(&[]).unwrap_err().to_string().contains("HF_HOME"));
    }
}
