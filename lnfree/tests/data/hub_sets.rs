//! Data sets of a hub on 127.0.0.1, in the shape of the real ones, through the real binary: which documents,
//! in which order, cut where, and what is fetched for that.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use assert_cmd::Command;
use lnfree::data::numpy_rng::NumpyRng;
use lnfree::data::shuffles::shuffle_stream;
use lnfree::data::{Provenance, TokenFile, owt_split};

use super::repo::Repo;
use super::server::Server;
use super::{data, lists, nano, table, write_arrow, write_parquet, write_stream};

const EOT: i64 = 4095;
const OWT: &str = "datasets/Skylion007/openwebtext";
/// Documents in each of the four files of the OpenWebText of these tests, and in each of their row groups.
const OWT_FILE: usize = 5000;
const OWT_GROUP: usize = 50;

/// A hub, and a place for all caches.
pub struct Place {
    pub server: Server,
    pub home: tempfile::TempDir,
}

impl Place {
    pub fn new(repos: &[(&str, Repo)]) -> Place {
        Place { server: Server::start(repos), home: tempfile::tempdir().unwrap() }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::from_std(self.process(args));
        command.timeout(std::time::Duration::from_secs(120));
        command
    }

    pub fn process(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lnfree"));
        command.args(args).current_dir(self.home.path());
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HUB_DOWNLOAD_TIMEOUT"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.home.path().join("hf")).env("XDG_CACHE_HOME", self.home.path());
        command.env("HF_ENDPOINT", &self.server.endpoint);
        command
    }

    /// `data prepare NAME` with nano's tokenizer and these arguments: the path that it prints.
    pub fn prepare(&self, name: &str, args: &[&str]) -> PathBuf {
        let nano = data("nano");
        let mut all = vec!["data", "prepare", name, "--tokenizer", nano.to_str().unwrap()];
        all.extend(args);
        let output = self.command(&all).assert().success();
        PathBuf::from(String::from_utf8(output.get_output().stdout.clone()).unwrap().trim())
    }

    /// Requests for files, since the last call.
    pub fn fetched(&self) -> Vec<String> {
        let requests = self.server.requests().into_iter();
        requests.filter(|line| line.starts_with("GET cdn") || line.contains("/resolve")).collect()
    }
}

/// Small documents, each unlike the others, and hard to compress.
pub fn texts(n: usize) -> Vec<String> {
    let noise = |i: usize| (1..5).map(move |k: u64| (i as u64 * 5 + k).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let words = |i: usize| noise(i).map(|word| format!("{word:x}")).collect::<Vec<_>>().join(" ");
    let kind = |i: usize| ["united", "several", "said"][i % 3];
    (0..n).map(|i| format!("Document {i} of {n}: the {} States. {}", kind(i), words(i))).collect()
}

pub fn strings<T: AsRef<str>>(texts: &[T]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

/// The bytes that a writer of files writes.
pub fn bytes(write: impl FnOnce(&Path)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("x"));
    std::fs::read(dir.path().join("x")).unwrap()
}

pub fn parquet(batch: &RecordBatch, rows_per_group: usize) -> Vec<u8> {
    bytes(|path| write_parquet(path, batch, rows_per_group))
}

/// An OpenWebText of 20,000 documents in four files of a hundred row groups.
pub fn small_owt() -> Repo {
    let texts = texts(4 * OWT_FILE);
    let file = |i: usize| {
        parquet(&table(vec![("text", strings(&texts[i * OWT_FILE..(i + 1) * OWT_FILE]))]), OWT_GROUP)
    };
    let name = |i: usize| format!("plain_text/train-0000{i}-of-00004.parquet");
    let files: Vec<(String, Vec<u8>)> = (0..4).map(|i| (name(i), file(i))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    Repo::new(&files)
}

/// All ids of documents, each followed by end-of-text.
pub fn ids<T: AsRef<str>>(texts: &[T]) -> Vec<i64> {
    let nano = nano();
    let one = |text: &T| nano.encode(text.as_ref()).unwrap().into_iter().map(i64::from).chain([EOT]);
    texts.iter().flat_map(one).collect()
}

pub fn found(path: &Path) -> Vec<Vec<i64>> {
    let file = TokenFile::open(path).unwrap();
    (0..file.n_sequences()).map(|i| file.row(i).unwrap()).collect()
}

fn cut(ids: &[i64], block_size: usize, n: usize) -> Vec<Vec<i64>> {
    ids.chunks_exact(block_size).take(n).map(<[i64]>::to_vec).collect()
}

/// `Dataset.shuffle(seed=42)`.
fn shuffled<T: Clone>(items: &[T]) -> Vec<T> {
    let order = NumpyRng::new(42).permutation(items.len() as u32);
    order.into_iter().map(|i| items[i as usize].clone()).collect()
}

#[test]
fn the_validation_split_of_openwebtext_by_row_group() {
    let place = Place::new(&[(OWT, small_owt())]);
    let path = place.prepare("openwebtext", &["--block-size", "16"]);
    let texts = texts(4 * OWT_FILE);
    let split = owt_split(texts.len() as u32).test;
    assert_eq!(split.len(), 10);
    // Ten documents in 32 shards: each is a batch of its own.
    let mut expected = Vec::new();
    for i in &split {
        expected.extend(cut(&ids(&[&texts[*i as usize]]), 16, usize::MAX));
    }
    assert_eq!(found(&path), expected);

    // One request for each footer, and one for each row group that is needed; never a whole file.
    let groups: HashSet<usize> = split.iter().map(|i| *i as usize / OWT_GROUP).collect();
    let gets: Vec<String> = place.fetched().into_iter().filter(|line| line.starts_with("GET cdn")).collect();
    assert!(gets.len() <= 4 + groups.len(), "{gets:#?}");
    assert!(gets.iter().all(|line| line.contains("range=")), "{gets:#?}");

    let made = Provenance::of(&path).unwrap();
    assert_eq!((made.documents, made.sequences), (10, expected.len()));
    assert_eq!(made.request.split.as_deref(), Some("validation"));
    assert_eq!(made.commit, small_owt().commit);
    assert_eq!(made.files.len(), 4);

    // It is there now, whatever n; another block size needs the kept documents only, and the footers.
    assert_eq!(place.prepare("openwebtext-val", &["--block-size", "16", "-n", "3"]), path);
    assert_eq!(place.fetched(), [""; 0]);
    let other = place.prepare("openwebtext", &["--block-size", "8"]);
    assert_ne!(other, path);
    assert_eq!(place.fetched().iter().filter(|line| line.starts_with("GET cdn")).count(), 4);
}

#[test]
fn training_documents_of_openwebtext_are_not_of_the_validation_split() {
    let place = Place::new(&[(OWT, small_owt())]);
    let path = place.prepare("openwebtext-train", &["--block-size", "16", "-n", "3000"]);
    let texts = texts(4 * OWT_FILE);
    let held_out: HashSet<u32> = owt_split(texts.len() as u32).test.into_iter().collect();
    let kept: Vec<&String> = texts
        .iter()
        .enumerate()
        .filter(|(i, _)| !held_out.contains(&(*i as u32)))
        .map(|(_, text)| text)
        .collect();
    assert_eq!(found(&path), cut(&ids(&kept[..OWT_FILE]), 16, 3000));
    assert_eq!(Provenance::of(&path).unwrap().request.split.as_deref(), Some("train"));
    let whole = |line: &String| line.starts_with("GET cdn") && !line.contains("range=");
    let whole: Vec<String> = place.fetched().into_iter().filter(whole).collect();
    let whole: HashSet<&str> = whole.iter().filter_map(|line| line.split('/').next_back()).collect();
    assert_eq!(whole.len(), 1, "one source file is enough: {whole:?}");
}

#[test]
fn pile_apollo_streams_the_first_rows_through_a_shuffle_buffer() {
    let rows: Vec<Vec<i64>> =
        (0..1800).map(|i| (0..10 + i % 3).map(|j| (i * 7 + j) % 4000).collect()).collect();
    let file = |part: &[Vec<i64>]| parquet(&table(vec![("input_ids", lists(part))]), 100);
    let name = |i| format!("data/train-0000{i}-of-00003-0123456789abcdef.parquet");
    let files: Vec<(String, Vec<u8>)> = (0..3).map(|i| (name(i), file(&rows[i * 600..][..600]))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let id = "datasets/apollo-research/monology-pile-uncopyrighted-tokenizer-gpt2";
    let place = Place::new(&[(id, Repo::new(&files))]);
    for n in [1150, 70] {
        let path = place.prepare("pile-apollo", &["--block-size", "8", "-n", &n.to_string()]);
        let order: Vec<Vec<i64>> = shuffle_stream(rows[..n].iter().cloned(), 42, 1000).collect();
        assert_eq!(found(&path), cut(&order.concat(), 8, n), "{n} rows");
        assert!(Provenance::of(&path).unwrap().tokenizer_sha256.is_none());
        let fetched = place.fetched();
        assert!(fetched.iter().all(|line| !line.contains("train-00002")), "{fetched:#?}");
        assert_eq!(fetched.iter().any(|line| line.contains("train-00001")), n > 600);
    }
}

#[test]
fn pile_apollo_luca_and_pile_10k_are_permuted() {
    let rows: Vec<Vec<i64>> = (0..300).map(|i| (0..20).map(|j| (i * 11 + j) % 4000).collect()).collect();
    let luca = Repo::new(&[(
        "data/train-00000-of-00001.parquet",
        parquet(&table(vec![("input_ids", lists(&rows))]), 64),
    )]);
    let texts = texts(200);
    let sets: Vec<&str> =
        (0..200).map(|i| ["Pile-CC", "Books3", "OpenWebText2", "ArXiv", "BookCorpus2"][i % 5]).collect();
    let field = Arc::new(Field::new("pile_set_name", DataType::Utf8, false));
    let meta: ArrayRef = Arc::new(StructArray::from(vec![(field, strings(&sets))]));
    let batch = table(vec![("text", strings(&texts)), ("meta", meta)]);
    let pile = Repo::new(&[("data/train-00000-of-00001.parquet", parquet(&batch, 64))]);
    let place = Place::new(&[
        ("datasets/lucabaroni/apollo-pile-filtered-10k", luca),
        ("datasets/NeelNanda/pile-10k", pile),
    ]);
    let documents: Vec<(&str, &str)> = texts.iter().map(String::as_str).zip(sets).collect();
    for n in [10_000, 90] {
        let n_text = n.to_string();
        let rows = if n < rows.len() { shuffled(&rows)[..n].to_vec() } else { rows.clone() };
        let path = place.prepare("pile-apollo-luca", &["--block-size", "32", "-n", &n_text]);
        assert_eq!(found(&path), cut(&shuffled(&rows).concat(), 32, n), "luca, {n}");

        let rows = if n < documents.len() { shuffled(&documents)[..n].to_vec() } else { documents.clone() };
        let rows = shuffled(&rows).into_iter().filter(|(_, set)| ["Pile-CC", "ArXiv"].contains(set));
        let kept: Vec<&str> = rows.map(|(text, _)| text).collect();
        let path = place.prepare("pile-10k", &["--block-size", "16", "-n", &n_text]);
        assert_eq!(found(&path), cut(&ids(&kept), 16, n), "pile-10k, {n}");
    }
}

#[test]
fn pile_uncopyrighted_is_streamed_and_no_more_than_needed() {
    let texts = texts(6000);
    let sets = ["Pile-CC", "Books3", "ArXiv"];
    let line = |i: usize| {
        let value = serde_json::json!({"text": texts[i], "meta": {"pile_set_name": sets[i % 3]}});
        format!("{value}\n")
    };
    let file = |range: std::ops::Range<usize>| {
        zstd::encode_all(range.map(line).collect::<String>().as_bytes(), 1).unwrap()
    };
    let place = Place::new(&[(
        "datasets/monology/pile-uncopyrighted",
        Repo::new(&[
            ("test.jsonl.zst", file(0..10)),
            ("train/00.jsonl.zst", file(0..3000)),
            ("train/01.jsonl.zst", file(3000..6000)),
            ("val.jsonl.zst", file(10..20)),
        ]),
    )]);
    let path = place.prepare("pile-uncopyrighted", &["--block-size", "16", "-n", "1300"]);
    let order = shuffle_stream(0..1300, 42, 1000).filter(|i| i % 3 != 1);
    let kept: Vec<&String> = order.map(|i| &texts[i]).collect();
    assert_eq!(found(&path), cut(&ids(&kept), 16, 1300));
    let fetched = place.fetched();
    assert!(fetched.iter().all(|line| line.contains("/train/00.jsonl.zst")), "{fetched:#?}");
}

#[test]
fn any_repository_in_any_format() {
    let texts = texts(30);
    let batches = [0, 20].map(|start| table(vec![("text", strings(&texts[start..(start + 20).min(30)]))]));
    let jsonl: String = texts.iter().map(|t| format!("{}\n", serde_json::json!({"text": t}))).collect();
    let repos: Vec<(&str, Repo)> = vec![
        (
            "datasets/a/file",
            Repo::new(&[("train/data-00000-of-00001.arrow", bytes(|p| write_arrow(p, &batches)))]),
        ),
        (
            "datasets/a/stream",
            Repo::new(&[("data-00000-of-00001.arrow", bytes(|p| write_stream(p, &batches)))]),
        ),
        ("datasets/a/lines", Repo::new(&[("README.md", b"#".to_vec()), ("all.jsonl", jsonl.clone().into())])),
        (
            "datasets/a/table",
            Repo::new(&[("t.parquet", parquet(&batches[0], 7)), ("u.parquet", parquet(&batches[1], 7))]),
        ),
        (
            "datasets/a/plain",
            Repo::new(&[("a.txt", texts[0].clone().into()), ("b.txt", texts[1].clone().into())]),
        ),
    ];
    let place = Place::new(&repos);
    for (id, _) in &repos {
        let name = id.strip_prefix("datasets/").unwrap();
        let path = place.prepare(name, &["--block-size", "8", "-n", "20"]);
        let kept = if name == "a/plain" { &texts[..2] } else { &texts[..] };
        assert_eq!(found(&path), cut(&ids(kept), 8, 20), "{name}");
    }
}

#[test]
fn texts_by_path_are_tokenized_once_and_info_tells_where_tokens_are_from() {
    let place = Place::new(&[]);
    let texts = texts(50);
    let jsonl: String = texts.iter().map(|t| format!("{}\n", serde_json::json!({"text": t}))).collect();
    let text = place.home.path().join("my.jsonl");
    std::fs::write(&text, &jsonl).unwrap();
    let path = place.prepare("my.jsonl", &["--block-size", "16"]);
    assert_eq!(found(&path), cut(&ids(&texts), 16, usize::MAX));
    assert_eq!(place.prepare(text.to_str().unwrap(), &["--block-size", "16"]), path);
    // Another content is another file.
    std::fs::write(&text, jsonl.replace("Document", "Paper")).unwrap();
    assert_ne!(place.prepare("my.jsonl", &["--block-size", "16"]), path);

    let info = place.command(&["data", "info", path.to_str().unwrap()]).assert().success();
    let said = String::from_utf8(info.get_output().stdout.clone()).unwrap();
    for words in
        ["begins with  \"Document 0", "data set     my.jsonl", "made of      50 documents", "end-of-text"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    // The copy keeps its provenance.
    place.prepare("nano-owt", &["--out", "copy.arrow"]);
    let copy = place.home.path().join("copy.arrow");
    assert_eq!(found(&copy).len(), 849);
    assert_eq!(Provenance::of(&copy).unwrap().request.dataset, "nano-addresses");
}

#[test]
fn models_are_evaluated_and_trained_on_data_sets_by_name_with_their_own_tokenizer() {
    let texts = texts(200);
    let jsonl: String = texts.iter().map(|t| format!("{}\n", serde_json::json!({"text": t}))).collect();
    let place = Place::new(&[("datasets/a/lines", Repo::new(&[("all.jsonl", jsonl.into())]))]);
    let all = ids(&texts);
    place.command(&["eval", "-m", "nano", "-d", "a/lines", "-n", "3", "-b", "2"]).assert().success();
    let train = ["pretrain", "--config", "nano_pretrain", "--data", "a/lines", "--out", "run"];
    let small = ["--set", "train.max_steps=2", "--set", "train.batch_size=2"];
    let small = small.iter().chain(&["--set", "train.warmup_steps=0"]);
    let small = small.chain(&["--set", "train.gradient_accumulation_steps=1"]);
    let args: Vec<&str> = train.iter().chain(small).copied().collect();
    place.command(&args).assert().success();
    let tokens = place.home.path().join("lnfree/tokens");
    let made = std::fs::read_dir(tokens).unwrap().map(|entry| entry.unwrap().path());
    let mut made: Vec<PathBuf> = made.filter(|path| path.extension().is_some_and(|e| e == "arrow")).collect();
    made.sort_by_key(|path| found(path).len());
    let lengths: Vec<usize> = made.iter().map(|path| found(path).len()).collect();
    assert_eq!(lengths, [3, 4], "as many as are asked for");
    assert_eq!(found(&made[1]), cut(&all, 128, 4));
}
