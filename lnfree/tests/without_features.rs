//! What a build without features says of what it leaves out.

#![cfg(not(feature = "parquet"))]

use lnfree::data::open_dataset;

#[test]
fn parquet_is_refused_with_the_feature_that_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.parquet");
    std::fs::write(&file, b"PAR1 and more").unwrap();
    let refused = open_dataset(file.to_str().unwrap(), 128).unwrap_err().to_string();
    assert!(refused.contains("feature `parquet`") && refused.lines().count() == 1, "{refused}");
}
