//! Reading texts, cutting them, the embedded data sets.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, LargeStringArray, StringArray, StringViewArray};
use lnfree::data::text::documents;
use lnfree::data::{ChunkScheme, TokenFile, Tokenizer, info, open_dataset, prepare, resolve};

use super::{data, message, nano, rewrite, table, write_parquet};

fn read(path: &Path) -> lnfree::Result<Vec<String>> {
    documents(path)?.collect()
}

#[test]
fn the_embedded_texts_are_what_their_readme_says() {
    for (name, count, bytes) in [
        ("train.parquet", 7923, 23_665_109),
        ("val.parquet", 491, 1_465_542),
        ("test.parquet", 178, 527_265),
        ("sotu-val.parquet", 156, 472_441),
        ("moby-dick.parquet", 409, 1_212_413),
    ] {
        let texts = read(&data(name)).unwrap();
        assert_eq!(texts.len(), count, "{name}");
        assert_eq!(texts.iter().map(String::len).sum::<usize>(), bytes, "{name}");
        assert!(texts.iter().all(|text| !text.trim().is_empty() && !text.contains("<|endoftext|>")));
    }
    assert!(read(&data("moby-dick.parquet")).unwrap().iter().any(|text| text.contains("Call me Ishmael.")));
}

#[test]
fn every_format_gives_the_same_documents() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let texts = ["first line\nsecond line", "", "naïve \u{1f642} \"quoted\""];
    let lines: String =
        texts.iter().map(|t| format!("{}\n\n", serde_json::json!({"text": t, "n": 1}))).collect();
    std::fs::write(at("a.jsonl"), &lines).unwrap();
    std::fs::write(at("a.jsonl.zst"), zstd::encode_all(lines.as_bytes(), 3).unwrap()).unwrap();
    let n: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let columns: [(&str, ArrayRef); 3] = [
        ("string.parquet", Arc::new(StringArray::from(texts.to_vec()))),
        ("large.parquet", Arc::new(LargeStringArray::from(texts.to_vec()))),
        ("view.parquet", Arc::new(StringViewArray::from(texts.to_vec()))),
    ];
    for (name, column) in columns {
        write_parquet(&at(name), &table(vec![("n", n.clone()), ("text", column)]), 2);
    }
    for name in ["a.jsonl", "a.jsonl.zst", "string.parquet", "large.parquet", "view.parquet"] {
        assert_eq!(read(&at(name)).unwrap(), texts, "{name}");
    }
    // One document per text file, whatever is in it; a folder is read in name order.
    std::fs::create_dir(at("folder")).unwrap();
    for (name, text) in
        [("b.txt", "two\n\nparagraphs"), ("a.txt", "first"), ("notes.md", "no"), (".c.txt", "no")]
    {
        std::fs::write(at("folder").join(name), text).unwrap();
    }
    assert_eq!(read(&at("folder")).unwrap(), ["first", "two\n\nparagraphs"]);
}

#[test]
fn bad_texts_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, content: &[u8]| {
        std::fs::write(dir.path().join(name), content).unwrap();
        message(read(&dir.path().join(name)))
    };
    assert!(message(read(&dir.path().join("missing.txt"))).contains("missing.txt"));
    assert!(message(read(dir.path())).contains("no .parquet"));
    assert!(at("x.csv", b"text").contains("expected .parquet"));
    assert!(at("x.jsonl", b"{\"text\": \"a\"}\n{\"text\": 3}").contains("line 2: `text` is not a string"));
    assert!(at("x.jsonl", b"\n{\"txt\": \"a\"}\n").contains("line 2: no key `text`"));
    assert!(at("x.jsonl", b"{\"text\": \"a").contains("line 1: not JSON"));
    assert!(at("x.jsonl", b"{\"text\": \"\xff\"}").contains("line 1: not JSON"));
    assert!(at("x.txt", b"\xff\xfe").contains("UTF-8"));
    assert!(at("x.jsonl.zst", b"not zstd at all").contains("x.jsonl.zst"));
    let packed = zstd::encode_all(&b"{\"text\": \"a\"}\n"[..], 3).unwrap();
    assert!(at("y.jsonl.zst", &packed[..packed.len() - 4]).contains("y.jsonl.zst"));
    assert!(at("x.parquet", b"PAR1").contains("Parquet"));
    assert!(at("x.parquet", b"").contains("Parquet"));

    let path = dir.path().join("n.parquet");
    let n: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    write_parquet(&path, &table(vec![("n", n.clone())]), 9);
    assert!(message(read(&path)).contains("no column `text`; it has n"));
    write_parquet(&path, &table(vec![("text", n)]), 9);
    assert!(message(read(&path)).contains("Int32"));
    let nulls: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    write_parquet(&path, &table(vec![("text", nulls)]), 9);
    assert!(message(read(&path)).contains("nulls"));
}

#[test]
fn damaged_parquet_texts_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..50).map(|i| format!("document {i}"))));
    write_parquet(&path, &table(vec![("text", column)]), 20);
    let good = std::fs::read(&path).unwrap();
    for cut in 0..good.len() {
        rewrite(&path, &good[..cut]);
        message(read(&path));
    }
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        rewrite(&path, &bad);
        // Some flips change a letter, which a file without checksums cannot tell.
        if let Err(error) = read(&path) {
            assert!(!error.to_string().contains('\n'));
        }
    }
}

fn whole_text(file: &TokenFile, tokenizer: &Tokenizer) -> String {
    let ids: Vec<u32> =
        (0..file.n_sequences()).flat_map(|i| file.row(i).unwrap()).map(|id| id as u32).collect();
    tokenizer.decode(&ids).unwrap()
}

#[test]
fn chunks_put_together_are_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let (text, out) = (data("sotu-val.parquet"), dir.path().join("val.arrow"));
    let nano = nano();
    let made = prepare(&text, &nano, 128, &out, ChunkScheme::default()).unwrap();
    let file = TokenFile::open(&out).unwrap();
    assert_eq!((made.documents, made.tokens, made.sequences), (156, file.n_tokens(), file.n_sequences()));
    assert_eq!(made.tokens + made.dropped, 108_762);
    assert!(made.dropped < 128 && file.block_size() == Some(128) && file.is_mapped());

    let expected: String = read(&text).unwrap().iter().map(|text| format!("{text}<|endoftext|>")).collect();
    let found = whole_text(&file, &nano);
    assert!(expected.starts_with(&found));
    let left: Vec<u32> = nano.encode(&expected[found.len()..]).unwrap();
    assert_eq!(left.len() as u64, made.dropped);

    // Prepared again: the same bytes.
    let again = dir.path().join("again.arrow");
    prepare(&text, &nano, 128, &again, ChunkScheme::default()).unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());
}

/// The reference is a direct reading of the peer's scheme: `datasets` splits n documents into contiguous
/// shards, the first n % shards of which have one more, and maps batches of each; each batch is cut by
/// itself.
#[test]
fn shards_and_batches_drop_their_own_remainders() {
    let dir = tempfile::tempdir().unwrap();
    let (text, out) = (data("sotu-val.parquet"), dir.path().join("val.arrow"));
    let nano = nano();
    let ids: Vec<Vec<u32>> = read(&text).unwrap().iter().map(|text| nano.encode(text).unwrap()).collect();
    for (shards, batch, block) in [(1, Some(10), 100), (7, None, 64), (7, Some(5), 50), (200, Some(512), 33)]
    {
        let mut expected = Vec::new();
        let mut start = 0;
        for shard in 0..shards {
            let end = start + ids.len() / shards + usize::from(shard < ids.len() % shards);
            for documents in ids[start..end].chunks(batch.unwrap_or(usize::MAX)) {
                let tokens: Vec<i64> = documents
                    .iter()
                    .flat_map(|ids| ids.iter().chain([&4095]))
                    .map(|id| i64::from(*id))
                    .collect();
                expected.extend(tokens.chunks_exact(block).map(<[i64]>::to_vec));
            }
            start = end;
        }
        let scheme = ChunkScheme { shards, documents_per_batch: batch };
        prepare(&text, &nano, block, &out, scheme).unwrap();
        let file = TokenFile::open(&out).unwrap();
        let found: Vec<Vec<i64>> = (0..file.n_sequences()).map(|i| file.row(i).unwrap()).collect();
        assert!(found == expected, "{shards} shards, batches of {batch:?}");
    }
}

#[test]
fn texts_that_make_no_sequence_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (text, out) = (dir.path().join("a.txt"), dir.path().join("out/a.arrow"));
    std::fs::write(&text, "short").unwrap();
    let short = message(prepare(&text, &nano(), 128, &out, ChunkScheme::default()));
    assert!(short.contains("a.txt") && short.contains("do not fill one sequence of 128"), "{short}");
    assert!(message(prepare(&text, &nano(), 0, &out, ChunkScheme::default())).contains("block size"));
    let none = ChunkScheme { shards: 0, documents_per_batch: None };
    assert!(message(prepare(&text, &nano(), 8, &out, none)).contains("shards"));
    assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
}

#[test]
fn info_tells_what_a_file_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (text, out) = (dir.path().join("t.jsonl"), dir.path().join("t.arrow"));
    std::fs::write(&text, "{\"text\": \"Fellow citizens\"}\n{\"text\": \"of the Senate\"}\n").unwrap();
    let nano = nano();
    prepare(&text, &nano, 1, &out, ChunkScheme::default()).unwrap();
    let found = info(&out, Some(&nano)).unwrap();
    assert_eq!((found.lengths, found.end_of_texts), ((1, 1), Some(2)));
    assert_eq!(found.ids.1, 4095);
    assert!(found.to_string().contains("1 tokens each") && found.to_string().contains("memory-mapped"));
    let sample = found.sample.unwrap();
    assert!(!sample.is_empty() && "Fellow citizens".starts_with(&sample), "{sample}");
    let plain = info(&out, None).unwrap();
    assert_eq!((plain.end_of_texts, plain.sample, plain.tokens), (None, None, found.tokens));
    // Another tokenizer's file is refused.
    let small = lnfree::data::tokenizer::train_bpe([Ok("aa bb".to_string())].into_iter(), 258).unwrap();
    assert!(message(info(&out, Some(&small))).contains("outside the vocabulary of 258 tokens"));
}

/// Runs in a process of its own, because it sets where the cache is.
#[test]
fn embedded_data_sets_are_made_once_and_again_if_damaged() {
    if std::env::var_os("LNFREE_TEST_CACHE").is_none() {
        let cache = tempfile::tempdir().unwrap();
        let name = "texts::embedded_data_sets_are_made_once_and_again_if_damaged";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact"])
            .env("XDG_CACHE_HOME", cache.path())
            .env("LNFREE_TEST_CACHE", "1")
            .current_dir(cache.path())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let cache = std::env::current_dir().unwrap().join("lnfree/tokens");
    let path = resolve("nano-addresses", 128).unwrap();
    assert_eq!(resolve("nano-owt", 128).unwrap(), path, "the name that it had before");
    assert!(path.starts_with(&cache), "{}", path.display());
    let made = std::fs::metadata(&path).unwrap().modified().unwrap();
    let file = open_dataset("nano-addresses", 128).unwrap();
    assert_eq!((file.n_sequences(), file.block_size()), (849, Some(128)));
    file.check_vocab(4096).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), made);
    assert_ne!(resolve("nano-addresses", 64).unwrap(), path);

    let good = std::fs::read(&path).unwrap();
    for damage in [&good[..good.len() / 2], b"rubbish"] {
        std::fs::write(&path, damage).unwrap();
        assert_eq!(open_dataset("nano-addresses", 128).unwrap().n_sequences(), 849);
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
    assert_eq!(resolve(path.to_str().unwrap(), 7).unwrap(), path);
    assert!(
        message(resolve("nano-adresses", 128))
            .contains("nano-train, nano-val, nano-test, nano-addresses, nano-moby-dick")
    );
    assert!(message(resolve("nano-adresses", 128)).contains("pile-uncopyrighted and ORG/NAME"));
}
