//! Folders of data: what their manifests list, and nothing else.

use std::path::Path;

use arrow::array::{ArrayRef, StringArray};
use lnfree::data::TokenFile;
use lnfree::data::text::documents;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{lists, message, table, write_arrow, write_parquet, write_stream};

/// A token file of one row.
fn tokens(path: &Path, id: i64) {
    write_stream(path, &[table(vec![("input_ids", lists(&[vec![id; 3]]))])]);
}

fn texts(path: &Path, text: &str) {
    let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
    write_stream(path, &[table(vec![("text", column)])]);
}

fn write_state(folder: &Path, files: &[&str], more: Value) {
    let files: Vec<Value> = files.iter().map(|name| json!({"filename": name})).collect();
    let mut state = json!({"_data_files": files, "_fingerprint": "a1", "_format_columns": null,
        "_format_kwargs": {}, "_format_type": null, "_output_all_columns": false, "_split": "train"});
    for (key, value) in more.as_object().unwrap() {
        state[key] = value.clone();
    }
    std::fs::write(folder.join("state.json"), state.to_string()).unwrap();
}

/// What `save_to_disk` writes, with a leftover of `map` beside.
fn saved() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, id) in
        [("data-00000-of-00002.arrow", 1), ("data-00001-of-00002.arrow", 2), ("cache-1b2c3d4e5f.arrow", 9)]
    {
        tokens(&dir.path().join(name), id);
    }
    std::fs::write(dir.path().join("dataset_info.json"), "{}").unwrap();
    write_state(dir.path(), &["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"], json!({}));
    dir
}

fn first_ids(path: &Path) -> Vec<i64> {
    let file = TokenFile::open(path).unwrap();
    (0..file.n_sequences()).map(|i| file.row(i).unwrap()[0]).collect()
}

#[test]
fn a_manifest_decides_which_files_are_read_and_in_which_order() {
    let dir = saved();
    assert_eq!(first_ids(dir.path()), [1, 2]);
    write_state(dir.path(), &["data-00001-of-00002.arrow", "data-00000-of-00002.arrow"], json!({}));
    assert_eq!(first_ids(dir.path()), [2, 1]);
    write_state(dir.path(), &["data-00001-of-00002.arrow"], json!({"_format_columns": ["input_ids"]}));
    assert_eq!(first_ids(dir.path()), [2]);
    // A leftover that is no token file does not matter either.
    std::fs::write(dir.path().join("cache-1b2c3d4e5f.arrow"), b"indices").unwrap();
    assert_eq!(first_ids(dir.path()), [2]);
}

#[test]
fn manifests_that_cannot_be_followed_are_refused() {
    let dir = saved();
    let with = |files: &[&str], more: Value| {
        write_state(dir.path(), files, more);
        message(TokenFile::open(dir.path()))
    };
    let one = ["data-00000-of-00002.arrow"];
    assert!(
        with(&["data-00002-of-00003.arrow"], json!({}))
            .contains("state.json: `_data_files` lists data-00002")
    );
    assert!(with(&["../x.arrow"], json!({})).contains("not in its folder"));
    assert!(with(&[], json!({})).contains("`_data_files` is not a list of files"));
    for key in ["_indices_data_files", "_indices_files"] {
        let found = with(&one, json!({key: [{"filename": "indices.arrow"}]}));
        assert!(found.contains(&format!("`{key}`")) && found.contains("flatten_indices"), "{found}");
        write_state(dir.path(), &one, json!({key: []}));
        assert_eq!(first_ids(dir.path()), [1]);
    }
    let hidden = with(&one, json!({"_format_columns": ["text"]}));
    assert!(hidden.contains("leaves out `input_ids`") && hidden.contains("reset_format"), "{hidden}");
    std::fs::write(dir.path().join("state.json"), "{").unwrap();
    assert!(message(TokenFile::open(dir.path())).contains("state.json: not JSON"));
    // One that is of something else says nothing about data.
    std::fs::write(dir.path().join("state.json"), "\u{feff}{\"epoch\": NaN}").unwrap();
    assert_eq!(first_ids(dir.path()), [1, 2]);
}

#[test]
fn of_several_splits_one_has_to_be_named() {
    let dir = tempfile::tempdir().unwrap();
    for (split, id) in [("train", 1), ("test", 2)] {
        std::fs::create_dir(dir.path().join(split)).unwrap();
        tokens(&dir.path().join(split).join("data-00000-of-00001.arrow"), id);
        write_state(&dir.path().join(split), &["data-00000-of-00001.arrow"], json!({}));
    }
    let splits = |names: Value| {
        std::fs::write(dir.path().join("dataset_dict.json"), json!({"splits": names}).to_string()).unwrap();
    };
    splits(json!(["train", "test"]));
    let found = message(TokenFile::open(dir.path()));
    assert!(
        found.contains("has the splits train, test: name one of them") && found.contains("/train"),
        "{found}"
    );
    assert_eq!(first_ids(&dir.path().join("test")), [2]);
    splits(json!(["test"]));
    assert_eq!(first_ids(dir.path()), [2]);
    splits(json!("test"));
    assert!(message(TokenFile::open(dir.path())).contains("`splits` is not a list"));
}

#[test]
fn folders_without_a_manifest_are_of_one_kind_and_one_split() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, id) in
        [("b.arrow", 2), ("a.arrow", 1), (".c.arrow", 9), ("tmp4x_1.arrow", 9), ("cache-0a1b.arrow", 9)]
    {
        tokens(&at(name), id);
    }
    std::fs::write(at("README.md"), "no data").unwrap();
    assert_eq!(first_ids(dir.path()), [1, 2]);
    write_parquet(&at("a.parquet"), &table(vec![("input_ids", lists(&[vec![3]]))]), 1);
    let found = message(TokenFile::open(dir.path()));
    assert!(found.contains("several kinds (a.arrow, a.parquet)"), "{found}");
    std::fs::remove_file(at("a.parquet")).unwrap();
    tokens(&at("x-train.arrow"), 3);
    assert_eq!(first_ids(dir.path()), [1, 2, 3]);
    tokens(&at("x-test.arrow"), 4);
    let found = message(TokenFile::open(dir.path()));
    assert!(found.contains("several splits (x-test.arrow, x-train.arrow)"), "{found}");
}

#[test]
fn folders_of_texts_follow_the_same_rules() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let read = || documents(dir.path()).and_then(|texts| texts.collect::<lnfree::Result<Vec<String>>>());
    for (name, text) in [("data-0.arrow", "one"), ("data-1.arrow", "two"), ("cache-77.arrow", "left")] {
        texts(&at(name), text);
    }
    assert_eq!(read().unwrap(), ["one", "two"]);
    write_state(dir.path(), &["data-1.arrow"], json!({}));
    assert_eq!(read().unwrap(), ["two"]);
    write_state(dir.path(), &["data-1.arrow"], json!({"_indices_data_files": [{"filename": "i.arrow"}]}));
    assert!(message(read()).contains("_indices_data_files"));
    std::fs::remove_file(at("state.json")).unwrap();
    std::fs::write(at("LICENSE.txt"), "no data").unwrap();
    let found = message(read());
    assert!(found.contains("several kinds (LICENSE.txt, data-0.arrow)"), "{found}");
}

/// A table of ids that is refused is not read as text instead.
#[test]
fn text_beside_refused_ids_does_not_stand_in_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.arrow");
    let text: ArrayRef = Arc::new(StringArray::from(vec!["one two three"]));
    let mask = lists(&[vec![0, 1]]);
    let batch = table(vec![("text", text), ("input_ids", lists(&[vec![1, 2]])), ("attention_mask", mask)]);
    write_arrow(&path, &[batch]);
    let found = message(lnfree::data::resolve(path.to_str().unwrap(), 4));
    assert!(found.contains("`attention_mask` is 0 before ids"), "{found}");
    let found = message(lnfree::data::resolve(dir.path().to_str().unwrap(), 4));
    assert!(found.contains("`attention_mask` is 0 before ids"), "{found}");
}
