//! Data sets of a hub when something is in the way: interruptions, no network, several processes, and what
//! cannot be prepared.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array};
use predicates::prelude::*;
use predicates::str::contains;

use super::hub_sets::{Place, found, parquet, small_owt, strings, texts};
use super::repo::{Access, Repo};
use super::{data, table};

const OWT: &str = "datasets/Skylion007/openwebtext";

/// Fails with one line that has these words.
fn refused(place: &Place, name: &str, words: &str) {
    let nano = data("nano");
    let args = ["data", "prepare", name, "--block-size", "16", "--tokenizer", nano.to_str().unwrap()];
    let one_line = predicate::function(|text: &str| text.lines().count() == 1);
    place.command(&args).assert().code(1).stderr(contains(words).and(one_line));
}

#[test]
fn an_interrupted_preparation_goes_on_with_the_files_it_has() {
    let place = Place::new(&[(OWT, small_owt())]);
    let last = "plain_text/train-00003-of-00004.parquet";
    let nano = data("nano");
    let args =
        ["data", "prepare", "openwebtext", "--block-size", "16", "--tokenizer", nano.to_str().unwrap()];
    let parts = || -> Vec<PathBuf> {
        let folder = place.home.path().join("lnfree/openwebtext").join(small_owt().commit);
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut parts: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        parts.sort();
        parts
    };
    let whole = place.prepare("openwebtext", &["--block-size", "8"]);
    assert_eq!(parts().len(), 4);
    // As after a kill: two files are missing, one is damaged.
    std::fs::remove_file(&parts()[0]).unwrap();
    let damaged = parts()[0].clone();
    std::fs::write(&damaged, &std::fs::read(&damaged).unwrap()[..20]).unwrap();
    place.fetched();
    place.command(&args).assert().success();
    let fetched = place.fetched();
    let of = |file: &str| fetched.iter().filter(|l| l.starts_with("GET cdn") && l.contains(file)).count();
    assert!(of("train-00000") > 1 && of("train-00001") > 1, "{fetched:#?}");
    assert_eq!((of("train-00002"), of("train-00003")), (1, 1), "only their footers");

    // A file whose footer is right and whose pages are not: what came before it is kept.
    parts().iter().for_each(|part| std::fs::remove_file(part).unwrap());
    std::fs::remove_file(&whole).unwrap();
    let good = small_owt().files[last].clone();
    let footer = u32::from_le_bytes(good[good.len() - 8..][..4].try_into().unwrap()) as usize;
    let mut bad = good.clone();
    let pages = bad.len() - 8 - footer;
    bad[4..pages].fill(0xff);
    place.server.replace(OWT, last, &bad);
    let args = ["data", "prepare", "openwebtext", "--block-size", "8", "--tokenizer", nano.to_str().unwrap()];
    place.command(&args).assert().code(1).stderr(contains("train-00003-of-00004.parquet: the Parquet file"));
    assert_eq!(parts().len(), 3);
    place.server.replace(OWT, last, &good);
    place.fetched();
    assert_eq!(place.prepare("openwebtext", &["--block-size", "8"]), whole);
    let fetched = place.fetched();
    assert_eq!(fetched.iter().filter(|l| l.starts_with("GET cdn") && l.contains("train-00000")).count(), 1);
}

#[test]
fn what_was_prepared_is_found_without_a_network() {
    let place = Place::new(&[(OWT, small_owt())]);
    let path = place.prepare("openwebtext", &["--block-size", "16"]);
    let nano = data("nano");
    let args =
        ["data", "prepare", "openwebtext", "--block-size", "16", "--tokenizer", nano.to_str().unwrap()];
    let printed = contains(path.to_str().unwrap());
    place.command(&args).env("HF_HUB_OFFLINE", "1").assert().success().stdout(printed.clone());
    place.command(&args).env("HF_ENDPOINT", "http://127.0.0.1:1").assert().success().stdout(printed.clone());
    // Nothing of the hub is left but the prepared file.
    std::fs::remove_dir_all(place.home.path().join("hf")).unwrap();
    let using = contains("using what was prepared before");
    let offline = place.command(&args).env("HF_HUB_OFFLINE", "1").assert().success();
    offline.stdout(printed).stderr(using);
    let other =
        ["data", "prepare", "openwebtext", "--block-size", "8", "--tokenizer", nano.to_str().unwrap()];
    place
        .command(&other)
        .env("HF_HUB_OFFLINE", "1")
        .assert()
        .code(1)
        .stderr(contains("HF_HUB_OFFLINE is set"));
}

#[test]
fn two_processes_prepare_it_once() {
    let place = Place::new(&[(OWT, small_owt())]);
    let nano = data("nano");
    let args =
        ["data", "prepare", "openwebtext", "--block-size", "16", "--tokenizer", nano.to_str().unwrap()];
    let children: Vec<_> =
        (0..3).map(|_| place.process(&args).stdout(std::process::Stdio::piped()).spawn().unwrap()).collect();
    let paths: Vec<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert!(paths.iter().all(|path| *path == paths[0]));
    assert!(!found(paths[0].trim().as_ref()).is_empty());
    let fetched = place.fetched();
    let footers = fetched.iter().filter(|line| line.starts_with("GET cdn") && line.contains("train-00002"));
    assert!(footers.count() <= 1 + 10, "fetched once: {fetched:#?}");
}

#[test]
fn what_cannot_be_prepared_is_said_in_one_line() {
    let n: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let one = |name: &str, bytes: Vec<u8>| Repo::new(&[(name, bytes)]);
    let good = parquet(&table(vec![("text", strings(&texts(2)))]), 10);
    let place = Place::new(&[
        ("datasets/b/columns", one("a.parquet", parquet(&table(vec![("n", n.clone())]), 10))),
        ("datasets/b/numbers", one("a.parquet", parquet(&table(vec![("text", n)]), 10))),
        ("datasets/b/nothing", one("README.md", b"# none".to_vec())),
        (
            "datasets/b/folders",
            Repo::new(&[("a/train.parquet", good.clone()), ("b/train.parquet", good.clone())]),
        ),
        ("datasets/b/few", one("a.jsonl", b"{\"text\": \"few\"}\n".to_vec())),
        ("datasets/b/lines", one("a.jsonl", b"{\"text\": \"few\"}\n{\"body\": 1}\n".to_vec())),
        ("datasets/b/damaged", one("a.parquet", good[..good.len() - 30].to_vec())),
        ("datasets/b/gated", Repo { access: Access::Gated, ..one("a.parquet", good) }),
    ]);
    for (name, words) in [
        ("b/columns", "b/columns/a.parquet: no column `text` or `input_ids`; it has n"),
        ("b/numbers", "column `text` is Int32, not a string"),
        (
            "b/nothing",
            "no .parquet, .arrow, .jsonl (.zst, .gz) or .txt file of a training split; it has README.md",
        ),
        ("b/folders", "several folders of data"),
        ("b/few", "b/few: 3 tokens in 1 documents do not fill one sequence of 16"),
        ("b/lines", "b/lines/a.jsonl: line 2: no key `text`"),
        ("b/damaged", "b/damaged/a.parquet: the Parquet file is damaged"),
        ("b/gated", "gated"),
        ("b/missing", "no such"),
        ("openwebtext", "Skylion007/openwebtext"),
        ("no-such-set", "no such file, and no such data set"),
    ] {
        refused(&place, name, words);
    }
    // Nothing half made is left.
    let tokens = std::fs::read_dir(place.home.path().join("lnfree/tokens")).unwrap();
    let left: Vec<_> = tokens.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| name.ends_with(".lock")), "{left:?}");
}
