//! The safetensors format: an 8-byte header length, a JSON header, the tensors' bytes.
//!
//! The header is parsed and validated by the `safetensors` crate. The bytes are read straight into the
//! tensors and not through a memory map: that is one copy less, and a file that another process cuts short
//! meanwhile is an error instead of a SIGBUS.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::ser::{SerializeMap, Serializer};
use tch::{Kind, Tensor};

use super::{Weights, Why, file_error, names, raw};
use crate::base::atomic::write_atomic;
use crate::{Error, Result};

/// More header than any model has (gpt2-xl: 0.1 MB), little enough to parse without a thought.
const MAX_HEADER: u64 = 16 << 20;

/// The tensors of an open safetensors file under their stored names, masks left out.
pub(super) fn read(file: &mut File) -> Why<Vec<(String, Tensor)>> {
    let (start, metadata) = read_header(file)?;
    let mut infos: Vec<_> = metadata.tensors().into_iter().collect();
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut tensors = Vec::new();
    for (name, info) in infos {
        if !names::is_mask(&name) {
            let tensor = read_tensor(file, start, info).map_err(|why| format!("`{name}`: {why}"))?;
            tensors.push((name, tensor));
        }
    }
    Ok(tensors)
}

/// Where the data starts, and the header: its offsets cover the rest of the file without gap or overlap.
fn read_header(file: &mut File) -> Why<(u64, Metadata)> {
    let io = |e: std::io::Error| e.to_string();
    let length = file.metadata().map_err(io)?.len();
    let mut prefix = [0; 8];
    if length < 8 {
        return Err(format!("is not a safetensors file: only {length} bytes long"));
    }
    file.read_exact(&mut prefix).map_err(io)?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > MAX_HEADER || header_length > length - 8 {
        return Err(format!(
            "is damaged or not a safetensors file: it announces a header of {header_length} bytes, \
             and has {length} bytes in all"
        ));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|e| format!("has a damaged header: {e}; fetch or write the file again"))?;
    let (expected, found) = (metadata.data_len() as u64, length - 8 - header_length);
    if expected != found {
        let what = if found < expected { "truncated" } else { "damaged" };
        return Err(format!(
            "is {what}: the header describes {expected} bytes of tensors, {found} are there; \
             fetch or write the file again"
        ));
    }
    Ok((8 + header_length, metadata))
}

/// Reads one tensor. The header's validation has matched its size with its shape and dtype.
fn read_tensor(file: &mut File, start: u64, info: &TensorInfo) -> Why<Tensor> {
    let shape: Vec<i64> = info
        .shape
        .iter()
        .map(|&n| i64::try_from(n))
        .collect::<Result<_, _>>()
        .map_err(|_| format!("absurd shape {:?}", info.shape))?;
    let kind = kind(info.dtype).ok_or_else(|| format!("dtype {:?} is not supported", info.dtype))?;
    file.seek(SeekFrom::Start(start + info.data_offsets.0 as u64)).map_err(|e| e.to_string())?;
    raw::tensor_filled(&shape, kind, |bytes| file.read_exact(bytes).map_err(|e| e.to_string()))
}

/// Writes `weights` as one safetensors file, all or nothing, one tensor at a time.
///
/// `metadata` is kept in the header beside `{"format": "pt"}`, which transformers asks for. Tensors may be on
/// any device and need not be contiguous. The same tensors and metadata give the same bytes: larger element
/// types first (so that every tensor is aligned), then by name.
///
/// # Errors
/// [`Error::File`] naming `path`: a dtype that the format lacks, a name that it reserves, or what
/// [`write_atomic`] reports.
pub fn write_safetensors(path: &Path, weights: &Weights, metadata: &BTreeMap<String, String>) -> Result<()> {
    let entries = layout(weights).map_err(|why| file_error(path, why))?;
    let header = header(&entries, metadata).map_err(|e| file_error(path, e))?;
    write_atomic(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(Error::io(path))?;
        file.write_all(&header).map_err(Error::io(path))?;
        entries.iter().try_for_each(|(name, _)| write_tensor(path, file, name, &weights[*name]))
    })
}

fn write_tensor(path: &Path, file: &mut BufWriter<&File>, name: &str, tensor: &Tensor) -> Result<()> {
    raw::with_bytes(tensor, |bytes| file.write_all(bytes))
        .map_err(|why| file_error(path, format!("`{name}`: {why}")))?
        .map_err(Error::io(path))
}

/// Names in the order of the file, each with its place in the data.
fn layout(weights: &Weights) -> Why<Vec<(&str, TensorInfo)>> {
    let mut entries = Vec::new();
    for (name, tensor) in weights {
        if name == "__metadata__" {
            return Err("a tensor cannot be called `__metadata__` in a safetensors file".into());
        }
        let dtype = dtype(tensor.kind())
            .ok_or_else(|| format!("`{name}`: safetensors cannot hold {:?}", tensor.kind()))?;
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        entries.push((name.as_str(), TensorInfo { dtype, shape, data_offsets: (0, 0) }));
    }
    entries.sort_by_key(|(_, info)| std::cmp::Reverse(info.dtype.bitsize()));
    let mut end = 0;
    for (_, info) in &mut entries {
        let start = end;
        end += info.shape.iter().product::<usize>() * info.dtype.bitsize() / 8;
        info.data_offsets = (start, end);
    }
    Ok(entries)
}

/// The JSON header, padded with spaces so that the data starts at a multiple of 8 bytes.
fn header(
    entries: &[(&str, TensorInfo)],
    metadata: &BTreeMap<String, String>,
) -> serde_json::Result<Vec<u8>> {
    let mut metadata = metadata.clone();
    metadata.entry("format".into()).or_insert_with(|| "pt".into());
    let mut bytes = Vec::new();
    let mut json = serde_json::Serializer::new(&mut bytes);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("__metadata__", &metadata)?;
    for (name, info) in entries {
        map.serialize_entry(name, info)?;
    }
    map.end()?;
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        _ => return None,
    })
}

fn dtype(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Bool => Dtype::BOOL,
        Kind::Uint8 => Dtype::U8,
        Kind::Int8 => Dtype::I8,
        Kind::Int16 => Dtype::I16,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        _ => return None,
    })
}
