//! What the header of an export's weights says of them: what its card says too, for programs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::model::names::metadata;

/// The key that has the steps of fine-tuning.
pub(crate) const STEPS: &str = "fine_tuning_steps";

/// The header of an export after so many steps of fine-tuning, 0 where they are not known.
pub(super) fn header(steps: usize) -> BTreeMap<String, String> {
    let steps = (steps > 0).then(|| (STEPS.to_string(), steps.to_string()));
    metadata().into_iter().chain(steps).collect()
}

/// More than the header of any model's weights takes.
const MAX_HEADER: u64 = 64 << 20;

/// Steps of fine-tuning that the header of the safetensors file at `path` says; `None` where it does not.
pub(crate) fn steps_in_header(path: &Path) -> Option<u32> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = Some(u64::from_le_bytes(length)).filter(|length| *length <= MAX_HEADER)?;
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    header["__metadata__"][STEPS].as_str()?.parse().ok()
}
