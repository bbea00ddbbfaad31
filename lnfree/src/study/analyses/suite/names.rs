//! How the files of results are called.

use std::path::{Path, PathBuf};

use crate::eval::result_name;
use crate::study::analyses::{Pairs, Request};

/// What files are called after a request: the analysis, and where a study may have several of it what tells
/// them apart.
pub fn request_key(request: &Request) -> &'static str {
    match request {
        Request::Patching(Pairs::Repeated { .. }) => "patching-repeated",
        Request::Patching(Pairs::Ioi { .. }) => "patching-ioi",
        Request::Patching(Pairs::Texts { .. }) => "patching-texts",
        other => other.name(),
    }
}

/// The file of a result in the folder `out`: `LABEL--ANALYSIS.json`.
pub fn result_path(out: &Path, label: &str, request: &Request) -> PathBuf {
    out.join(format!("{}.json", result_name(label, request_key(request))))
}
