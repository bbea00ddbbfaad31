//! Writing safetensors.

use std::collections::BTreeMap;
use std::fs;

use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::tch::{Device, Kind, Tensor};

use crate::{line, vector};

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn what_is_written_is_read_back_to_the_bit() {
    let weights = read_weights(&vector("weights/mixed.pt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &weights, &none()).unwrap();
    let again = read_weights(&path).unwrap();
    assert_eq!(again.keys().collect::<Vec<_>>(), weights.keys().collect::<Vec<_>>());
    for (name, tensor) in &weights {
        let other = &again[name];
        assert_eq!((other.kind(), other.size()), (tensor.kind(), tensor.size()), "{name}");
        assert!(other.equal(tensor), "{name}");
        assert!(other.is_contiguous(), "{name}");
    }
}

#[test]
fn the_crate_that_defines_the_format_reads_it() {
    let weights = read_weights(&vector("weights/mixed.pt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let metadata =
        BTreeMap::from([("step".to_string(), "30\n".to_string()), ("a".to_string(), "b".to_string())]);
    write_safetensors(&path, &weights, &metadata).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (header, parsed) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let stored = parsed.metadata().clone().unwrap();
    assert_eq!(stored["format"], "pt");
    assert_eq!((stored["step"].as_str(), stored["a"].as_str()), ("30\n", "b"));
    // Every tensor begins at a multiple of its element size, from the start of the file.
    assert_eq!((8 + header) % 8, 0);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), weights.len());
    for (name, info) in parsed.tensors() {
        assert_eq!(info.data_offsets.0 % (info.dtype.bitsize() / 8), 0, "{name}");
    }
    let scalar = tensors.tensor("scalar").unwrap();
    assert_eq!((scalar.data(), scalar.shape()), (2.5f32.to_le_bytes().as_slice(), [].as_slice()));
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |file: &str, name: &str| {
        let weights = read_weights(&vector("weights").join(file)).unwrap();
        let path = folder.path().join(name);
        let metadata = (0..9).map(|i| (i.to_string(), String::new())).collect();
        write_safetensors(&path, &weights, &metadata).unwrap();
        fs::read(path).unwrap()
    };
    assert_eq!(bytes("mixed.pt", "a.safetensors"), bytes("mixed_legacy.pt", "b.safetensors"));
}

#[test]
fn a_refused_or_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, "old").unwrap();
    let complex = Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu));
    let weights = Weights::from([("a".to_string(), complex)]);
    assert!(
        line(write_safetensors(&path, &weights, &none()))
            .contains("`a`: safetensors cannot hold ComplexFloat")
    );
    let weights = Weights::from([("__metadata__".to_string(), Tensor::from(1f32))]);
    assert!(line(write_safetensors(&path, &weights, &none())).contains("__metadata__"));
    let weights = Weights::from([("a".to_string(), Tensor::from(1f32))]);
    let missing = line(write_safetensors(&folder.path().join("no/model.safetensors"), &weights, &none()));
    assert!(missing.contains("there is no folder"), "{missing}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
