//! Good files, compared with what PyTorch reads from them (`tests/vectors/weights/make.py`).

use lnfree::model::weights::{Weights, check_finite, read_weights};
use lnfree::tch::{Device, Kind, Tensor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{line, read_bytes, vector};

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(vector("weights/expected.json")).unwrap()).unwrap()
}

fn dtype(tensor: &Tensor) -> &'static str {
    match tensor.kind() {
        Kind::Bool => "bool",
        Kind::Uint8 => "uint8",
        Kind::Int8 => "int8",
        Kind::Int16 => "int16",
        Kind::Int => "int32",
        Kind::Int64 => "int64",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Float => "float32",
        Kind::Double => "float64",
        other => panic!("{other:?}"),
    }
}

/// Dtype, shape and every value as PyTorch printed them; float64 holds each of them exactly.
fn assert_is(name: &str, tensor: &Tensor, expected: &Value) {
    assert_eq!(dtype(tensor), expected["dtype"], "{name}");
    let shape: Vec<i64> = serde_json::from_value(expected["shape"].clone()).unwrap();
    assert_eq!(tensor.size(), shape, "{name}");
    assert_eq!(tensor.device(), Device::Cpu);
    let values: Vec<f64> = serde_json::from_value(expected["values"].clone()).unwrap();
    let found = Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap();
    assert_eq!(found, values, "{name}");
}

fn assert_is_mixed(file: &str) -> Weights {
    let weights = read_weights(&vector("weights").join(file)).unwrap();
    let expected = expected();
    let expected = expected["mixed"].as_object().unwrap();
    for (name, value) in expected {
        let name = name.trim_start_matches("transformer.");
        assert_is(name, &weights[name], value);
    }
    // And no more than those: the masks are gone.
    assert_eq!(weights.len(), expected.len());
    weights
}

#[test]
fn every_kind_of_tensor_is_read_from_a_zip() {
    let weights = assert_is_mixed("mixed.pt");
    assert_eq!(weights["wte.weight"].data_ptr(), weights["lm_head.weight"].data_ptr(), "tied in the file");
    assert_eq!(weights["transposed"].stride(), [1, 6]);
}

#[test]
fn every_kind_of_tensor_is_read_from_protocol_4_and_without_checksums() {
    assert_is_mixed("mixed_protocol4.pt");
    assert_is_mixed("mixed_no_checksums.pt");
}

#[test]
fn every_kind_of_tensor_is_read_from_the_format_before_pytorch_1_6() {
    let weights = assert_is_mixed("mixed_legacy.pt");
    assert_eq!(weights["wte.weight"].data_ptr(), weights["lm_head.weight"].data_ptr(), "tied in the file");
}

#[test]
fn a_checkpoint_of_the_reference_is_read_to_the_bit() {
    let weights = read_weights(&vector("checkpoint/step30")).unwrap();
    let expected = &expected()["step30"];
    assert_eq!(weights.len() as u64, expected["tensors"].as_u64().unwrap());
    let mut hasher = Sha256::new();
    for (name, tensor) in &weights {
        hasher.update(format!("{name} {} {:?}\n", dtype(tensor), tensor.size()));
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        hasher.update(bytes);
    }
    let found: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(found, expected["sha256"]);
    for (name, value) in expected["values"].as_object().unwrap() {
        assert_is(name, &weights[name], value);
    }
    check_finite(&weights, &vector("checkpoint/step30")).unwrap();
}

#[test]
fn values_that_are_not_finite_are_found_in_every_dtype() {
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let tensor = Tensor::zeros([3, 4], (kind, Device::Cpu));
            let mut weights = Weights::from([
                ("a".to_string(), tensor.shallow_clone()),
                ("b".to_string(), Tensor::ones([2], (Kind::Bool, Device::Cpu))),
                ("c".to_string(), Tensor::zeros([0], (kind, Device::Cpu))),
            ]);
            let path = std::path::Path::new("model.safetensors");
            check_finite(&weights, path).unwrap();
            let _ = tensor.get(1).get(2).fill_(bad);
            let _ = tensor.get(2).get(0).fill_(bad);
            weights.insert("d".into(), tensor);
            let message = line(check_finite(&weights, path));
            assert!(message.starts_with("model.safetensors: `a`: 2 of 12 values"), "{message}");
            assert!(message.contains("[1, 2]"), "{message}");
        }
    }
}

#[test]
fn what_is_no_weights_file_is_told_apart() {
    let cases: [(&str, &[u8], &str); 9] = [
        ("a.bin", b"", "is empty"),
        ("a.bin", b"hello, world, this is no weights file", "is not a file that torch.save wrote"),
        ("a.bin", b"\x10\0\0\0\0\0\0\0{\"a\":1}", "looks like a safetensors file"),
        ("a.bin", b"PK\x03\x04 and then nothing", "is truncated"),
        ("a.safetensors", b"", "only 0 bytes"),
        ("a.safetensors", b"\x02\0\0\0\0\0\0\0{}", "holds no tensors"),
        ("a.safetensors", b"PK\x03\x04\0\0\0\0\0\0\0\0", "is damaged or not a safetensors file"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid x", "git lfs pull"),
        ("a.gguf", b"GGUF", "is not a .safetensors, .bin"),
    ];
    for (name, bytes, expected) in cases {
        let message = line(read_bytes(name, bytes).1);
        assert!(message.contains(expected), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(line(read_weights(folder.path())).contains("there is nothing"));
    std::fs::write(folder.path().join("tf_model.h5"), "x").unwrap();
    let message = line(read_weights(folder.path()));
    assert!(
        message.contains("looked for model.safetensors, ") && message.contains("there is tf_model.h5"),
        "{message}"
    );
    assert!(line(read_weights(&folder.path().join("gone.bin"))).contains("gone.bin: No such file"));
}
