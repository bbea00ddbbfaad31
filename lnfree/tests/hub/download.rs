//! What arrives, in which requests, and what becomes of interruptions and damage.

use std::fs;
use std::time::Duration;

use lnfree::hub::Hub;
use lnfree::model::weights::read_weights;

use super::faults::Fault;
use super::repo::Repo;
use super::server::token;
use super::{blobs, bytes, config, content, fetch, home, nano, refusal, serve, sharded, single, vector};

const WEIGHTS: &str = "model.safetensors";

#[test]
fn a_model_arrives_in_the_layout_that_python_shares() {
    let (server, home, repo) = (serve(single()), home(), single());
    let settings = server.settings(home.path());
    let folder = fetch(&settings);
    let root = settings.cache.join("models--some--tiny");
    assert_eq!(folder, root.join("snapshots").join(&repo.commit));
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), repo.commit);
    let names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
    let expected: Vec<_> = names.iter().map(|name| (name.to_string(), repo.files[*name].clone())).collect();
    assert_eq!(content(&folder), expected);
    for name in names {
        let target = fs::read_link(folder.join(name)).unwrap();
        assert!(target.starts_with("../../blobs"), "{}", target.display());
    }
    // A large file is named by its SHA-256, a small one by git's hash (`git hash-object` of this config says
    // the same).
    let weights = fs::read_link(folder.join(WEIGHTS)).unwrap();
    assert_eq!(weights.file_name().unwrap().len(), 64);
    let config = fs::read_link(folder.join("config.json")).unwrap();
    assert_eq!(config.file_name().unwrap(), "f976817061b94599811fb8430b0e9ccffa763e75");
    assert!(root.join(".no_exist").join(&repo.commit).join("vocab.json").is_file());
    assert!(blobs(&settings).iter().all(|name| !name.contains("incomplete")));

    let requests = server.requests();
    assert!(requests[0].starts_with("GET hub /api/models/some/tiny/revision/main"), "{requests:?}");
    assert!(requests.iter().any(|r| r.starts_with("GET cdn /some/tiny/model.safetensors?signature=1")));
    assert!(
        requests.iter().all(|r| !r.contains("pytorch_model.bin") && !r.contains("README")),
        "{requests:?}"
    );
    // Again, now that it is there: not one request, online or offline, by branch or by commit.
    let by_commit = format!("some/tiny@{}", repo.commit);
    for (offline, name) in [(false, "some/tiny"), (true, "some/tiny"), (true, &by_commit)] {
        let hub = Hub::new(lnfree::hub::Settings { offline, ..settings.clone() });
        assert_eq!(hub.model(name).unwrap(), folder);
        assert_eq!(hub.tokenizer(name).unwrap(), folder);
    }
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn shards_and_pickles_arrive_too() {
    let (server, home) = (serve(sharded()), home());
    let settings = server.settings(home.path());
    let folder = fetch(&settings);
    let (found, expected) = (read_weights(&folder).unwrap(), read_weights(&vector("tiny-a")).unwrap());
    assert_eq!(found, expected);
    server.requests();
    fetch(&settings);
    assert_eq!(server.requests(), [""; 0], "no tokenizer in the repository is nothing to ask about again");
    // A shard that was lost is brought again, and nothing else is.
    fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    fs::remove_file(fs::canonicalize(folder.join("model-00001-of-00002.safetensors")).unwrap()).unwrap();
    assert_eq!(fetch(&settings), folder);
    assert_eq!(read_weights(&folder).unwrap(), expected);
    let loads = server.requests().into_iter().filter(|r| r.starts_with("GET cdn")).collect::<Vec<_>>();
    assert_eq!(loads, ["GET cdn /some/tiny/model-00001-of-00002.safetensors?signature=1"]);

    let pickle = bytes("checkpoint/step30/pytorch_model.bin");
    let (server, home) = (serve(Repo::new(&[config(), ("pytorch_model.bin", pickle)])), super::home());
    let folder = fetch(&server.settings(home.path()));
    assert!(read_weights(&folder).unwrap().contains_key("wte.weight"));
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let (server, home) = (serve(single()), home());
    let settings = server.settings(home.path());
    // Within one call: three connections, each of which brings a part.
    server.fault(WEIGHTS, Fault::Cut(100_000), 2);
    let folder = fetch(&settings);
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), bytes("tiny-a/model.safetensors"));
    let loads: Vec<_> = server.requests().into_iter().filter(|r| r.starts_with("GET cdn")).collect();
    let load = "GET cdn /some/tiny/model.safetensors?signature=1";
    assert_eq!(loads, [load, &format!("{load} range=100000"), &format!("{load} range=200000")]);

    // From one call to the next: what an earlier process left is used.
    let home = super::home();
    let settings = server.settings(home.path());
    server.fault(WEIGHTS, Fault::Cut(0), 100);
    fs::create_dir_all(settings.cache.join("models--some--tiny/blobs")).unwrap();
    let etag = fs::read_link(folder.join(WEIGHTS)).unwrap().file_name().unwrap().to_owned();
    let part = settings.cache.join("models--some--tiny/blobs").join(&etag).with_extension("incomplete");
    fs::write(&part, &bytes("tiny-a/model.safetensors")[..300_000]).unwrap();
    let message = refusal(&settings, "some/tiny");
    assert!(message.contains("model.safetensors to its end (300000 of 686000 bytes)"), "{message}");
    assert_eq!(fs::metadata(&part).unwrap().len(), 300_000);
    // Not even half a model is taken for one.
    assert!(
        refusal(&lnfree::hub::Settings { offline: true, ..settings.clone() }, "some/tiny")
            .contains("OFFLINE")
    );
    server.fault(WEIGHTS, Fault::Cut(0), 0);
    server.requests();
    let folder = fetch(&settings);
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), bytes("tiny-a/model.safetensors"));
    assert!(server.requests().iter().any(|r| r.ends_with("range=300000")));
    assert!(!part.exists());
}

#[test]
fn a_server_that_knows_no_ranges_is_served_from_the_start() {
    let (server, home) = (serve(single()), home());
    let settings = server.settings(home.path());
    let blobs = settings.cache.join("models--some--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", weights_sum())), &bytes("tiny-a/model.safetensors")[..7])
        .unwrap();
    server.fault(WEIGHTS, Fault::IgnoreRange, 1);
    let folder = fetch(&settings);
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), bytes("tiny-a/model.safetensors"));
    let loads: Vec<_> = server.requests().into_iter().filter(|r| r.starts_with("GET cdn")).collect();
    assert_eq!(loads, ["GET cdn /some/tiny/model.safetensors?signature=1 range=7"]);
}

fn weights_sum() -> String {
    lnfree::atomic::sha256_file(&vector("tiny-a/model.safetensors")).unwrap()
}

#[test]
fn what_arrives_damaged_is_never_used() {
    for file in [WEIGHTS, "tokenizer.json", "config.json"] {
        let (server, home) = (serve(single()), home());
        let settings = server.settings(home.path());
        server.fault(file, Fault::Flip, 100);
        let message = refusal(&settings, "some/tiny");
        assert!(message.contains("damaged") && message.contains(file), "{message}");
        assert!(message.contains("should be"), "{message}");
        let snapshot = settings.cache.join("models--some--tiny/snapshots").join(single().commit);
        assert!(!snapshot.join(file).exists());
        assert!(blobs(&settings).iter().all(|name| !name.contains("incomplete")), "{:?}", blobs(&settings));
        // When the way is whole again, so is the file.
        server.fault(file, Fault::Flip, 0);
        assert_eq!(fs::read(fetch(&settings).join(file)).unwrap(), single().files[file]);
    }
}

#[test]
fn a_damaged_beginning_is_thrown_away() {
    let (server, home) = (serve(single()), home());
    let settings = server.settings(home.path());
    for beginning in [vec![0; 300_000], vec![0; 686_000], vec![0; 700_000]] {
        let part = settings.cache.join(format!("models--some--tiny/blobs/{}.incomplete", weights_sum()));
        let _ = fs::remove_dir_all(&settings.cache);
        fs::create_dir_all(part.parent().unwrap()).unwrap();
        fs::write(&part, beginning).unwrap();
        let folder = fetch(&settings);
        assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), bytes("tiny-a/model.safetensors"));
    }
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let (server, home) = (serve(single()), home());
    let settings = server.settings(home.path());
    server.fault("listing", Fault::Status(503), 1);
    // As a CDN does when the signature is too old.
    server.fault(WEIGHTS, Fault::Status(403), 2);
    server.fault("tokenizer.json", Fault::Slow, 1);
    fetch(&settings);
    // A connection that falls silent is given up, and the next one goes on.
    let home = super::home();
    let settings = lnfree::hub::Settings { timeout: Duration::from_secs(2), ..server.settings(home.path()) };
    server.fault(WEIGHTS, Fault::Stall(50_000), 1);
    server.requests();
    let folder = fetch(&settings);
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), bytes("tiny-a/model.safetensors"));
    assert!(server.requests().iter().any(|r| r.ends_with("range=50000")));
}

#[test]
fn two_at_once_download_once() {
    let (server, home) = (serve(sharded()), home());
    let settings = server.settings(home.path());
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        server.fault(shard, Fault::Slow, 1);
    }
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(&settings))).collect();
        for other in others {
            let folder = other.join().unwrap();
            assert_eq!(read_weights(&folder).unwrap(), read_weights(&vector("tiny-a")).unwrap());
        }
    });
    let loads = server.requests().into_iter().filter(|r| r.starts_with("GET cdn")).count();
    assert_eq!(loads, 2, "each shard comes once");
}

#[test]
fn revisions_renamed_repositories_and_tokenizers_alone() {
    let (server, home) = (serve(single()), home());
    let settings =
        lnfree::hub::Settings { token: token(super::repo::GOOD_TOKEN), ..server.settings(home.path()) };
    let hub = Hub::new(settings.clone());
    let folder = hub.tokenizer("some/tiny").unwrap();
    assert!(folder.join("tokenizer.json").is_file() && !folder.join(WEIGHTS).exists());
    let requests = server.requests();
    assert!(requests.iter().all(|r| r.contains(" hub ") && r.ends_with(" auth")), "{requests:?}");
    assert_eq!(hub.model("some/tiny@v1").unwrap(), folder);
    assert!(settings.cache.join("models--some--tiny/refs/v1").is_file());
    // The token goes to the hub and never to its CDN, which refuses it.
    assert!(server.requests().iter().all(|r| r.contains(" hub ") == r.ends_with(" auth")));
    let old = hub.model("old/name").unwrap();
    assert!(old.starts_with(settings.cache.join("models--old--name")));
    assert_eq!(content(&old), content(&folder));
    assert_eq!(nano("tokenizer.json"), fs::read(old.join("tokenizer.json")).unwrap());
}

#[test]
fn every_file_of_a_tokenizer_comes() {
    let names = lnfree::data::tokenizer::TOKENIZER_FILES;
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (*name, name.as_bytes().to_vec())).collect();
    let (server, home) = (serve(super::repo::Repo::new(&files)), home());
    let folder = Hub::new(server.settings(home.path())).tokenizer("some/tiny").unwrap();
    for name in names {
        assert_eq!(fs::read(folder.join(name)).unwrap(), name.as_bytes());
    }
    assert!(names.contains(&"added_tokens.json"));
}
