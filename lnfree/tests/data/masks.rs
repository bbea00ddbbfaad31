//! Columns that say which ids count: honoured, or refused by name.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Int64Array, ListBuilder, StringArray};
use lnfree::data::{Batches, ChunkScheme, TokenFile, prepare};

use super::{lists, message, nano, table, vector_path, write_arrow, write_parquet, write_stream};

const FORMATS: [&str; 3] = ["file.arrow", "stream.arrow", "table.parquet"];
const IDS: [[i64; 4]; 3] = [[5, 6, 7, 8], [9, 10, 99_999, 99_999], [11, 12, 13, 99_999]];
const MASK: [[i64; 4]; 3] = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]];

fn rows(rows: [[i64; 4]; 3]) -> ArrayRef {
    lists(&rows.map(|row| row.to_vec()))
}

/// A table with these columns beside the ids, in all formats, also where Parquet is read by row group.
fn opened(columns: Vec<(&str, ArrayRef)>) -> Vec<lnfree::Result<TokenFile>> {
    let dir = tempfile::tempdir().unwrap();
    let batch = table([vec![("input_ids", rows(IDS))], columns].concat());
    let at = |name: &str| dir.path().join(name);
    write_arrow(&at(FORMATS[0]), &[batch.slice(0, 2), batch.slice(2, 1)]);
    write_stream(&at(FORMATS[1]), std::slice::from_ref(&batch));
    write_parquet(&at(FORMATS[2]), &batch, 2);
    let open = |name: &&str| TokenFile::open(at(name));
    let mut all: Vec<_> = FORMATS.iter().map(open).collect();
    all.push(
        TokenFile::open_with_budget(at(FORMATS[2]), 0)
            .and_then(|file| (0..file.n_sequences()).try_for_each(|i| file.row(i).map(drop)).map(|()| file)),
    );
    all
}

/// The lengths of the rows that are left.
fn lengths(columns: Vec<(&str, ArrayRef)>) -> Vec<usize> {
    let files: Vec<TokenFile> = opened(columns).into_iter().map(|file| file.unwrap()).collect();
    let lengths = |file: &TokenFile| -> Vec<usize> {
        (0..file.n_sequences()).map(|i| file.sequence_len(i).unwrap()).collect()
    };
    let first = lengths(&files[0]);
    for file in &files {
        assert_eq!(lengths(file), first);
        assert_eq!(file.n_tokens() as usize, first.iter().sum::<usize>());
        for (i, length) in first.iter().enumerate() {
            assert_eq!(file.row(i).unwrap(), IDS[i][..*length]);
        }
    }
    first
}

fn refused(columns: Vec<(&str, ArrayRef)>) -> String {
    let found: Vec<String> = opened(columns).into_iter().map(message).collect();
    for other in &found {
        assert_eq!(other.split_once(": ").unwrap().1, found[0].split_once(": ").unwrap().1);
    }
    found[0].clone()
}

#[test]
fn padding_at_the_end_of_rows_is_cut_off() {
    assert_eq!(lengths(vec![]), [4, 4, 4]);
    for name in ["attention_mask", "loss_mask", "completion_mask", "assistant_masks"] {
        assert_eq!(lengths(vec![(name, rows(MASK))]), [4, 2, 3], "{name}");
        assert_eq!(lengths(vec![(name, rows([[1; 4]; 3]))]), [4, 4, 4], "{name}");
    }
    let mut flags = ListBuilder::new(BooleanBuilder::new());
    for row in MASK {
        flags.append_value(row.map(|value| Some(value == 1)));
    }
    assert_eq!(lengths(vec![("attention_mask", Arc::new(flags.finish()))]), [4, 2, 3]);
    // A vocabulary check looks at what counts: the padding is no token of any vocabulary.
    for file in opened(vec![("attention_mask", rows(MASK))]) {
        file.unwrap().check_vocab(20).unwrap();
    }
    for file in opened(vec![]) {
        assert!(message(file.unwrap().check_vocab(20)).contains("row 1, position 2"));
    }
}

#[test]
fn labels_that_are_the_ids_are_accepted_and_left_out_at_the_end() {
    assert_eq!(lengths(vec![("labels", rows(IDS))]), [4, 4, 4]);
    let labels = [[5, 6, 7, 8], [9, 10, -100, -100], [11, 12, 13, -100]];
    assert_eq!(lengths(vec![("labels", rows(labels))]), [4, 2, 3]);
    assert_eq!(lengths(vec![("attention_mask", rows(MASK)), ("labels", rows(labels))]), [4, 2, 3]);
    assert_eq!(lengths(vec![("attention_mask", rows(MASK)), ("labels", rows(IDS))]), [4, 2, 3]);
    // One number a row is the class of a text, and none of its tokens.
    assert_eq!(lengths(vec![("labels", Arc::new(Int64Array::from(vec![0, 1, 2])))]), [4, 4, 4]);
}

#[test]
fn what_else_agrees_with_the_ids_is_harmless() {
    let one = |values: [i64; 3]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
    let all = vec![
        ("attention_mask", rows(MASK)),
        ("position_ids", rows([[0, 1, 2, 3], [0, 1, 0, 0], [0, 1, 2, 2]])),
        ("token_type_ids", rows([[0; 4]; 3])),
        ("special_tokens_mask", rows([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])),
        ("document_ids", rows([[1, 1, 1, 1], [2, 2, -1, -1], [3, 3, 3, -1]])),
        ("overflow_to_sample_mapping", one([0, 0, 1])),
        ("length", one([4, 400, 3])),
        ("my_mask", rows([[1; 4]; 3])),
        ("mask", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("score", one([1, 2, 3])),
    ];
    assert_eq!(lengths(all), [4, 2, 3]);
}

#[test]
fn what_changes_the_meaning_otherwise_is_refused_by_name() {
    let second = |row: [i64; 4]| rows([IDS[0], row, IDS[2]]);
    let ones = |row: [i64; 4]| rows([[1; 4], row, [1; 4]]);
    let zeros = |row: [i64; 4]| rows([[0; 4], row, [0; 4]]);
    let numbers = |row: [i64; 4]| rows([[0, 1, 2, 3], row, [0, 1, 2, 3]]);
    let lengths: ArrayRef = Arc::new(Int64Array::from(vec![4, 2, 4]));
    for (name, column, expected) in [
        ("attention_mask", ones([0, 0, 1, 1]), "is 0 before ids that count"),
        ("attention_mask", ones([1, 0, 1, 1]), "is 0 before ids that count"),
        ("attention_mask", ones([1, 2, 3, 3]), "has 2, which is neither 0 nor 1"),
        ("loss_mask", ones([0, 0, 1, 1]), "is 0 before ids that count"),
        ("labels", second([-100, 10, 99_999, 99_999]), "is -100 before ids that count"),
        ("labels", second([10, 99_999, 99_999, -100]), "is 10 where `input_ids` is 9"),
        ("position_ids", numbers([0, 1, 0, 1]), "is not 0, 1, 2"),
        ("token_type_ids", zeros([0, 0, 1, 1]), "is not 0 everywhere"),
        ("special_tokens_mask", zeros([0, 0, 0, 1]), "is not 0 everywhere"),
        ("seq_idx", zeros([0, 0, 1, 1]), "changes within the row"),
        ("length", lengths, "is 2 for 4 ids"),
        ("padding_mask", zeros([0; 4]), "may mean either"),
        ("my_mask", ones([1, 1, 1, 0]), "is a mask of unknown meaning"),
    ] {
        let found = refused(vec![(name, column)]);
        let row = if name == "padding_mask" { "row 0: " } else { "row 1: " };
        assert!(found.contains(row) && found.contains(&format!("`{name}` {expected}")), "{found}");
    }
    let short = lists(&[vec![1; 4], vec![1; 3], vec![1; 4]]);
    assert!(
        refused(vec![("attention_mask", short)]).contains("row 1: `attention_mask` has 3 values for 4 ids")
    );
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    assert!(
        refused(vec![("attention_mask", text)]).contains("`attention_mask` is Utf8, not a list of integers")
    );
}

/// A row of padding alone is one without tokens.
#[test]
fn a_row_may_be_padding_alone() {
    assert_eq!(lengths(vec![("attention_mask", rows([[0; 4], [1; 4], [1, 0, 0, 0]]))]), [0, 4, 1]);
    for file in opened(vec![("attention_mask", rows([[0; 4]; 3]))]) {
        assert!(message(file).contains("no tokens"));
    }
}

/// Made by pyarrow: 100 tokens a row, padded with 0 to 128.
#[test]
fn a_padded_file_is_the_unpadded_one() {
    let open = |name: &str| TokenFile::open(vector_path(name)).unwrap();
    let (padded, plain) = (open("data/t_padded.parquet"), open("data/unpadded.parquet"));
    assert_eq!((padded.n_sequences(), padded.n_tokens(), padded.block_size()), (6, 600, Some(100)));
    assert_eq!(padded.fingerprint().unwrap(), plain.fingerprint().unwrap());
}

/// Rows of several lengths, where training needs one.
#[test]
fn training_refuses_rows_that_padding_made_unequal() {
    let mut files = opened(vec![("attention_mask", rows(MASK))]);
    let found = message(Batches::new(files.remove(0).unwrap(), 1, false));
    assert!(found.contains("sequence 0 has 4 tokens and sequence 1 has 2"), "{found}");
}

#[test]
fn a_token_file_is_cut_anew_without_its_padding() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("x.arrow"), dir.path().join("out.arrow"));
    write_arrow(&path, &[table(vec![("input_ids", rows(IDS)), ("attention_mask", rows(MASK))])]);
    let made = prepare(&path, &nano(), 3, &out, ChunkScheme::default()).unwrap();
    let file = TokenFile::open(&out).unwrap();
    let found: Vec<Vec<i64>> = (0..3).map(|i| file.row(i).unwrap()).collect();
    assert_eq!(found, [[5, 6, 7], [8, 9, 10], [11, 12, 13]]);
    assert_eq!((made.documents, made.sequences, made.dropped), (3, 3, 0));
    write_arrow(&path, &[table(vec![("input_ids", rows(IDS))])]);
    assert!(
        message(prepare(&path, &nano(), 3, &out, ChunkScheme::default())).contains("outside the vocabulary")
    );
}
