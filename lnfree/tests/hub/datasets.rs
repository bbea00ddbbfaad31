//! Data sets: whole files into the cache, parts and streams of files where they are.

use std::fs;
use std::io::Read;
use std::time::Duration;

use lnfree::hub::{DatasetRepo, Hub, Settings};

use super::faults::Fault;
use super::refusals::says;
use super::repo::{Access, GOOD_TOKEN, Repo};
use super::server::{Server, token};
use super::{content, home};

const DATA: &str = "data/train 1.parquet";

/// Bytes that are nowhere the same for long.
fn noise(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn texts() -> Repo {
    Repo::new(&[(DATA, noise(200_000)), ("README.md", b"# texts".to_vec()), ("train/00.jsonl.zst", noise(3))])
}

fn serve() -> Server {
    Server::start(&[("datasets/some/texts", texts())])
}

#[track_caller]
fn texts_of(settings: &Settings) -> DatasetRepo {
    Hub::new(settings.clone()).dataset("some/texts").unwrap()
}

fn one_line<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>) -> String {
    let message = match result {
        Ok(value) => panic!("{value:?} is no refusal"),
        Err(error) => error.to_string(),
    };
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn files_arrive_whole_where_python_finds_them() {
    let (server, home) = (serve(), home());
    let settings = server.settings(home.path());
    let repo = texts_of(&settings);
    assert_eq!((repo.id(), repo.commit()), ("some/texts", &*texts().commit));
    assert_eq!(repo.files(), ["README.md", DATA, "train/00.jsonl.zst"]);
    assert_eq!(server.requests(), ["GET hub /api/datasets/some/texts/revision/main"]);
    server.fault(DATA, Fault::Cut(150_000), 1);
    let path = repo.download(DATA).unwrap();
    let root = settings.cache.join("datasets--some--texts");
    assert_eq!(path, root.join("snapshots").join(repo.commit()).join(DATA));
    assert_eq!(fs::read(&path).unwrap(), noise(200_000));
    assert!(fs::read_link(&path).unwrap().starts_with("../../../blobs"));
    assert_eq!(fs::read(repo.download("README.md").unwrap()).unwrap(), b"# texts");
    let requests = server.requests();
    let load = "GET cdn /datasets/some/texts/data/train%201.parquet?signature=1";
    assert!(requests.iter().any(|r| r.contains("/datasets/some/texts/resolve/")), "{requests:?}");
    assert!(requests.contains(&format!("{load} range=150000")), "{requests:?}");
    // What is there is not asked for again, and is what `open` reads.
    assert_eq!(repo.download(DATA).unwrap(), path);
    let file = repo.open(DATA).unwrap();
    assert_eq!((file.len(), file.name()), (200_000, "some/texts/data/train 1.parquet"));
    assert_eq!(file.read_at(100, 7).unwrap(), noise(107)[100..]);
    let mut rest = Vec::new();
    file.stream(199_000).unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest, noise(200_000)[199_000..]);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn offline_it_is_the_commit_and_the_files_of_the_cache() {
    let (server, home) = (serve(), home());
    let settings = server.settings(home.path());
    let offline = Settings { offline: true, ..settings.clone() };
    let message = one_line(Hub::new(offline.clone()).dataset("some/texts"));
    says(&message, &["data set some/texts is not in", "HF_HUB_OFFLINE is set"]);
    assert_eq!(server.requests(), [""; 0]);
    texts_of(&settings).download(DATA).unwrap();
    server.requests();
    let unreachable = Settings { endpoint: "http://127.0.0.1:1".into(), ..settings.clone() };
    for (settings, why) in [(offline, "HF_HUB_OFFLINE is set"), (unreachable, "refuses connections")] {
        let repo = texts_of(&settings);
        assert_eq!(repo.commit(), texts().commit);
        assert_eq!(repo.files(), [DATA]);
        assert_eq!(repo.open(DATA).unwrap().read_at(0, 200_000).unwrap(), noise(200_000));
        let message = one_line(repo.open("README.md"));
        says(&message, &["some/texts: README.md is not in", why]);
        assert_eq!(one_line(repo.download("README.md")), message);
    }
    assert_eq!(server.requests(), [""; 0]);
    // Listed and never downloaded: the commit is known, and no file.
    let other = super::home();
    texts_of(&server.settings(other.path()));
    let offline = Settings { offline: true, ..server.settings(other.path()) };
    assert_eq!(texts_of(&offline).files(), [""; 0]);
}

#[test]
fn parts_are_asked_for_alone() {
    let (server, home) = (serve(), home());
    let settings = Settings { token: token(GOOD_TOKEN), ..server.settings(home.path()) };
    let repo = texts_of(&settings);
    let file = repo.open(DATA).unwrap();
    assert_eq!(file.len(), 200_000);
    assert!(server.requests().iter().all(|r| !r.starts_with("GET cdn")), "only the size is asked for");
    for (offset, n) in [(5, 10), (0, 1), (199_999, 1), (0, 200_000), (77, 0)] {
        assert_eq!(file.read_at(offset, n).unwrap(), noise(200_000)[offset as usize..][..n]);
    }
    let load =
        |range: &str| format!("GET cdn /datasets/some/texts/data/train%201.parquet?signature=1{range}");
    let requests = server.requests();
    let resolve = format!("GET hub /datasets/some/texts/resolve/{}/data/train%201.parquet", repo.commit());
    let expected = [
        format!("{resolve} range=5-15 auth"),
        load(" range=5-15"),
        load(" range=0-1"),
        load(" range=199999"),
        load(""),
    ];
    assert_eq!(requests, expected, "the hub is asked once where the file is");
    assert!(one_line(file.read_at(199_999, 2)).contains("no 2 bytes from 199999 on, it has 200000"));
    assert!(one_line(file.read_at(u64::MAX, 2)).contains("no 2 bytes"));
    assert!(one_line(file.stream(200_001).map(|_| ())).contains("begins after its end"));
    // Small files come from the hub itself.
    assert_eq!(repo.open("README.md").unwrap().read_at(2, 3).unwrap(), b"tex");
    // Nothing of it is kept.
    let kept = content(&settings.cache.join("datasets--some--texts/snapshots").join(repo.commit()));
    assert_eq!(kept, []);
    // From many threads at once.
    std::thread::scope(|scope| {
        for i in 0..8 {
            let file = file.clone();
            scope.spawn(move || {
                assert_eq!(file.read_at(i * 1000, 500).unwrap(), noise(200_000)[i as usize * 1000..][..500])
            });
        }
    });
}

#[test]
fn an_address_that_has_expired_is_asked_for_anew() {
    let (server, home) = (serve(), home());
    let file = texts_of(&server.settings(home.path())).open(DATA).unwrap();
    file.read_at(0, 9).unwrap();
    server.requests();
    server.expire();
    assert_eq!(file.read_at(50, 9).unwrap(), noise(59)[50..]);
    let requests = server.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(
        requests[0].ends_with("?signature=1 range=50-59")
            && requests[2].ends_with("?signature=2 range=50-59")
    );
}

#[test]
fn a_broken_stream_goes_on() {
    let (server, home) = (serve(), home());
    let settings = Settings { timeout: Duration::from_secs(2), ..server.settings(home.path()) };
    let file = texts_of(&settings).open(DATA).unwrap();
    let read = |offset: u64| {
        let mut bytes = Vec::new();
        file.stream(offset).unwrap().read_to_end(&mut bytes).map(|_| bytes)
    };
    server.requests();
    server.fault(DATA, Fault::Cut(30_000), 3);
    assert_eq!(read(10_000).unwrap(), noise(200_000)[10_000..]);
    let loads: Vec<_> = server.requests().into_iter().filter(|r| r.starts_with("GET cdn")).collect();
    let ends: Vec<_> = loads.iter().map(|load| load.split("range=").nth(1).unwrap()).collect();
    assert_eq!(ends, ["10000", "40000", "70000", "100000"]);
    for fault in [Fault::Stall(50_000), Fault::Slow, Fault::Status(500), Fault::Cut(0)] {
        server.fault(DATA, fault, 1);
        assert_eq!(read(0).unwrap(), noise(200_000), "{fault:?}");
    }
    // A part that is cut off is completed, not begun again.
    server.fault(DATA, Fault::Cut(1000), 1);
    server.requests();
    assert_eq!(file.read_at(5000, 3000).unwrap(), noise(8000)[5000..]);
    assert!(server.requests().iter().any(|r| r.ends_with(" range=6000-8000")));
    // Broken for good.
    server.fault(DATA, Fault::Cut(0), 100);
    says(&one_line(read(0)), &["some/texts/data/train 1.parquet", "breaks off at byte 0 of 200000"]);
    server.fault(DATA, Fault::Status(503), 100);
    says(&one_line(file.read_at(0, 5)), &["sends for data/train 1.parquet, answers 503"]);
}

#[test]
fn servers_that_give_no_parts_and_files_that_change() {
    let (server, home) = (serve(), home());
    let settings = server.settings(home.path());
    let repo = texts_of(&settings);
    let file = repo.open(DATA).unwrap();
    server.fault(DATA, Fault::IgnoreRange, 100);
    says(&one_line(file.read_at(5, 5)), &["gives the whole where a part is asked for", "download the file"]);
    let mut whole = Vec::new();
    file.stream(0).unwrap().read_to_end(&mut whole).unwrap();
    assert_eq!(whole, noise(200_000), "the whole is what a stream from the start asks for");
    server.fault(DATA, Fault::IgnoreRange, 0);

    for (other, words) in
        [(noise(100_000), "has 100000 bytes now"), (vec![7; 200_000], "has another content now")]
    {
        server.replace("datasets/some/texts", DATA, &noise(200_000));
        let file = repo.open(DATA).unwrap();
        file.read_at(0, 5).unwrap();
        server.replace("datasets/some/texts", DATA, &other);
        says(
            &one_line(file.read_at(5, 5)),
            &["some/texts/data/train 1.parquet", "has changed while it was read", words],
        );
    }
}

#[test]
fn what_cannot_be_had_is_said_in_one_line() {
    let gated = Repo { access: Access::Gated, ..texts() };
    let server = Server::start(&[
        ("datasets/some/gated", gated),
        ("datasets/some/texts", texts()),
        ("datasets/bad/names", Repo::new(&[("../x.parquet", vec![1]), ("/etc/x", vec![1])])),
    ]);
    let home = home();
    let settings = server.settings(home.path());
    let hub = Hub::new(settings.clone());
    let message = one_line(hub.dataset("some/txets"));
    says(&message, &["data set some/txets: no such repository at", "HF_TOKEN is not set"]);
    says(&one_line(hub.dataset("some/texts@v7")), &["some/texts has no branch, tag or commit v7"]);
    says(&one_line(hub.dataset("texts")), &["data set texts", "ORG/NAME"]);
    server.fault("listing", Fault::Status(404), 1);
    says(&one_line(hub.dataset("some/texts")), &["data set some/texts: no such repository at"]);
    server.fault("listing", Fault::Status(503), 100);
    says(&one_line(hub.dataset("some/texts")), &["data set some/texts: ", "in trouble", "503"]);
    server.fault("listing", Fault::Status(503), 0);
    let repo = hub.dataset("some/texts").unwrap();
    says(
        &one_line(repo.open("data/train 2.parquet")),
        &["has no file data/train 2.parquet (did you mean data/train 1"],
    );
    says(&one_line(repo.download("x")), &["data set some/texts has no file x; it has 3 others"]);
    let names = hub.dataset("bad/names").unwrap();
    for name in ["../x.parquet", "/etc/x"] {
        says(&one_line(names.download(name)), &["data set bad/names has no file"]);
    }
    let gated = hub.dataset("some/gated").unwrap();
    let conditions = format!("accept its conditions at {}/datasets/some/gated", server.endpoint);
    for message in [one_line(gated.open(DATA)), one_line(gated.download(DATA))] {
        says(&message, &["some/gated is gated", &conditions, "then set HF_TOKEN"]);
    }
    let hub = Hub::new(Settings { token: token(GOOD_TOKEN), ..settings });
    assert_eq!(hub.dataset("some/gated").unwrap().open(DATA).unwrap().read_at(0, 3).unwrap(), noise(3));
}
