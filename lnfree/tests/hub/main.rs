//! Models and data sets from a hub: one on 127.0.0.1 that the tests start, spoken to by the library and by
//! the real binary.

#[path = "../common/faults.rs"]
mod calls;
mod command;
mod datasets;
mod download;
mod faults;
mod push;
mod refusals;
mod repo;
mod server;
mod uploads;
mod wire;

use std::path::{Path, PathBuf};

use lnfree::hub::{Hub, Settings};
use repo::Repo;
use server::Server;

/// A file of the vectors.
fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(vector(name)).unwrap()
}

/// A file of the embedded model's folder.
fn nano(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/nano").join(name)).unwrap()
}

fn config() -> (&'static str, Vec<u8>) {
    ("config.json", bytes("tiny-a/config.json"))
}

/// A model in one file, with a tokenizer, and with files that nobody needs.
fn single() -> Repo {
    Repo::new(&[
        config(),
        ("model.safetensors", bytes("tiny-a/model.safetensors")),
        ("tokenizer.json", nano("tokenizer.json")),
        ("generation_config.json", b"{}".to_vec()),
        ("README.md", b"# tiny".to_vec()),
        ("pytorch_model.bin", b"not to be downloaded".to_vec()),
    ])
}

/// The same weights in two shards.
fn sharded() -> Repo {
    let weights = lnfree::model::weights::read_weights(&vector("tiny-a/model.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![config()];
    let mut map = serde_json::Map::new();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    for (half, shard) in names.iter().enumerate() {
        let part: Vec<_> =
            weights.iter().enumerate().filter(|(i, _)| i % 2 == half).map(|(_, pair)| pair).collect();
        map.extend(part.iter().map(|(name, _)| (name.to_string(), (*shard).into())));
        let part = part.into_iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        lnfree::model::weights::write_safetensors(&folder.path().join(shard), &part, &Default::default())
            .unwrap();
        files.push((shard, std::fs::read(folder.path().join(shard)).unwrap()));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    files.push(("model.safetensors.index.json", index.to_string().into()));
    Repo::new(&files)
}

fn serve(repo: Repo) -> Server {
    Server::start(&[("some/tiny", repo)])
}

/// A folder for a cache.
fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn fetch(settings: &Settings) -> PathBuf {
    Hub::new(settings.clone()).model("some/tiny").unwrap()
}

#[track_caller]
fn refusal(settings: &Settings, name: &str) -> String {
    let message = Hub::new(settings.clone()).model(name).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// Names and contents of the files in a folder.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Names in the folder of blobs.
fn blobs(settings: &Settings) -> Vec<String> {
    content(&settings.cache.join("models--some--tiny/blobs")).into_iter().map(|(name, _)| name).collect()
}
