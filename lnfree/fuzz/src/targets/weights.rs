//! Weights: safetensors, their index, what `torch.save` writes; and checkpoints.

use std::path::Path;

use lnfree::model::LoadedModel;
use lnfree::model::weights::{check_finite, read_weights};
use lnfree::optim::{AdamW, AdamWConfig};
use lnfree::tch::{Device, Kind, Tensor};
use lnfree::{Result, atomic, checkpoint};

use super::USUAL;
use crate::parts::{parts, safetensors, torch_zip};
use crate::{Scratch, Target};

pub(super) const TARGETS: &[Target] = &[
    Target { name: "safetensors", read: plain, words: HEADER, limits: USUAL },
    Target { name: "safetensors_header", read: header, words: HEADER, limits: USUAL },
    Target { name: "index", read: index, words: INDEX, limits: USUAL },
    Target { name: "torch", read: torch, words: PICKLE, limits: USUAL },
    Target { name: "pickle", read: pickle, words: PICKLE, limits: USUAL },
    Target { name: "trainer", read: trainer, words: TRAINER, limits: USUAL },
    Target { name: "optimizer", read: optimizer, words: HEADER, limits: USUAL },
    Target { name: "checkpoint", read: whole_checkpoint, words: HEADER, limits: USUAL },
    Target { name: "checksums", read: checksums, words: SUMS, limits: USUAL },
];

const HEADER: &[&str] = &[
    "\"dtype\":\"F32\"",
    "\"F16\"",
    "\"BF16\"",
    "\"F64\"",
    "\"I64\"",
    "\"BOOL\"",
    "\"U8\"",
    "\"F8_E4M3\"",
    "\"F4\"",
    "\"shape\":[",
    "\"data_offsets\":[0,",
    "\"__metadata__\":{",
    "\"format\":\"pt\"",
    "\"wte.weight\":",
    "\"transformer.h.0.ln_1.weight\":",
    "\"h.0.attn.c_attn.weight\":",
    "\"h.0.attn.bias\":",
    "\"lm_head.weight\":",
    "_orig_mod.",
    "module.",
    "\"ln_f.is_fake\":",
    ".average_std_buffer",
    ".momentum",
    "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}",
];

fn read(path: &Path) -> Result<()> {
    check_finite(&read_weights(path)?, path)
}

fn plain(scratch: &Scratch, input: &[u8]) -> Result<()> {
    read(&scratch.write("model.safetensors", input))
}

/// The JSON of a header, around which the file is made.
fn header(scratch: &Scratch, input: &[u8]) -> Result<()> {
    read(&scratch.write("model.safetensors", safetensors(input)))
}

const INDEX: &[&str] = &[
    "\"weight_map\"",
    "\"metadata\"",
    "\"total_size\"",
    "\"a\"",
    "\"b\"",
    "\"lm_head.weight\"",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "../",
    "/etc/passwd",
    ".index.json",
];

/// An index of two shards, which hold `a` and `b`.
fn index(scratch: &Scratch, input: &[u8]) -> Result<()> {
    for (shard, name) in ["a", "b"].iter().enumerate() {
        let file = format!("shards/model-0000{}-of-00002.safetensors", shard + 1);
        let header = format!("{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}}}");
        scratch.once(&file, || safetensors(header.as_bytes()));
    }
    read(&scratch.write("shards/model.safetensors.index.json", input))
}

const PICKLE: &[&str] = &[
    "\u{2}",
    "ccollections\nOrderedDict\n",
    "ctorch._utils\n_rebuild_tensor_v2\n",
    "ctorch\nFloatStorage\n",
    "ctorch\nLongStorage\n",
    "ctorch\nBoolStorage\n",
    "ctorch._utils\n_rebuild_parameter\n",
    "X\u{7}\0\0\0storage",
    "X\u{1}\0\0\u{0}0",
    "X\u{3}\0\0\0cpu",
    "K\u{10}",
    "K\0",
    "tQ",
    "tR",
    "}q\0",
    "(",
    ")",
    "N",
    "M\u{e9}\u{3}",
    "J\u{1}\0\0\0",
    "u.",
    "s.",
    "h\0",
    "PK\u{3}\u{4}",
    "PK\u{1}\u{2}",
    "PK\u{5}\u{6}",
    "PK\u{6}\u{6}",
    "PK\u{6}\u{7}",
    "archive/data.pkl",
    "archive/byteorder",
];

/// A file of `torch.save`, the zip archive or what it wrote before.
fn torch(scratch: &Scratch, input: &[u8]) -> Result<()> {
    read(&scratch.write("pytorch_model.bin", input))
}

/// A pickle, around which the archive is made.
fn pickle(scratch: &Scratch, input: &[u8]) -> Result<()> {
    read(&scratch.write("pytorch_model.bin", torch_zip(input)))
}

const TRAINER: &[&str] = &[
    "\"lnfree\"",
    "\"format\"",
    "\"version\"",
    "\"mode\"",
    "\"without_ln\"",
    "\"step\"",
    "\"optimizer_steps\"",
    "\"data_position\"",
    "\"data_fingerprint\"",
    "\"tokens\"",
    "\"base_model\"",
    "\"config\"",
    "\"model\"",
    "\"train\"",
    "\"norm\"",
    "\"momentum\"",
];

fn trainer(scratch: &Scratch, input: &[u8]) -> Result<()> {
    scratch.write("step-1/trainer.json", input);
    checkpoint::state(&scratch.file("step-1")).map(drop)
}

/// The header of an optimizer's state, for the parameters that the seeds have.
fn optimizer(scratch: &Scratch, input: &[u8]) -> Result<()> {
    let state = read_weights(&scratch.write("optimizer.safetensors", safetensors(input)))?;
    let parameter = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let named =
        vec![("wte.weight".to_string(), parameter(&[2, 2])), ("ln_f.bias".to_string(), parameter(&[2]))];
    let settings = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    AdamW::new(named, |_| true, settings).load(state, 1)
}

/// config.json, the header of the weights and of the LN state, and trainer.json: a model with one block.
fn whole_checkpoint(scratch: &Scratch, input: &[u8]) -> Result<()> {
    let [config, header, trainer] = parts(input);
    scratch.write("step-2/config.json", config);
    scratch.write("step-2/model.safetensors", safetensors(header));
    let state = scratch.file("step-2/trainer.json");
    if trainer.is_empty() {
        let _ = std::fs::remove_file(state);
    } else {
        scratch.write("step-2/trainer.json", trainer);
    }
    LoadedModel::load(&scratch.file("step-2"), None, Kind::Float, Device::Cpu).map(drop)
}

const SUMS: &[&str] = &[
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "  file",
    " *file",
    "../file",
    "SHA256SUMS",
    "\r\n",
];

/// SHA256SUMS of a folder with one file.
fn checksums(scratch: &Scratch, input: &[u8]) -> Result<()> {
    scratch.once("sums/file", || vec![0]);
    scratch.write("sums/SHA256SUMS", input);
    atomic::verify_checksums(&scratch.file("sums")).map(drop)
}
