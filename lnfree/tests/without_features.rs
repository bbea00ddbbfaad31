//! What a build without features says of what it leaves out.

#![cfg(not(feature = "parquet"))]

use lnfree::data::open_dataset;

/// A text and tokens in Parquet are refused by name, and so are the embedded texts.
#[test]
fn parquet_is_refused_with_the_feature_that_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.parquet");
    std::fs::write(&file, b"PAR1 and more").unwrap();
    for name in [file.to_str().unwrap(), "nano-addresses"] {
        let refused = open_dataset(name, 128).unwrap_err().to_string();
        assert!(refused.contains("feature `parquet`") && refused.lines().count() == 1, "{name}: {refused}");
    }
}
