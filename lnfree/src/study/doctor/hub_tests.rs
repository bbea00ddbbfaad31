//! What the doctor says of the hub.

use super::*;
use crate::study::doctor::Status;
use std::net::TcpListener;
use std::path::PathBuf;

fn hub(variables: &[(&str, &str)]) -> Hub {
    // Without a home there is nowhere to keep downloads.
    let variables = [variables, &[("HOME", "/nowhere")]].concat();
    Hub::from_env(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()))
}

#[test]
fn addresses_are_taken_apart() {
    let at = |url: &str| host_and_port(url);
    let is = |host: &str, port| Some((host.to_string(), port));
    assert_eq!(at("https://huggingface.co"), is("huggingface.co", 443));
    assert_eq!(at("http://user:secret@mirror.local:8080/hf/?x=1"), is("mirror.local", 8080));
    assert_eq!(at("http://[::1]:9000"), is("::1", 9000));
    assert_eq!(at("http://[::1]"), is("::1", 80));
    assert_eq!(at("proxy:3128"), is("proxy", 3128));
    for bad in [
        "",
        "https://",
        "ftp://x",
        "http://:80",
        "http://x:port",
        "http://x:0",
        "http://x:99999",
        "http://a b",
        "http://[::1]x",
    ] {
        assert_eq!(at(bad), None, "{bad}");
    }
}

#[test]
fn an_endpoint_that_listens_answers_and_one_that_does_not_is_a_warning() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let check = hub(&[("HF_ENDPOINT", &endpoint)]).ask().check();
    assert_eq!(
        (check.status, check.detail),
        (Status::Ok, format!("{} takes connections", endpoint.trim_end_matches('/')))
    );
    drop(listener);
    let check = hub(&[("HF_ENDPOINT", &endpoint)]).ask().check();
    assert_eq!(check.status, Status::Warn);
    assert!(check.detail.contains("cannot be reached"), "{check}");
    assert!(check.advice.contains("HF_ENDPOINT"), "{check}");
}

#[test]
fn a_hub_that_never_answers_is_given_up() {
    let (_tell, answer) = channel();
    let asked = Instant::now() - PATIENCE;
    let check = Access::Asked { what: "https://x".into(), answer, since: asked }.check();
    assert_eq!((check.status, check.detail.as_str()), (Status::Warn, "https://x does not answer within 2 s"));
}

#[test]
fn offline_asks_nobody_and_a_bad_endpoint_is_named() {
    for yes in ["1", "true", "ON", "Yes"] {
        let check = hub(&[("HF_HUB_OFFLINE", yes), ("HF_ENDPOINT", "https://hub.invalid")]).ask().check();
        assert!(check.status == Status::Ok && check.detail.contains("HF_HUB_OFFLINE"), "{check}");
    }
    let bad = hub(&[("HF_HUB_OFFLINE", "0"), ("HF_ENDPOINT", "nonsense://x")]);
    let check = bad.ask().check();
    assert!(check.status == Status::Warn && check.detail.contains("HF_ENDPOINT is nonsense://x"), "{check}");
    assert!(bad.cache().detail.contains("see hub") && bad.token().detail.contains("see hub"));
}

#[test]
fn a_proxy_is_asked_in_the_hubs_place_unless_the_hub_is_spared() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let check = hub(&[("HF_ENDPOINT", "https://hub.invalid"), ("https_proxy", &proxy)]).ask().check();
    assert!(check.status == Status::Ok && check.detail.contains("the proxy 127.0.0.1:"), "{check}");
    let variables = [
        ("HF_ENDPOINT", "https://hub.invalid"),
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "x.y, .invalid"),
    ];
    assert_eq!(hub(&variables).proxy, None);
}

#[test]
fn cache_and_token_follow_the_variables() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let text = |path: PathBuf| path.display().to_string();
    let plain = hub(&[("HOME", &text(at("")))]);
    assert_eq!(plain.settings.as_ref().unwrap().cache, at(".cache/huggingface/hub"));
    assert!(plain.cache().detail.contains("(not made yet)"), "{}", plain.cache());
    assert!(plain.token().detail.starts_with("none"), "{}", plain.token());

    std::fs::write(at("token"), "hf_secret\n").unwrap();
    let own = hub(&[("HF_HOME", &text(at("")))]);
    assert_eq!(own.settings.as_ref().unwrap().cache, at("hub"));
    assert_eq!(own.token().detail, format!("found in {}", at("token").display()));
    let variable = hub(&[("HF_TOKEN", "hf_secret"), ("HF_HUB_CACHE", &text(at("elsewhere")))]);
    assert_eq!(variable.token().detail, "found in HF_TOKEN");
    assert_eq!(variable.settings.as_ref().unwrap().cache, at("elsewhere"));
    // A file in the way: no folder can be made below it, not even by root.
    let blocked = hub(&[("HF_HOME", &text(at("token")))]);
    assert_eq!(blocked.cache().status, Status::Warn, "{}", blocked.cache());
}

#[test]
fn a_password_in_an_address_is_not_shown() {
    let check = hub(&[("https_proxy", "socks5://user:pass@host:1")]).ask().check();
    assert_eq!(check.status, Status::Warn);
    assert!(!check.to_string().contains("pass"), "{check}");
}
