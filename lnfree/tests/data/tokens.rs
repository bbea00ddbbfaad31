//! Token files in all the shapes that others write.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Int8Array, Int16Array, Int32Array, Int64Array, LargeListArray, ListArray,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;
use lnfree::Error;
use lnfree::data::{Layout, TokenFile, write_tokens};

use super::{lists, message, table, write_arrow, write_parquet, write_stream};

/// 0 to 11 in every integer type.
fn integers() -> Vec<ArrayRef> {
    vec![
        Arc::new(Int8Array::from_iter_values(0..12)),
        Arc::new(Int16Array::from_iter_values(0..12)),
        Arc::new(Int32Array::from_iter_values(0..12)),
        Arc::new(Int64Array::from_iter_values(0..12)),
        Arc::new(UInt8Array::from_iter_values(0..12)),
        Arc::new(UInt16Array::from_iter_values(0..12)),
        Arc::new(UInt32Array::from_iter_values(0..12)),
        Arc::new(UInt64Array::from_iter_values(0..12)),
    ]
}

/// Lists of 4 ids in every list type.
fn in_all_lists(ids: &ArrayRef) -> Vec<ArrayRef> {
    let item = Arc::new(Field::new_list_field(ids.data_type().clone(), true));
    let (lengths, none) = ([4, 4, 4], None);
    vec![
        Arc::new(FixedSizeListArray::new(item.clone(), 4, ids.clone(), none)),
        Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), ids.clone(), None)),
        Arc::new(LargeListArray::new(item, OffsetBuffer::from_lengths(lengths), ids.clone(), None)),
    ]
}

#[test]
fn every_type_reads_the_same_from_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let mut fingerprints = Vec::new();
    for ids in integers() {
        for column in in_all_lists(&ids) {
            let mask = lists(&vec![vec![1; 4]; 3]);
            let batch = table(vec![("attention_mask", mask), ("input_ids", column)]);
            let path = |name: &str| dir.path().join(name);
            write_arrow(&path("file"), std::slice::from_ref(&batch));
            write_stream(&path("stream"), std::slice::from_ref(&batch));
            write_parquet(&path("parquet"), &batch, 2);
            for name in ["file", "stream", "parquet"] {
                let file = TokenFile::open(path(name)).unwrap();
                let what = format!("{name} of {}", batch.schema().field(1));
                assert_eq!((file.n_sequences(), file.n_tokens()), (3, 12), "{what}");
                assert_eq!((file.block_size(), file.sequence_len(2).unwrap()), (Some(4), 4), "{what}");
                assert_eq!(file.row(2).unwrap(), [8, 9, 10, 11], "{what}");
                assert_eq!(file.is_mapped(), name != "parquet", "{what}");
                file.check_vocab(12).unwrap();
                let outside = message(file.check_vocab(10));
                assert!(
                    outside.contains("row 2, position 2: id 10 is outside the vocabulary of 10"),
                    "{outside}"
                );
                fingerprints.push(file.fingerprint().unwrap());
            }
        }
    }
    assert!(fingerprints.iter().all(|f| *f == fingerprints[0] && f.len() == 64));
}

fn rows(n: u32) -> impl Iterator<Item = lnfree::Result<Vec<u32>>> {
    (0..n).map(|i| Ok((0..i % 5 + 1).map(|j| i * 10 + j).collect()))
}

#[test]
fn what_is_written_is_read_back_in_place() {
    let dir = tempfile::tempdir().unwrap();
    for (vocab_size, bytes_per_id) in [(60_000, 2), (70_000, 4)] {
        let path = dir.path().join(format!("{vocab_size}.arrow"));
        let written = write_tokens(&path, rows(5000), Layout::Variable, vocab_size).unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert_eq!((written.sequences, written.tokens), (5000, 15_000));
        assert_eq!((file.n_sequences(), file.n_tokens(), file.block_size()), (5000, 15_000, None));
        assert!(file.is_mapped());
        for (i, row) in rows(5000).enumerate() {
            assert!(file.row(i).unwrap().iter().copied().eq(row.unwrap().into_iter().map(i64::from)));
        }
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size > 15_000 * bytes_per_id && size < 15_000 * bytes_per_id + 25_000, "{size}");
    }
}

#[test]
fn large_files_have_several_batches_and_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.arrow");
    let row = |i: u32| -> Vec<u32> { (0..1024).map(|j| (i * 31 + j * 7) % 50_257).collect() };
    write_tokens(&path, (0..2500).map(|i| Ok(row(i))), Layout::Fixed(1024), 50_257).unwrap();
    let file = TokenFile::open(&path).unwrap();
    assert_eq!((file.n_sequences(), file.block_size()), (2500, Some(1024)));
    let mut ids = vec![9; 9];
    for i in [2499, 0, 1023, 1024, 1025, 2048, 700] {
        file.read(i, &mut ids).unwrap();
        assert!(ids.iter().copied().eq(row(i as u32).into_iter().map(i64::from)), "sequence {i}");
    }
    file.check_vocab(50_257).unwrap();
    assert!(message(file.row(2500)).contains("no sequence 2500: there are 2500"));
    assert!(message(file.sequence_len(9999)).contains("9999"));
}

#[test]
fn the_fingerprint_tells_sets_apart() {
    let dir = tempfile::tempdir().unwrap();
    let of = |rows: Vec<Vec<u32>>, layout| {
        let path = dir.path().join("f.arrow");
        write_tokens(&path, rows.into_iter().map(Ok), layout, 100).unwrap();
        TokenFile::open(&path).unwrap().fingerprint().unwrap()
    };
    let one = of(vec![vec![1, 2], vec![3, 4]], Layout::Fixed(2));
    assert_eq!(of(vec![vec![1, 2], vec![3, 4]], Layout::Variable), one);
    for other in [vec![vec![3, 4], vec![1, 2]], vec![vec![1, 2], vec![3, 5]], vec![vec![1, 2, 3], vec![4]]] {
        assert_ne!(of(other, Layout::Variable), one);
    }
    // Beyond 4M tokens only some rows are read, the first and the last among them.
    let row = |i: u32, mark: u32| Ok(vec![i % 90 + mark; 1 << 12]);
    let large = |first, last| {
        let path = dir.path().join("large.arrow");
        let mark = move |i| {
            if i == 0 {
                first
            } else if i == 1099 {
                last
            } else {
                0
            }
        };
        write_tokens(&path, (0..1100).map(|i| row(i, mark(i))), Layout::Fixed(1 << 12), 100).unwrap();
        TokenFile::open(&path).unwrap().fingerprint().unwrap()
    };
    let plain = large(0, 0);
    assert_eq!(large(0, 0), plain);
    assert_ne!(large(1, 0), plain);
    assert_ne!(large(0, 1), plain);
}

#[test]
fn parquet_over_the_budget_is_read_by_row_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.parquet");
    let equal: Vec<Vec<i64>> = (0..100).map(|i| (0..8).map(|j| i * 8 + j).collect()).collect();
    let unequal: Vec<Vec<i64>> = (0..100).map(|i| (0..i % 7).collect()).collect();
    for rows in [equal, unequal] {
        write_parquet(&path, &table(vec![("input_ids", lists(&rows))]), 9);
        let whole = TokenFile::open(&path).unwrap();
        // Room for about two row groups.
        let lazy = TokenFile::open_with_budget(&path, 1200).unwrap();
        assert_eq!((lazy.n_sequences(), lazy.n_tokens()), (100, whole.n_tokens()));
        assert_eq!(lazy.block_size(), whole.block_size());
        for i in (0..100).rev().chain([50, 3, 99]) {
            assert_eq!(lazy.row(i).unwrap(), rows[i]);
            assert_eq!(lazy.sequence_len(i).unwrap(), rows[i].len());
        }
        assert_eq!(lazy.fingerprint().unwrap(), whole.fingerprint().unwrap());
        let limit = whole.row(99).unwrap()[0] as usize;
        if limit > 0 {
            assert!(message(lazy.check_vocab(limit)).contains("row 99, position 0"));
        }
    }
}

/// Counts alone suggest equal rows; the row groups that differ are found when they are read.
#[test]
fn rows_that_only_look_equally_long_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.parquet");
    let rows = [vec![1, 2], vec![3, 4], vec![5], vec![6, 7, 8]];
    write_parquet(&path, &table(vec![("input_ids", lists(&rows))]), 2);
    let lazy = TokenFile::open_with_budget(&path, 0).unwrap();
    assert_eq!(lazy.row(1).unwrap(), [3, 4]);
    assert!(message(lazy.row(2)).contains("rows 2 to 3 differ in length"));
    let whole = TokenFile::open(&path).unwrap();
    assert_eq!((whole.block_size(), whole.row(3).unwrap()), (None, vec![6, 7, 8]));
}

#[test]
fn a_folder_is_one_set_in_name_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_stream(&at("b.arrow"), &[table(vec![("input_ids", lists(&[vec![3, 3]]))])]);
    write_stream(&at("a.arrow"), &[table(vec![("input_ids", lists(&[vec![1, 1], vec![2, 2]]))])]);
    write_arrow(&at("c.arrow"), &[table(vec![("input_ids", lists(&[vec![4, 4, 4], vec![-5]]))])]);
    std::fs::write(at("state.json"), "{}").unwrap();
    std::fs::write(at(".hidden.arrow"), "no").unwrap();
    let set = TokenFile::open(dir.path()).unwrap();
    let all: Vec<Vec<i64>> = (0..4).map(|i| set.row(i).unwrap()).collect();
    assert_eq!(all, [vec![1, 1], vec![2, 2], vec![3, 3], vec![4, 4, 4]]);
    assert_eq!((set.n_sequences(), set.n_tokens(), set.block_size()), (5, 10, None));
    // The file that a row is in, and the row in that file.
    let negative = message(set.row(4));
    assert!(negative.contains("c.arrow: row 1, position 0: id -5"), "{negative}");
    assert!(message(set.check_vocab(4)).contains("c.arrow: row 0, position 0: id 4"));

    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("validation")).unwrap();
    std::fs::create_dir(empty.path().join("train")).unwrap();
    let none = message(TokenFile::open(empty.path()));
    assert!(none.contains("it has the folders train, validation: name one"), "{none}");
}

#[test]
fn what_cannot_be_written_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.arrow");
    write_tokens(&path, rows(9), Layout::Variable, 1000).unwrap();
    let old = std::fs::read(&path).unwrap();
    let refused = |rows: Vec<lnfree::Result<Vec<u32>>>, layout| {
        let refused = message(write_tokens(&path, rows.into_iter(), layout, 100));
        assert_eq!(std::fs::read(&path).unwrap(), old);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        refused
    };
    let unequal = refused(vec![Ok(vec![1, 2]), Ok(vec![3])], Layout::Fixed(2));
    assert!(unequal.contains("row 1: 1 tokens where every row has 2"), "{unequal}");
    let outside = refused(vec![Ok(vec![1, 2]), Ok(vec![3, 100])], Layout::Variable);
    assert!(outside.contains("row 1: position 1: id 100 is outside the vocabulary of 100"), "{outside}");
    let broken = refused(vec![Ok(vec![1]), Err(Error::invalid("broke off"))], Layout::Variable);
    assert_eq!(broken, "broke off");
    assert!(refused(vec![], Layout::Fixed(2)).contains("no tokens"));
    assert!(refused(vec![Ok(vec![])], Layout::Variable).contains("no tokens"));
    assert!(refused(vec![], Layout::Fixed(0)).contains("block size 0"));
    let nowhere = std::path::Path::new("/proc/nowhere/t.arrow");
    assert!(message(write_tokens(nowhere, rows(9), Layout::Variable, 1000)).contains("/proc/nowhere"));
}
