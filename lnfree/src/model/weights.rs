//! GPT-2 weights from and to files, without trusting what a file says.
//!
//! [`read_weights`] takes what Hugging Face writes: `model.safetensors` or `pytorch_model.bin`, in one file
//! or in shards. Nothing in a file is executed, every size is checked before memory is taken, and what is
//! wrong is told in one line.

mod adapters;
mod bytes;
mod finite;
mod names;
mod pickle;
mod pickle_values;
mod raw;
mod refused;
mod safetensors;
mod shards;
mod state_dict;
mod torch_file;
mod zip;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use tch::Tensor;

pub use finite::{check_finite, not_finite};
pub use safetensors::write_safetensors;

use crate::{Error, Result};

/// Tensors by their GPT-2 name, without prefix: `wte.weight`, `h.0.attn.c_attn.weight`, …
pub type Weights = BTreeMap<String, Tensor>;

/// Inside this module an error is a message; the file's path is put before it once, at the top.
type Why<T> = std::result::Result<T, String>;

/// What a folder may hold, best first.
const CANDIDATES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Reads the weights in `path`, a folder or a file (`.safetensors`, `.bin`, `.pt`, `.pth`, or the
/// `.index.json` of shards).
///
/// Tensors are on the CPU, in the dtype they are stored in. What wrappers add to the names goes, in any
/// nesting (`transformer.`, `model.`, `module.`, `_orig_mod.`, …), and causal masks (`attn.bias`,
/// `attn.masked_bias`) are left out; adapters as the paper's LoRA code stores them (`weight_frozen`,
/// `lora_A`, `lora_B`) are merged; everything else is kept, such as `lm_head.weight` and the LN buffers of a
/// checkpoint. Tensors that share memory in a `.bin` (a tied `lm_head.weight`) share it here too: copy
/// before changing one in place.
///
/// # Errors
/// One line naming the file: nothing to read, a missing or contradictory shard, a truncated or damaged file,
/// a dtype that libtorch lacks, two tensors for one name, weights that an adapter or a quantization has
/// changed, or a pickle that asks for anything but tensors.
pub fn read_weights(path: &Path) -> Result<Weights> {
    if path.is_dir() {
        let found = CANDIDATES.iter().map(|name| path.join(name)).find(|file| file.exists());
        return match found {
            Some(file) => read_weights(&file),
            None => Err(nothing_in(path)),
        };
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let tensors = match name.ends_with(".index.json") {
        true => shards::read(path)?,
        false => read_file(path)?,
    };
    adapters::merged(tensors).and_then(names::collect).map_err(|why| file_error(path, why))
}

/// The tensors of one file under the names they are stored with, masks left out.
fn read_file(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let read = match &*extension {
        "safetensors" => safetensors::read,
        "bin" | "pt" | "pth" => torch_file::read,
        _ => return Err(Error::file(path, "is not a .safetensors, .bin, .pt or .pth file, nor a folder")),
    };
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    refuse_pointer(&mut file).and_then(|()| read(&mut file)).map_err(|why| file_error(path, why))
}

/// A clone without Git LFS leaves a short text in place of each large file.
fn refuse_pointer(file: &mut std::fs::File) -> Why<()> {
    use std::io::{Read, Seek};
    let mut start = Vec::new();
    file.take(24).read_to_end(&mut start).and_then(|_| file.rewind()).map_err(|e| e.to_string())?;
    match start.starts_with(b"version https://git-lfs.") {
        true => Err("is a Git LFS pointer, not the weights; run `git lfs pull` in its repository".into()),
        false => Ok(()),
    }
}

/// What was looked for in a folder, and what is there.
fn nothing_in(folder: &Path) -> Error {
    let mut there: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    there.sort();
    let more = if there.len() > 12 { format!(" and {} more", there.len() - 12) } else { String::new() };
    there.truncate(12);
    let there = if there.is_empty() { "nothing".to_string() } else { there.join(", ") };
    let message = format!("no weights here: looked for {}; there is {there}{more}", CANDIDATES.join(", "));
    file_error(folder, message)
}

/// An [`Error::File`] whose message is one line of bounded length, whatever names and texts a file put into
/// it.
fn file_error(path: &Path, message: impl Display) -> Error {
    let mut line = String::new();
    for c in message.to_string().chars().take(600) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    Error::file(path, line)
}
