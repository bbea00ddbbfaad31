//! Activation, attribution and path patching and ablation: the numbers of the paper's code, and what is
//! reused against whole forwards with a hook.

mod ablations;
mod activations;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/ln_states.rs"]
mod ln_states;
mod metrics;
mod paths;

use lnfree::hook::Activation;
use lnfree::interp::{
    Ablation, AttributionPatching, Component, HeadSite, Means, Metric, Patching, Receiver, Sender, Substitute,
};
use lnfree::tch::{Device, Kind, Tensor};

use common::max_abs;
use ln_states::{load, texts};

#[track_caller]
fn same(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let worst = max_abs(found, expected);
    let limit = 1e-5 * expected.abs().max().double_value(&[]).max(1.0);
    assert!(worst < limit, "{what}: largest difference {worst:e}");
}

#[test]
fn no_analysis_changes_the_statistics() {
    let [clean, corrupted, answers] = texts();
    let (model, ln) = load("checkpoint/step60");
    let before = ln.statistics.copy();
    let metric = Metric::logit_difference(&answers);
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    patching.every_block().unwrap();
    patching.by_head(HeadSite::Q).unwrap();
    let _ = patching.recompute(Activation::ResidMid(1), None, None).unwrap();
    patching.paths_from_heads(Receiver::Logits).unwrap();
    AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).unwrap();
    let means = Means::of(&model, &ln, &corrupted).unwrap();
    let ablation = Ablation::new(&model, &ln, &clean, &metric, Substitute::Mean(&means)).unwrap();
    ablation.every_head().unwrap();
    assert_eq!(ln.statistics.running, before.running);
    assert_eq!(ln.statistics.frozen, before.frozen);
    assert!(!model.wte.grad().defined(), "a parameter has a gradient");
}

#[test]
fn what_cannot_be_patched_is_an_error_of_one_line() {
    let [clean, corrupted, answers] = texts();
    let (model, ln) = load("tiny-a");
    let metric = Metric::logit_difference(&answers);
    let error = |result: lnfree::Result<()>, says: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(says) && text.lines().count() == 1, "{text}");
    };
    let shorter = clean.narrow(1, 0, 5);
    let new = |ids: &Tensor, metric: &Metric| Patching::new(&model, &ln, ids, &corrupted, metric).map(drop);
    error(new(&shorter, &metric), "clean ids are [3, 5] and corrupted ids [3, 6]");
    error(AttributionPatching::of(&model, &ln, &shorter, &corrupted, &metric).map(drop), "[3, 5]");
    error(new(&clean, &Metric::logit_difference(&answers).at(6)), "position 6");
    error(new(&clean, &Metric::logit_difference(&answers.narrow(0, 0, 2))), "batch of 3");
    error(new(&clean, &Metric::new(|logits| logits.sum(Kind::Float))), "[batch]");
    let at = |positions: &[i64]| Metric::logit_difference(&answers).at_positions(positions);
    error(new(&clean, &at(&[4, 2])), "[4, 2]: name them in ascending order");
    error(new(&clean, &at(&[2, 2])), "each once");
    error(new(&clean, &at(&[2, 6])), "position 6");
    error(new(&clean, &at(&[])), "no position");
    let targets_of_two = Metric::loss(&clean.narrow(1, 0, 2)).at_positions(&[1, 2, 3]);
    error(new(&clean, &targets_of_two), "must be [3] or [3, 3]");
    let of_two = Tensor::zeros([3, 2, 256], (Kind::Float, Device::Cpu));
    error(metric.of_logits(&of_two).map(drop), "a metric of 1 positions");
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    error(patching.recompute(Activation::Z(1), None, Some(4)).map(drop), "no head 4");
    error(patching.recompute(Activation::MlpOut(1), None, Some(0)).map(drop), "no head 0");
    error(patching.recompute(Activation::MlpOut(1), Some(6), None).map(drop), "no position 6");
    error(patching.recompute(Activation::MlpOut(3), None, None).map(drop), "have that block");
    let late = patching.path(Sender::Mlp { layer: 2 }, Receiver::Q { layer: 2, head: 0 });
    error(late.map(drop), "writes after");
    let none = patching.path(Sender::Head { layer: 0, head: 4 }, Receiver::Logits);
    error(none.map(drop), "no head 4");
    let resample = Ablation::new(&model, &ln, &clean, &metric, Substitute::Resample(&shorter));
    error(resample.map(drop), "one shape");
    let ablation = Ablation::new(&model, &ln, &clean, &metric, Substitute::Zero).unwrap();
    error(ablation.of(&[Component::Mlp { layer: 3 }]).map(drop), "no block 3");
    error(ablation.of(&[Component::Neurons { layer: 0, neurons: vec![256] }]).map(drop), "no neuron 256");
    error(ablation.at(&[6]).map(drop), "no position 6");
}
