//! Runs in which adapters train and nothing else.

use std::collections::BTreeMap;

use lnfree::model::weights::read_weights;
use lnfree::tch::{Kind, Tensor};

use super::bad_input::refused;
use super::distill::taught;
use super::resume::{STOPS, metrics, same, stopped_and_resumed};
use super::{Place, common, strs};

fn of_checkpoint(place: &Place, run: &str, file: &str) -> BTreeMap<String, Tensor> {
    read_weights(&place.path(&format!("{run}/checkpoints/latest/{file}"))).unwrap()
}

/// Float32 products in float64, to compare with.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    a.to_kind(Kind::Double).matmul(&b.to_kind(Kind::Double))
}

#[test]
fn stopping_with_adapters_and_a_teacher_changes_nothing() {
    let place = Place::new();
    let more = taught(&["lora.rank=5", "distill.weight=0.7", "train.gradient_checkpointing=true"]);
    place.ok(&strs(&place.train("calm", &strs(&more))));
    stopped_and_resumed(&place, "stopped", &strs(&more), &STOPS);
    same(&place, "calm", "stopped");
    assert!(metrics(&place, "calm").iter().any(|line| line["kl_loss"].as_f64().is_some_and(|kl| kl > 0.0)));
}

#[test]
fn a_checkpoint_has_the_merged_matrices_and_everything_else_as_it_was() {
    let place = Place::new();
    let said = place.lnfree(&strs(&place.train("run", &["--set", "lora.rank=5"])));
    assert_eq!(said.code, Some(0), "{said:?}");
    let base = read_weights(&common::vector("tiny-a")).unwrap();
    let all: usize = base.values().map(Tensor::numel).sum();
    // Three blocks, whose four matrices have 16 · 64 rows and columns.
    let trained = 3 * 16 * 64 * 5;
    assert!(said.stderr.contains(&format!("{trained} of {all} parameters train")), "{}", said.stderr);
    let (merged, kept) = (
        of_checkpoint(&place, "run", "model.safetensors"),
        of_checkpoint(&place, "run", "optimizer.safetensors"),
    );
    let mut adapted = 0;
    for (name, before) in &base {
        let after = &merged[name];
        let Some(a) = kept.get(&name.replace(".weight", ".adapter_A")) else {
            assert_eq!(common::max_abs(after, before), 0.0, "{name}");
            continue;
        };
        adapted += 1;
        let b = &kept[&name.replace(".weight", ".adapter_B")];
        assert_eq!(common::max_abs(&kept[&name.replace(".weight", ".frozen")], before), 0.0, "{name}");
        let sum = before.to_kind(Kind::Double) + product(a, b);
        assert!(common::max_abs(after, &sum) < 1e-6 && common::max_abs(after, before) > 1e-5, "{name}");
    }
    assert_eq!((adapted, kept.keys().filter(|name| name.ends_with(".exp_avg")).count()), (12, 24));
    // What is exported is a model like any other.
    place.ok(&[
        "export",
        "run/checkpoints/latest",
        "--format",
        "folded",
        "--ignore-special",
        "--out",
        "folded",
    ]);
    place.ok(&["eval", "-m", "folded", "-d", "tokens.arrow"]);
}

#[test]
fn a_batch_in_parts_trains_adapters_as_a_whole_one_does() {
    let place = Place::new();
    for (run, micro_batch) in [("whole", "train.micro_batch_size=2"), ("parts", "train.micro_batch_size=1")] {
        place.ok(&strs(
            &place.train(run, &["--set", "lora.rank=5", "--set", "train.dropout=0.0", "--set", micro_batch]),
        ));
    }
    let [whole, parts] = ["whole", "parts"].map(|run| of_checkpoint(&place, run, "optimizer.safetensors"));
    for (name, tensor) in
        whole.iter().filter(|(name, _)| name.contains(".adapter_") && !name.contains("exp_"))
    {
        assert!(common::max_abs(tensor, &parts[name]) < 1e-4, "{name}");
    }
}

#[test]
fn ranks_that_cannot_be_are_refused() {
    let place = Place::new();
    refused(&place, "lora.rank=0", &["lora.rank", "between 1 and"]);
    refused(&place, "lora.rank=-1", &["lora.rank"]);
    refused(&place, "lora.rank=65", &["lora.rank", "n_embd = 64", "leave it out"]);
    refused(&place, "lora.alpha=16", &["alpha", "unknown field"]);
    for (set, words) in [
        ("train.param_dtype=bfloat16", ["train.param_dtype", "lora.rank"]),
        ("train.decay_ln=true", ["train.decay_ln", "lora.rank"]),
    ] {
        place.fails(&strs(&place.train("run", &["--set", "lora.rank=4", "--set", set])), &words);
    }
    assert!(!place.path("run/checkpoints").exists());
}
