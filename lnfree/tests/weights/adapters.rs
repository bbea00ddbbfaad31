//! Checkpoints of the paper's LoRA code: matrices in three parts.

use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::tch::{Kind, Tensor};

use crate::{line, vector};

/// tiny-a as the paper's LoRA code stores it, with adapters of `rank`.
fn in_parts(rank: i64) -> Weights {
    let mut stored = Weights::new();
    for (name, tensor) in read_weights(&vector("tiny-a")).unwrap() {
        let full = format!("transformer.{name}");
        let Some(layer) = full.strip_suffix(".weight").filter(|layer| layer.contains(".c_")) else {
            let bias = full.contains(".c_");
            stored.insert(if bias { full.replace(".bias", ".bias_frozen") } else { full }, tensor);
            continue;
        };
        let (rows, columns) = (tensor.size()[0], tensor.size()[1]);
        let numbers =
            |m: i64, n: i64| Tensor::arange(m * n, (Kind::Float, tensor.device())).sin().view([m, n]);
        stored.insert(format!("{layer}.lora_A"), numbers(rows, rank));
        stored.insert(format!("{layer}.lora_B"), numbers(rank, columns));
        stored.insert(format!("{layer}.weight_frozen"), tensor);
    }
    stored
}

fn read(weights: &Weights) -> lnfree::Result<Weights> {
    let folder = tempfile::tempdir().unwrap();
    write_safetensors(&folder.path().join("model.safetensors"), weights, &Default::default()).unwrap();
    read_weights(folder.path())
}

#[test]
fn adapters_are_added_to_what_they_adapt() {
    let (plain, stored) = (read_weights(&vector("tiny-a")).unwrap(), in_parts(5));
    let found = read(&stored).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for (name, tensor) in &found {
        let layer = format!("transformer.{}", name.trim_end_matches(".weight"));
        let expected = match stored.get(&format!("{layer}.lora_A")) {
            Some(a) => &plain[name] + a.matmul(&stored[&format!("{layer}.lora_B")]),
            None => plain[name].shallow_clone(),
        };
        let worst = (tensor - &expected).abs().max().double_value(&[]);
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}

#[test]
fn parts_that_are_missing_or_do_not_fit_are_named() {
    let layer = "transformer.h.1.mlp.c_fc";
    for part in ["bias_frozen", "lora_A", "lora_B"] {
        let mut stored = in_parts(2);
        stored.remove(&format!("{layer}.{part}"));
        let message = line(read(&stored));
        assert!(message.contains(&format!("{layer}.{part}")), "{message}");
    }
    let mut stored = in_parts(2);
    stored
        .insert(format!("{layer}.lora_B"), Tensor::zeros([3, 256], (Kind::Float, lnfree::tch::Device::Cpu)));
    let message = line(read(&stored));
    assert!(message.contains(&format!("{layer}.weight_frozen")) && message.contains("[3, 256]"), "{message}");
    // PEFT's, without the frozen parts, are still refused.
    let peft: Weights = [("h.0.mlp.c_fc.lora_A".to_string(), Tensor::from_slice(&[1f32]))].into();
    assert!(line(read(&peft)).contains("merge_and_unload"));
}
