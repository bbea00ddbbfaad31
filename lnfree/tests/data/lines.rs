//! JSON lines and plain text as programs write them: one stray byte does not refuse a file, and what does is
//! named.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use lnfree::data::text::documents;

use super::{message, vector_path};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn read(path: &Path) -> lnfree::Result<Vec<String>> {
    documents(path)?.collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

const LINES: &str = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
const MARK: &str = "\u{feff}";

#[test]
fn a_byte_order_mark_is_no_part_of_a_text() {
    let dir = Folder::new();
    let marked = format!("{MARK}{LINES}");
    for (name, bytes) in [
        ("a.jsonl", marked.clone().into_bytes()),
        ("a.jsonl.gz", gzip(marked.as_bytes())),
        ("a.jsonl.zst", zstd(marked.as_bytes())),
    ] {
        assert_eq!(read(&dir.write(name, &bytes)).unwrap(), ["one", "two"], "{name}");
    }
    // Only in front: within a text it is a character like others.
    assert_eq!(
        read(&dir.write("a.txt", format!("{MARK}a{MARK}\r\nb").as_bytes())).unwrap(),
        [format!("a{MARK}\r\nb")]
    );
    assert_eq!(read(&dir.write("b.txt", MARK.as_bytes())).unwrap(), [""]);
    assert_eq!(read(&dir.write("c.txt", b"")).unwrap(), [""]);
    assert_eq!(read(&dir.write("b.jsonl", MARK.as_bytes())).unwrap(), [""; 0]);
    assert!(message(read(&dir.write("d.txt", b"\xff\xfea\0"))).contains("d.txt: the text is UTF-16"));
}

#[test]
fn a_long_text_is_read_in_parts_that_end_with_characters() {
    let dir = Folder::new();
    // Two, three and four bytes a character, so that the parts' ends fall within some of them.
    for piece in ["é", "日", "\u{1f642}", "\u{feff}", "aé日\u{1f642}"] {
        let text = piece.repeat((3 << 20) / piece.len() + 1);
        assert!(read(&dir.write("a.txt", format!("{MARK}{text}").as_bytes())).unwrap() == [text], "{piece}");
    }
    let exact = "x".repeat(2 << 20);
    assert!(read(&dir.write("a.txt", exact.as_bytes())).unwrap() == [exact.clone()]);
    let found = message(read(&dir.write("a.txt", &[exact.as_bytes(), b"\xe6\x97"].concat())));
    assert!(found.contains("a.txt: the text is not UTF-8"), "{found}");
}

#[test]
fn keys_that_are_not_read_may_hold_anything() {
    let dir = Folder::new();
    for other in [
        "NaN",
        "[-Infinity, {\"a\": Infinity}]",
        "\"\\ud83d\"",
        "{\"\\udc00\": \"\\ud83d\\ud83d\\ude42\"}",
        "1e999",
        "123456789012345678901234567890",
        "\"\\\\ud83d \\\" NaN\"",
    ] {
        for line in
            [format!("{{\"x\": {other}, \"text\": \"a\"}}"), format!("{{\"text\": \"a\", \"x\": {other}}}")]
        {
            assert_eq!(read(&dir.write("a.jsonl", line.as_bytes())).unwrap(), ["a"], "{line}");
        }
    }
    let meta = "{\"text\": \"a\", \"meta\": {\"pile_set_name\": \"X\", \"score\": NaN, \"s\": \"\\udc00\"}}";
    assert_eq!(read(&dir.write("a.jsonl", meta.as_bytes())).unwrap(), ["a"]);
    assert!(
        message(read(&dir.write("a.jsonl", b"{\"text\": NaN}"))).contains("line 1: `text` is not a string")
    );
    assert!(
        message(read(&dir.write("a.jsonl", b"{\"text\": \"a\", \"x\": nan}"))).contains("line 1: not JSON")
    );
}

#[test]
fn half_a_surrogate_pair_in_a_text_is_a_replacement_character() {
    let dir = Folder::new();
    for (escaped, text) in [
        ("a\\ud83d", "a\u{fffd}"),
        ("\\uD83D\\uDE42\\ud83d\\uDE42", "\u{1f642}\u{1f642}"),
        ("\\ude42\\ud83d\\ud83d\\ude42\\ud83dx", "\u{fffd}\u{fffd}\u{1f642}\u{fffd}x"),
        ("\\\\ud83d\\ud83d", "\\ud83d\u{fffd}"),
        ("\\ud83d\\\\ude42", "\u{fffd}\\ude42"),
    ] {
        let line = format!("{{\"text\": \"{escaped}\"}}");
        assert_eq!(read(&dir.write("a.jsonl", line.as_bytes())).unwrap(), [text], "{line}");
    }
}

#[test]
fn lines_may_end_and_be_blank_as_they_like() {
    let dir = Folder::new();
    for lines in [
        LINES.to_string(),
        LINES.replace('\n', "\r\n"),
        LINES.trim_end().to_string(),
        format!("\n \t\r\n{}\n\n", LINES.replace('\n', "\n\n")),
    ] {
        assert_eq!(read(&dir.write("a.jsonl", lines.as_bytes())).unwrap(), ["one", "two"], "{lines:?}");
    }
    let found = message(read(&dir.write("a.jsonl", format!("{LINES}\n{{\"text\": 1,}}\n").as_bytes())));
    assert!(found.contains("a.jsonl: line 4: not JSON"), "{found}");
}

#[test]
fn members_frames_and_padding_are_one_stream() {
    let dir = Folder::new();
    let (first, second) = LINES.split_at(20);
    let (a, b) = (gzip(first.as_bytes()), gzip(second.as_bytes()));
    let zeros = [0; 700];
    for bytes in [
        gzip(LINES.as_bytes()),
        [a.as_slice(), &b].concat(),
        [a.as_slice(), &b, &zeros].concat(),
        [a.as_slice(), &zeros, &b, &zeros].concat(),
        [a.as_slice(), &gzip(b""), &b].concat(),
    ] {
        assert_eq!(read(&dir.write("a.jsonl.gz", &bytes)).unwrap(), ["one", "two"]);
    }
    for bad in [[a.as_slice(), b"rubbish, not a member"].concat(), a[..a.len() - 3].to_vec(), vec![]] {
        assert!(message(read(&dir.write("a.jsonl.gz", &bad))).contains("a.jsonl.gz"));
    }
    let (a, b) = (zstd(first.as_bytes()), zstd(second.as_bytes()));
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    for bytes in [
        [a.as_slice(), &b].concat(),
        [skipped.as_slice(), &a, &skipped, &b, &skipped].concat(),
        [a.as_slice(), &zstd(b""), &b].concat(),
    ] {
        assert_eq!(read(&dir.write("a.jsonl.zst", &bytes)).unwrap(), ["one", "two"]);
    }
}

/// Made by `zstd --long=28` and `--long=31`.
#[test]
fn zstd_windows_up_to_256_mib_are_read_and_larger_ones_explained() {
    let texts = read(&vector_path("data/long28.jsonl.zst")).unwrap();
    assert_eq!((texts.len(), texts.iter().map(String::len).sum::<usize>() > 10_000), (6, true));
    let found = message(read(&vector_path("data/long31.jsonl.zst")));
    assert!(found.contains("long31.jsonl.zst: its zstd window is above 256 MiB; recompress it"), "{found}");
}

/// Above 16 MiB, a line's text is taken out of it instead of being parsed.
#[test]
fn very_long_lines_are_read_as_short_ones() {
    let dir = Folder::new();
    let text = "long \"text\" \\ \n é \u{1f642} ".repeat(1 << 20);
    let row = serde_json::json!({"meta": {"text": "no"}, "text": text, "x": 1})
        .to_string()
        .replace("\"x\":1", "\"x\":NaN");
    let lines = format!("{LINES}{row}\n{LINES}");
    assert!(row.len() > 16 << 20);
    let found = read(&dir.write("a.jsonl", lines.as_bytes())).unwrap();
    assert!(found.len() == 5 && found[2] == text && found[3] == "one");
    let half = format!("{{\"text\": \"{}\\ud83d\"}}", "x".repeat(17 << 20));
    assert!(read(&dir.write("a.jsonl", half.as_bytes())).unwrap()[0].ends_with("x\u{fffd}"));
    let bad = format!("{LINES}{{\"text\": \"{}\\q\"}}", "x".repeat(17 << 20));
    let found = message(read(&dir.write("a.jsonl", bad.as_bytes())));
    assert!(found.contains("a.jsonl: line 3: not JSON"), "{found}");
}
