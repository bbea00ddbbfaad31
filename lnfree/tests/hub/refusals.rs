//! Everything that a hub, a network or a name can be wrong with, in one line that says what to do.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use lnfree::hub::{Hub, Settings};

use super::faults::Fault;
use super::repo::{Access, GOOD_TOKEN, OTHER_TOKEN, Repo};
use super::server::{Server, token};
use super::{bytes, config, fetch, home, refusal, serve, single};

#[track_caller]
pub fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn no_such_repository() {
    let (server, home) = (serve(single()), home());
    let settings = server.settings(home.path());
    let message = refusal(&settings, "some/tyni");
    says(
        &message,
        &["model some/tyni", "no such file or folder", "no such repository", &server.endpoint, "HF_TOKEN"],
    );
    let message = refusal(&settings, "gpt2-small_LNFree30");
    says(&message, &["did you mean schaeff/gpt2-small_LNFree300?"]);
    let message = refusal(&settings, "gpt2");
    says(&message, &["gpt2 (openai-community/gpt2)"]);
    let known = Settings { token: token(OTHER_TOKEN), ..settings.clone() };
    says(&refusal(&known, "some/tyni"), &["the token in HF_TOKEN may not see it"]);
    says(&refusal(&settings, "some/tiny@v2"), &["some/tiny has no branch, tag or commit v2"]);
    // Nothing of it is left in the cache.
    assert!(!settings.cache.exists());
    server.requests();
    for path in ["./modle", "/no/such/model", "runs/a/b", "model.safetensors"] {
        says(&refusal(&settings, path), &[path, "no such file or folder", "ORG/NAME"]);
    }
    assert_eq!(server.requests(), [""; 0], "a path is nothing to tell a hub about");
}

#[test]
fn gated_private_and_tokens() {
    let (gated, private) =
        (Repo { access: Access::Gated, ..single() }, Repo { access: Access::Private, ..single() });
    let server = Server::start(&[("some/gated", gated), ("some/private", private)]);
    let home = home();
    let settings = server.settings(home.path());
    let with = |value: &str| Settings { token: token(value), ..settings.clone() };
    let conditions = format!("accept its conditions at {}/some/gated", server.endpoint);
    says(&refusal(&settings, "some/gated"), &["some/gated is gated", &conditions, "then set HF_TOKEN"]);
    says(&refusal(&with(OTHER_TOKEN), "some/gated"), &[&conditions, "the account of the token in HF_TOKEN"]);
    says(&refusal(&settings, "some/private"), &["no such repository", "private and HF_TOKEN is not set"]);
    says(&refusal(&with(OTHER_TOKEN), "some/private"), &["the token in HF_TOKEN may not see it"]);
    let wrong = refusal(&with("hf_secret_wrong"), "some/private");
    says(&wrong, &["does not accept the token in HF_TOKEN", "Invalid credentials", "settings/tokens"]);
    assert!(!wrong.contains("hf_secret_wrong"));
    says(&refusal(&with("hf_\u{7f}x"), "some/private"), &["the token in HF_TOKEN has a character"]);
    for name in ["some/gated", "some/private"] {
        assert!(Hub::new(with(GOOD_TOKEN)).model(name).unwrap().join("model.safetensors").is_file());
    }
}

#[test]
fn no_network() {
    let home = home();
    let server = serve(single());
    let to = |endpoint: String| Settings {
        endpoint,
        timeout: Duration::from_millis(300),
        ..server.settings(home.path())
    };
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = to(format!("http://{free}"));
    says(
        &refusal(&down, "some/tiny"),
        &["cannot reach http://127.0.0.1", "refuses connections", "HF_ENDPOINT"],
    );
    // The name may be a mistyped one of what is here.
    says(&refusal(&down, "nanp"), &["refuses connections", "(did you mean nano?)"]);
    assert!(!refusal(&down, "gpt2").contains("did you mean"));
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = to(format!("http://me:secret@{}", silent.local_addr().unwrap()));
    let message = refusal(&silent, "some/tiny");
    says(&message, &["cannot reach http://127.0.0.1", "no answer within 0.3 s", "HF_ENDPOINT"]);
    assert!(!message.contains("secret"));
    // What is cached needs no network; without a word about the tokenizer, the cache is used all the same.
    let folder = fetch(&server.settings(home.path()));
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    assert_eq!(fetch(&down), folder);
    let offline = Settings { offline: true, ..down.clone() };
    assert_eq!(fetch(&offline), folder);
    server.requests();
    let message = refusal(&offline, "some/other");
    says(&message, &["some/other", "HF_HUB_OFFLINE is set", &home.path().display().to_string()]);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn endpoints_that_are_no_hub() {
    let (server, home) = (serve(single()), home());
    let to = |path: &str| Settings {
        endpoint: format!("{}/{path}", server.endpoint),
        ..server.settings(home.path())
    };
    says(&refusal(&to("loop"), "some/tiny"), &["redirects some/tiny more than 10 times", "HF_ENDPOINT"]);
    says(&refusal(&to("portal"), "some/tiny"), &["does not answer like a hub", "login", "HF_ENDPOINT"]);
    says(&refusal(&to("nothing/here"), "some/tiny"), &["no such repository at", "/nothing/here"]);
    server.fault("listing", Fault::Status(503), 100);
    says(&refusal(&server.settings(home.path()), "some/tiny"), &["in trouble", "503", "try again later"]);
    server.fault("model.safetensors", Fault::Status(403), 100);
    server.fault("listing", Fault::Status(503), 0);
    says(&refusal(&server.settings(home.path()), "some/tiny"), &["sends for model.safetensors, answers 403"]);
    server.fault("listing", Fault::Status(418), 100);
    says(&refusal(&server.settings(home.path()), "some/tiny"), &["418", "HF_ENDPOINT"]);
}

#[test]
fn repositories_that_are_no_model() {
    let llama = br#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}"#;
    let weights = || ("model.safetensors", bytes("tiny-a/model.safetensors"));
    let index =
        |map: &str| ("model.safetensors.index.json", format!("{{\"weight_map\": {map}}}").into_bytes());
    let server = Server::start(&[
        ("no/weights", Repo::new(&[config(), ("README.md", vec![])])),
        ("no/config", Repo::new(&[weights()])),
        ("no/gpt2", Repo::new(&[("config.json", llama.to_vec()), weights()])),
        ("no/json", Repo::new(&[("config.json", b"<html>".to_vec()), weights()])),
        ("no/shard", Repo::new(&[config(), index(r#"{"wte.weight": "model-00001-of-00002.safetensors"}"#)])),
        ("no/inside", Repo::new(&[config(), index(r#"{"wte.weight": "../../../x.safetensors"}"#)])),
        ("no/map", Repo::new(&[config(), index("[]")])),
        ("no/files", Repo::new(&[])),
        ("no/name", Repo { commit: "../../../../tmp".into(), ..single() }),
    ]);
    let home = home();
    let settings = server.settings(home.path());
    for (name, words) in [
        (
            "no/weights",
            &["no/weights has no weights", "model.safetensors", "it has README.md, config.json"][..],
        ),
        ("no/config", &["has no config.json", "it has model.safetensors"]),
        ("no/gpt2", &["no/gpt2: its config.json", "llama"]),
        ("no/json", &["no/json: its config.json", "JSON"]),
        ("no/shard", &["lists model-00001-of-00002.safetensors, which the repository does not have"]),
        ("no/inside", &["names a shard `../../../x.safetensors`"]),
        ("no/map", &["is not an index of shards"]),
        ("no/files", &["has no config.json", "it has nothing"]),
        ("no/name", &["does not answer like a hub", "the commit"]),
    ] {
        says(&refusal(&settings, name), words);
    }
    assert!(server.requests().iter().all(|r| !r.contains("GET cdn")), "no weights are fetched in vain");
    let message = Hub::new(settings).tokenizer("no/weights").unwrap_err().to_string();
    says(&message, &["no/weights has no tokenizer"]);
}

#[test]
fn too_much_for_the_disk_or_the_announcement() {
    let (server, home) = (serve(single()), home());
    let settings = server.settings(home.path());
    server.fault("tokenizer.json", Fault::Longer, 100);
    says(&refusal(&settings, "some/tiny"), &["sends more of tokenizer.json than the"]);
    let root = settings.cache.join("models--some--tiny/blobs");
    let kept = |(name, bytes): &(String, Vec<u8>)| name.contains("incomplete") && !bytes.is_empty();
    assert!(!super::content(&root).iter().any(kept), "nothing of it is kept");
    // A petabyte, before a byte of it is fetched.
    let huge = Repo { large: 1 << 50, ..single() };
    let big = Server::start(&[("some/tiny", huge)]);
    let message = refusal(&Settings { endpoint: big.endpoint.clone(), ..settings.clone() }, "some/tiny");
    says(&message, &["some/tiny needs 1.00 PiB more in", "are free", "HF_HOME"]);
    assert!(big.requests().iter().all(|r| !r.contains("GET cdn")));
    // A folder that cannot be one.
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    server.fault("tokenizer.json", Fault::Longer, 0);
    let message = refusal(&Settings { cache: file.join("hub"), ..settings }, "some/tiny");
    says(&message, &["cannot be written", "HF_HOME"]);
}

#[test]
fn a_server_that_stays_silent_ends_the_wait() {
    let (server, home) = (serve(single()), home());
    let settings = Settings { timeout: Duration::from_millis(100), ..server.settings(home.path()) };
    server.fault("model.safetensors", Fault::Stall(0), 100);
    says(&refusal(&settings, "some/tiny"), &["no answer within 0.1 s"]);
}
