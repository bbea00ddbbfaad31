//! Addresses: their parts, where redirects lead, and what of them may be shown.

use ureq::Proxy;
use ureq::http::Uri;

/// An address without the name and password that may stand before its host.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |i| i + 3));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    format!("{scheme}{}{path}", authority.rsplit('@').next().unwrap_or_default())
}

/// The proxy of the environment, unless the hub is on this machine.
pub(super) fn proxy(endpoint: &str) -> Option<Proxy> {
    let host = endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(String::from)).unwrap_or_default();
    let here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    if here { None } else { Proxy::try_from_env() }
}

/// `"abc"`, `W/"abc"` → `abc`.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_string()
}

/// `scheme://host:port` of an address.
pub(super) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |i| i + 3);
    &url[..url[start..].find(['/', '?', '#']).map_or(url.len(), |i| start + i)]
}

/// Where `location`, absolute or relative, leads from `url`; None if it is no address, or leaves encryption
/// behind.
pub(super) fn joined(url: &str, location: &str) -> Option<String> {
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

/// A file's name as part of an address: slashes stay.
pub(super) fn encoded(file: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    file.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
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
        assert_eq!(encoded("data/é #1.txt"), "data/%C3%A9%20%231.txt");
        assert_eq!(without_secrets("https://user:pass@host:1/a@b"), "https://host:1/a@b");
        assert_eq!(without_secrets("https://host"), "https://host");
        assert_eq!(without_secrets("u:p@host"), "host");
    }
}
