//! Token files that are truncated or have flipped bits: an error, never a panic.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array, Int32Builder, ListBuilder, StringArray};
use lnfree::data::{Layout, TokenFile, write_tokens};

use super::{lists, message, rewrite, table, write_arrow, write_parquet, write_stream};

const FORMATS: [&str; 3] = ["file.arrow", "stream.arrow", "table.parquet"];

/// The same column in all formats, in a fresh folder.
fn in_all_formats(column: ArrayRef) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..column.len()).map(|i| i.to_string())));
    let batch = table(vec![("text", text), ("input_ids", column)]);
    write_arrow(&dir.path().join(FORMATS[0]), std::slice::from_ref(&batch));
    write_stream(&dir.path().join(FORMATS[1]), std::slice::from_ref(&batch));
    write_parquet(&dir.path().join(FORMATS[2]), &batch, 3);
    dir
}

fn opening(dir: &tempfile::TempDir, name: &str) -> String {
    let found = message(TokenFile::open(dir.path().join(name)));
    assert!(found.contains(name), "{found} does not name {name}");
    found
}

#[test]
fn what_is_no_token_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
    assert!(opening(&dir, "missing.arrow").contains("No such file"));
    write("empty.arrow", b"");
    assert!(opening(&dir, "empty.arrow").contains("the file is empty"));
    write("text.txt", b"Fellow citizens of the Senate and House of Representatives");
    assert!(opening(&dir, "text.txt").contains("neither Arrow nor Parquet"));
    write("short", b"AR");
    assert!(opening(&dir, "short").contains("neither Arrow nor Parquet"));
    for bytes in [vec![0; 64], vec![0xff; 64], vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]] {
        write("bytes", &bytes);
        opening(&dir, "bytes");
    }
    assert!(message(TokenFile::open(dir.path().join("x"))).contains("x"));
    let folder = tempfile::tempdir().unwrap();
    assert!(message(TokenFile::open(folder.path())).contains("no .arrow or .parquet file"));
}

#[test]
fn columns_that_are_not_tokens_are_refused() {
    let mut null_ids = ListBuilder::new(Int32Builder::new());
    null_ids.append_value([Some(1), Some(2)]);
    null_ids.append_value([Some(3), None]);
    let mut null_rows = ListBuilder::new(Int32Builder::new());
    null_rows.append_value([Some(1)]);
    null_rows.append(false);
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 2.0]));
    let field = Arc::new(arrow::datatypes::Field::new_list_field(floats.data_type().clone(), true));
    let float_lists = arrow::array::FixedSizeListArray::new(field, 1, floats, None);
    let cases: [(ArrayRef, &str); 6] = [
        (Arc::new(Int32Array::from(vec![1, 2])), "Int32, not a list of integers"),
        (Arc::new(float_lists), "not a list of integers"),
        (Arc::new(null_ids.finish()), "row 1, position 1: null id"),
        (Arc::new(null_rows.finish()), "row 1: `input_ids` is null"),
        (lists(&[vec![], vec![]]), "no tokens"),
        (lists(&[]), "no tokens"),
    ];
    for (column, expected) in cases {
        let dir = in_all_formats(column);
        for name in FORMATS {
            let found = opening(&dir, name);
            assert!(found.contains(expected), "{found}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let batch = table(vec![("text", text.clone()), ("meta", text)]);
    write_arrow(&dir.path().join(FORMATS[0]), std::slice::from_ref(&batch));
    write_stream(&dir.path().join(FORMATS[1]), std::slice::from_ref(&batch));
    write_parquet(&dir.path().join(FORMATS[2]), &batch, 3);
    for name in FORMATS {
        let found = opening(&dir, name);
        assert!(
            found.contains("no column `input_ids`; it has text, meta; text becomes tokens with"),
            "{found}"
        );
    }
}

#[test]
fn negative_and_huge_ids_are_refused_where_they_are() {
    let dir = in_all_formats(lists(&[vec![1, 2], vec![3, -1]]));
    for name in FORMATS {
        let file = TokenFile::open(dir.path().join(name)).unwrap();
        assert_eq!(file.row(0).unwrap(), [1, 2]);
        let found = message(file.row(1));
        assert!(
            found.contains(name) && found.contains("row 1, position 1: id -1 is not a token id"),
            "{found}"
        );
        assert!(message(file.check_vocab(100)).contains("row 1, position 1: id -1"));
        assert!(message(file.fingerprint()).contains("-1"));
    }
    let dir = in_all_formats(lists(&[vec![1, 2], vec![3, i64::MAX]]));
    for name in FORMATS {
        let file = TokenFile::open(dir.path().join(name)).unwrap();
        assert!(message(file.check_vocab(50_257)).contains("row 1, position 1"));
    }
}

/// Reads everything there is to read.
fn exhaust(path: &Path) -> lnfree::Result<()> {
    for budget in [1 << 30, 0] {
        let file = TokenFile::open_with_budget(path, budget)?;
        for i in 0..file.n_sequences().min(1000) {
            file.row(i)?;
            file.sequence_len(i)?;
        }
        file.fingerprint()?;
        file.check_vocab(100)?;
    }
    Ok(())
}

fn sample() -> tempfile::TempDir {
    in_all_formats(lists(&(0..8).map(|i| (i..i + 5).collect()).collect::<Vec<_>>()))
}

#[test]
fn truncation_anywhere_is_an_error() {
    let dir = sample();
    for name in FORMATS {
        let path = dir.path().join(name);
        exhaust(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        // A stream is also valid without the 8 bytes of its end mark.
        let whole_without_mark = (name == "stream.arrow").then(|| good.len() - 8);
        for cut in 0..good.len() {
            rewrite(&path, &good[..cut]);
            match exhaust(&path) {
                Ok(()) => assert_eq!(Some(cut), whole_without_mark, "{name} cut at {cut}"),
                Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
            }
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    let dir = sample();
    for name in FORMATS {
        let path = dir.path().join(name);
        let good = std::fs::read(&path).unwrap();
        for index in 0..good.len() {
            for bit in [index % 8, 7] {
                let mut bad = good.clone();
                bad[index] ^= 1 << bit;
                rewrite(&path, &bad);
                // Without a checksum, a flip inside an id may go unseen.
                if let Err(error) = exhaust(&path) {
                    let found = error.to_string();
                    assert!(!found.contains('\n') && found.contains(name), "{found}");
                }
            }
        }
    }
}

#[test]
fn flipped_ids_of_our_own_files_are_always_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.arrow");
    let ids: Vec<u32> = (1..=64).map(|i| i * 1009).collect();
    write_tokens(&path, [Ok(ids.clone())].into_iter(), Layout::Fixed(64), 65_536).unwrap();
    let good = std::fs::read(&path).unwrap();
    let stored: Vec<u8> = ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect();
    let start = good.windows(stored.len()).position(|window| window == stored).unwrap();
    for index in start..start + stored.len() {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        rewrite(&path, &bad);
        assert!(opening(&dir, "own.arrow").contains("checksum does not match"));
    }
}
