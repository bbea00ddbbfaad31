//! Pushing a model: the bytes that arrive, what is sent again after trouble and what is not, and every
//! refusal.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lnfree::hub::{Hub, PushOptions, Pushed, Settings};

use super::faults::Fault;
use super::refusals::says;
use super::repo::{GOOD_TOKEN, OTHER_TOKEN};
use super::server::{Server, token};
use super::{bytes, content, home, nano, serve, single};

const WEIGHTS: &str = "model.safetensors";

/// A folder with a model as `export` writes it.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("config.json", bytes("tiny-a/config.json")),
        (WEIGHTS, bytes("tiny-a/model.safetensors")),
        ("tokenizer.json", nano("tokenizer.json")),
        ("generation_config.json", b"{}".to_vec()),
        ("README.md", b"---\ntags: [gpt2]\n---\n# tiny\n".to_vec()),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn writing(server: &Server, home: &Path) -> Settings {
    Settings { token: token(GOOD_TOKEN), ..server.settings(home) }
}

#[track_caller]
fn push(settings: &Settings, folder: &Path) -> Pushed {
    Hub::new(settings.clone()).push(folder, "me/tiny", &PushOptions::default()).unwrap()
}

#[track_caller]
fn refusal(settings: &Settings, folder: &Path, repo: &str) -> String {
    let error =
        Hub::new(settings.clone()).push(folder, repo, &PushOptions::default()).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// The files of the repository are those of the folder, beside what it has had.
#[track_caller]
fn arrived(server: &Server, folder: &Path) {
    let mut files = server.files("me/tiny");
    assert!(files.remove(".gitattributes").is_some());
    assert_eq!(files.into_iter().collect::<Vec<_>>(), content(folder));
}

#[test]
fn a_model_arrives_and_comes_back() {
    let (server, home, folder) = (serve(single()), home(), model());
    let settings = writing(&server, home.path());
    fs::write(folder.path().join(".hidden"), "not to be pushed").unwrap();
    let pushed = push(&settings, folder.path());
    fs::remove_file(folder.path().join(".hidden")).unwrap();
    arrived(&server, folder.path());
    assert_eq!(pushed.url, format!("{}/me/tiny", server.endpoint));
    assert_eq!(
        pushed.changed,
        ["README.md", "config.json", "generation_config.json", WEIGHTS, "tokenizer.json"]
    );
    assert_eq!(pushed.sent, 686_000);
    let requests = server.requests();
    assert_eq!(requests.len(), 6, "create, preupload, batch, upload, verify, commit: {requests:?}");
    assert!(
        requests.iter().all(|r| r.contains(" hub ") == r.ends_with(" auth")),
        "the store sees no token: {requests:?}"
    );
    assert_eq!(
        server.commits()[0]["summary"],
        concat!("Upload model with lnfree ", env!("CARGO_PKG_VERSION"))
    );
    // Everybody can load it now.
    let back = Hub::new(server.settings(home.path())).model("me/tiny").unwrap();
    assert!(back.ends_with(&pushed.commit));
    for name in [WEIGHTS, "config.json", "tokenizer.json"] {
        assert_eq!(fs::read(back.join(name)).unwrap(), fs::read(folder.path().join(name)).unwrap());
    }

    // Again: nothing is sent, and there is no second commit.
    server.requests();
    let again = push(&settings, folder.path());
    assert_eq!(again, Pushed { changed: vec![], sent: 0, ..pushed.clone() });
    assert!(server.requests().iter().all(|r| !r.contains("/lfs/") && !r.contains("/commit/")));
    // One file that changed is a commit of that file.
    fs::write(folder.path().join("README.md"), "---\n---\n# better\n").unwrap();
    let options = PushOptions {
        message: Some("Card\n\nMore of it.".into()),
        revision: Some("main".into()),
        private: true,
    };
    let third = Hub::new(settings.clone()).push(folder.path(), "me/tiny", &options).unwrap();
    assert_eq!((third.changed, third.sent), (vec!["README.md".to_string()], 0));
    assert_ne!(third.commit, pushed.commit);
    assert_eq!(server.commits()[1], serde_json::json!({ "summary": "Card", "description": "More of it." }));
    arrived(&server, folder.path());
}

#[test]
fn a_private_repository_is_for_its_owner() {
    let (server, home, folder) = (serve(single()), home(), model());
    let settings = writing(&server, home.path());
    let options = PushOptions { private: true, ..PushOptions::default() };
    Hub::new(settings.clone()).push(folder.path(), "me/tiny", &options).unwrap();
    let error = Hub::new(server.settings(home.path())).model("me/tiny").unwrap_err().to_string();
    says(&error, &["no such repository"]);
    Hub::new(settings).model("me/tiny").unwrap();
}

#[test]
fn parts_are_sent_again_one_by_one() {
    let (server, home, folder) = (serve(single()), home(), model());
    let settings = writing(&server, home.path());
    server.in_parts_of(100_000);
    server.fault("part 3", Fault::Cut(30_000), 2);
    server.fault("part 5", Fault::Status(503), 1);
    server.fault("part 7", Fault::Mute, 1);
    push(&settings, folder.path());
    arrived(&server, folder.path());
    let requests = server.requests();
    let puts: Vec<_> =
        requests.iter().filter_map(|r| r.strip_prefix("PUT cdn ")?.split(['/', '?']).nth(3)).collect();
    assert_eq!(puts, ["1", "2", "3", "3", "3", "4", "5", "5", "6", "7", "7"]);
    let batches = |requests: &[String]| requests.iter().filter(|r| r.contains("/objects/batch")).count();
    assert_eq!(batches(&requests), 1);

    // Addresses that hold no longer: asked for anew, and all parts go there.
    let (server, home) = (serve(single()), super::home());
    server.in_parts_of(400_000);
    server.fault("part 2", Fault::Status(403), 1);
    push(&writing(&server, home.path()), folder.path());
    arrived(&server, folder.path());
    let requests = server.requests();
    assert_eq!((batches(&requests), requests.iter().filter(|r| r.contains("PUT")).count()), (2, 4));

    // A hub that takes its time to put parts together, and one whose word of it gets lost.
    for fault in [Fault::Slow, Fault::Mute, Fault::Status(503)] {
        let (server, home) = (serve(single()), super::home());
        let settings = Settings { timeout: Duration::from_millis(500), ..writing(&server, home.path()) };
        server.in_parts_of(400_000);
        server.fault("complete", fault, 1);
        assert_eq!(push(&settings, folder.path()).sent, 686_000);
        arrived(&server, folder.path());
        assert_eq!(server.requests().iter().filter(|r| r.contains("PUT")).count(), 2, "{fault:?}");
    }

    // Parts that are never put together are given up.
    let (server, home) = (serve(single()), super::home());
    server.in_parts_of(400_000);
    server.fault("complete", Fault::Status(400), 100);
    let message = refusal(&writing(&server, home.path()), folder.path(), "me/tiny");
    says(&message, &["me/tiny: model.safetensors was sent in parts that the hub does not put together: 400"]);
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let folder = model();
    for fault in [Fault::Status(503), Fault::Mute, Fault::Cut(0)] {
        let (server, home) = (serve(single()), home());
        for step in ["create", "preupload", "batch", "upload", "verify", "commit"] {
            server.fault(step, fault, 1);
        }
        push(&writing(&server, home.path()), folder.path());
        arrived(&server, folder.path());
    }
    let (server, home) = (serve(single()), home());
    server.fault("upload", Fault::Cut(300_000), 2);
    server.fault("commit", Fault::Cut(1000), 1);
    push(&writing(&server, home.path()), folder.path());
    arrived(&server, folder.path());
}

#[test]
fn an_interrupted_push_goes_on_where_it_stopped() {
    let (server, home, folder) = (serve(single()), home(), model());
    let settings = writing(&server, home.path());
    server.fault("commit", Fault::Status(500), 100);
    let message = refusal(&settings, folder.path(), "me/tiny");
    says(&message, &["in trouble", "500", "a commit for me/tiny", "push again later"]);
    assert_eq!(server.files("me/tiny").len(), 1, "all of it or nothing");
    server.fault("commit", Fault::Status(500), 0);
    server.requests();
    assert_eq!(push(&settings, folder.path()).sent, 0);
    arrived(&server, folder.path());
    assert!(server.requests().iter().all(|r| !r.starts_with("PUT")), "the weights are there");
    // Cut for good in the middle of the weights.
    let (server, home) = (serve(single()), super::home());
    server.fault("upload", Fault::Cut(300_000), 100);
    let message = refusal(&writing(&server, home.path()), folder.path(), "me/tiny");
    says(&message, &["me/tiny: cannot reach http://127.0.0.1", "push again"]);
    assert_eq!(server.files("me/tiny").len(), 1);
}

#[test]
fn who_may_not_write_is_told_what_to_do() {
    let (server, home, folder) = (serve(single()), home(), model());
    let settings = writing(&server, home.path());
    let with = |value: &str| Settings { token: token(value), ..settings.clone() };
    let none = Settings { token: None, ..settings.clone() };
    says(
        &refusal(&none, folder.path(), "me/tiny"),
        &["cannot push to me/tiny without a token", "HF_TOKEN", "hf auth login"],
    );
    let offline = Settings { offline: true, ..settings.clone() };
    says(&refusal(&offline, folder.path(), "me/tiny"), &["cannot push to me/tiny", "HF_HUB_OFFLINE is set"]);
    for name in ["tiny", "me/tiny@v1", "./me/tiny", "me/ti ny"] {
        says(&refusal(&settings, folder.path(), name), &[&format!("cannot push to {name}"), "ORG/NAME"]);
        assert!(Hub::new(settings.clone()).check_push(name).is_err());
    }
    Hub::new(settings.clone()).check_push("me/tiny").unwrap();
    let empty = tempfile::tempdir().unwrap();
    says(
        &refusal(&settings, empty.path(), "me/tiny"),
        &["holds no model to push", &empty.path().display().to_string()],
    );
    says(&refusal(&settings, &empty.path().join("no"), "me/tiny"), &["holds no model to push"]);
    assert_eq!(server.requests(), [""; 0], "nobody was asked so far");

    let wrong = refusal(&with("hf_secret_wrong"), folder.path(), "me/tiny");
    says(&wrong, &["does not accept the token in HF_TOKEN", "Invalid credentials", "write access"]);
    assert!(!wrong.contains("hf_secret_wrong"));
    let reader = refusal(&with(OTHER_TOKEN), folder.path(), "me/tiny");
    says(
        &reader,
        &["the token in HF_TOKEN may not write to me/tiny", "You need the role write", "settings/tokens"],
    );
    // May not make one, and may not write to what is there either.
    says(&refusal(&with(OTHER_TOKEN), folder.path(), "some/tiny"), &["may not write to some/tiny"]);
    says(&refusal(&settings, folder.path(), "theirs/tiny"), &["may not write to theirs/tiny"]);
    // May not make repositories, and may write to this one.
    push(&settings, folder.path());
    server.fault("create", Fault::Status(403), 1);
    fs::write(folder.path().join("README.md"), "---\n---\n").unwrap();
    assert_eq!(push(&settings, folder.path()).changed, ["README.md"]);
    assert_eq!(server.files("some/tiny"), single().files, "nothing was written elsewhere");
}

#[test]
fn what_the_hub_does_not_take() {
    let (server, home, folder) = (serve(single()), home(), model());
    let settings = Settings { timeout: Duration::from_secs(2), ..writing(&server, home.path()) };
    let branch = PushOptions { revision: Some("v9".into()), ..PushOptions::default() };
    let error = Hub::new(settings.clone()).push(folder.path(), "me/tiny", &branch).unwrap_err().to_string();
    says(&error, &["me/tiny has no branch v9"]);
    says(&refusal(&settings, folder.path(), "old/name"), &["old/name has another name now", "/some/tiny"]);
    fs::write(folder.path().join("README.md"), "# no front matter").unwrap();
    says(
        &refusal(&settings, folder.path(), "me/tiny"),
        &["refuses a commit for me/tiny", "400", "Invalid metadata"],
    );
    fs::write(folder.path().join("debug.log"), "ignored").unwrap();
    fs::write(folder.path().join("README.md"), "---\n---\n").unwrap();
    let pushed = push(&settings, folder.path());
    assert!(
        pushed.changed.contains(&"README.md".to_string())
            && !pushed.changed.contains(&"debug.log".to_string())
    );
    let portal = Settings { endpoint: format!("{}/portal", server.endpoint), ..settings.clone() };
    says(&refusal(&portal, folder.path(), "me/tiny"), &["refuses a new repository for me/tiny", "404"]);
    let nobody = Settings { endpoint: "http://127.0.0.1:1".into(), ..settings.clone() };
    says(
        &refusal(&nobody, folder.path(), "me/tiny"),
        &["cannot reach http://127.0.0.1:1", "refuses connections"],
    );
    // The weights change between hashing and sending: what came is not what was announced.
    server.fault("verify", Fault::Status(422), 1);
    fs::write(folder.path().join(WEIGHTS), vec![7; 1000]).unwrap();
    says(&refusal(&settings, folder.path(), "me/tiny"), &["refuses a large file for me/tiny", "422"]);
}
