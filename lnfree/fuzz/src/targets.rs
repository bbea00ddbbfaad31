//! The readers.

mod configs;
mod data;
mod hub;
mod records;
mod tokenizers;
mod weights;

use std::time::Duration;

use crate::{Limits, Target};

/// What most inputs may cost. A byte of JSON may become 105 (`{"":0},` is a map of 632), and 4 MiB is for
/// buffers whose size the code says.
const USUAL: Limits = Limits { base: 4 << 20, per_byte: 128, cpu: Duration::from_secs(10) };

/// All of them.
pub static TARGETS: &[&[Target]] =
    &[configs::TARGETS, weights::TARGETS, data::TARGETS, tokenizers::TARGETS, records::TARGETS, hub::TARGETS];

/// The one of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().copied().flatten().find(|target| target.name == name)
}
