//! Weights in several files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::tch::Tensor;
use serde_json::json;

use crate::files::{dict, storage, tensor, torch_zip};
use crate::line;

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

fn write(folder: &Path, name: &str, tensors: &[(&str, f32)]) {
    let weights: Weights =
        tensors.iter().map(|(name, value)| (name.to_string(), Tensor::from_slice(&[*value]))).collect();
    write_safetensors(&folder.join(name), &weights, &BTreeMap::new()).unwrap();
}

fn write_index(folder: &Path, map: &[(&str, &str)]) {
    let map: BTreeMap<_, _> = map.iter().copied().collect();
    let index = json!({"metadata": {"total_size": 8}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// Two good shards with `a` and `b`, and their index.
fn good() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), SHARDS[0], &[("transformer.a", 1.0)]);
    write(folder.path(), SHARDS[1], &[("transformer.b", 2.0), ("transformer.h.0.attn.bias", 0.0)]);
    write_index(folder.path(), &[("transformer.a", SHARDS[0]), ("transformer.b", SHARDS[1])]);
    folder
}

#[test]
fn shards_are_read_from_the_folder_and_from_the_index() {
    let folder = good();
    // A shard of another set is none of ours.
    write(folder.path(), "model-00003-of-00003.safetensors", &[("z", 1.0)]);
    for path in [folder.path().to_path_buf(), folder.path().join("model.safetensors.index.json")] {
        let weights = read_weights(&path).unwrap();
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(weights["b"], Tensor::from_slice(&[2f32]));
    }
}

#[test]
fn pickles_can_be_shards_and_single_files_come_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (name, value) in [("x", 3f32), ("y", 4.0)] {
        let pickle = dict(name, &tensor(&storage("Float", "0", 1), 0, &[1], &[1]));
        fs::write(path.join(format!("{name}.bin")), torch_zip(&pickle, &[&value.to_le_bytes()])).unwrap();
    }
    let index = json!({"weight_map": {"x": "x.bin", "y": "y.bin"}});
    fs::write(path.join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    assert_eq!(read_weights(path).unwrap()["y"], Tensor::from_slice(&[4f32]));
    fs::copy(path.join("x.bin"), path.join("pytorch_model.bin")).unwrap();
    assert_eq!(read_weights(path).unwrap().len(), 1);
    write(path, "model.safetensors", &[("s", 1.0)]);
    assert!(read_weights(path).unwrap().contains_key("s"));
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn what_every_model_needs_has_to_be_there() {
    let message = |change: &dyn Fn(&Path)| {
        let folder = good();
        change(folder.path());
        line(read_weights(folder.path()))
    };
    let gone = message(&|path| fs::remove_file(path.join(SHARDS[1])).unwrap());
    assert!(gone.contains(&format!("the shard {} is missing (1 of 2 are there)", SHARDS[1])), "{gone}");
    for needed in ["transformer.wte.weight", "transformer.h.7.mlp.c_fc.bias", "_orig_mod.ln_f.bias"] {
        let lacking = message(&|path| {
            write_index(
                path,
                &[("transformer.a", SHARDS[0]), ("transformer.b", SHARDS[1]), (needed, SHARDS[1])],
            );
        });
        assert!(lacking.contains(SHARDS[1]), "{lacking}");
        assert!(lacking.contains(&format!("does not hold `{needed}`")), "{lacking}");
    }
    let truncated = message(&|path| fs::write(path.join(SHARDS[0]), [1; 20]).unwrap());
    assert!(truncated.contains(SHARDS[0]), "{truncated}");
}

/// transformers loads all of these.
#[test]
fn the_shards_say_what_there_is() {
    let read = |change: &dyn Fn(&Path)| {
        let folder = good();
        change(folder.path());
        let weights = read_weights(folder.path()).unwrap();
        weights.iter().map(|(name, value)| format!("{name}={}", value.double_value(&[0]))).collect::<Vec<_>>()
    };
    let index = |map: &'static [(&str, &str)]| read(&move |path: &Path| write_index(path, map));
    let (a, b) = (("transformer.a", SHARDS[0]), ("transformer.b", SHARDS[1]));
    let good = ["a=1", "b=2"];
    for more in
        ["lm_head.weight", "transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias", "score.weight"]
    {
        assert_eq!(read(&|path| write_index(path, &[a, b, (more, SHARDS[1])])), good, "{more}");
    }
    // Named in the other shard, or not at all.
    assert_eq!(index(&[("transformer.a", SHARDS[1]), ("transformer.b", SHARDS[0])]), good);
    assert_eq!(
        read(&|path| write(path, SHARDS[1], &[("transformer.b", 2.0), ("d", 3.0)])),
        ["a=1", "b=2", "d=3"]
    );
    // A shard that no tensor is named in is not read.
    assert_eq!(index(&[("transformer.a", SHARDS[0])]), ["a=1"]);
    // Of two the index says which.
    let twice = |path: &Path| write(path, SHARDS[1], &[("transformer.b", 2.0), ("transformer.a", 9.0)]);
    assert_eq!(read(&twice), good);
    let other = |path: &Path| {
        twice(path);
        write_index(path, &[("transformer.a", SHARDS[1]), ("transformer.b", SHARDS[1]), ("c", SHARDS[0])]);
    };
    assert_eq!(read(&other), ["a=9", "b=2"]);
    let neither = |path: &Path| {
        twice(path);
        write_index(path, &[("c", SHARDS[0]), ("transformer.b", SHARDS[1])]);
    };
    let folder = self::good();
    neither(folder.path());
    let message = line(read_weights(folder.path()));
    assert!(message.contains("holds `transformer.a`, and so does model-00001"), "{message}");
}

#[test]
fn what_an_index_says_beside_its_map_does_not_matter() {
    let map = format!("{{\"transformer.a\": \"{}\", \"transformer.b\": \"{}\"}}", SHARDS[0], SHARDS[1]);
    for (bom, metadata) in [
        ("", "{\"total_size\": 1}"),
        ("", "{\"total_size\": NaN, \"format\": \"mlx\"}"),
        ("", "null"),
        ("\u{FEFF}", "[Infinity]"),
    ] {
        let folder = good();
        let text = format!("{bom}{{\"metadata\": {metadata}, \"weight_map\": {map}}}");
        fs::write(folder.path().join(INDEX), text).unwrap();
        assert_eq!(read_weights(folder.path()).unwrap().len(), 2, "{metadata}");
    }
}

#[test]
fn the_same_tensor_with_and_without_prefix_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", &[("wte.weight", 1.0), ("transformer.wte.weight", 2.0)]);
    let message = line(read_weights(folder.path()));
    assert!(message.contains("holds `wte.weight` twice"), "{message}");
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    for shard in ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", ".", "x.index.json"] {
        let folder = good();
        write_index(folder.path(), &[("a", shard)]);
        let message = line(read_weights(folder.path()));
        assert!(message.contains("not a file beside it"), "{shard}: {message}");
    }
    for text in
        ["", "{", "[]", "{}", "{\"weight_map\": []}", "{\"weight_map\": {\"a\": 1}}", "{\"weight_map\": {}}"]
    {
        let folder = good();
        fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
        let message = line(read_weights(folder.path()));
        assert!(message.contains("index.json: "), "{text}: {message}");
    }
}
