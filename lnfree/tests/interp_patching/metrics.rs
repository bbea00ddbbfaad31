//! What metrics read, at one position and at several.

use std::cell::Cell;

use lnfree::hook::{Activation, NoHook};
use lnfree::interp::{
    Ablation, AttributionPatching, EdgeAttribution, HeadSite, Metric, Patching, Receiver, StreamSite,
    Substitute,
};
use lnfree::loss::{targets, token_losses};
use lnfree::model::Compute;
use lnfree::tch::{Device, Kind, Tensor, no_grad};

use super::common::max_abs;
use super::ln_states::{load, states, texts};
use super::same;

/// Metrics that read all logits, and one that reads a position before the last.
#[test]
fn any_metric_is_read_where_it_says() {
    let [clean, corrupted, _] = texts();
    let (model, ln) = load("checkpoint/step30");
    let next = Tensor::from_slice(&[9i64, 2, 45]);
    let logits = no_grad(|| model.forward(&clean, &ln, Compute::default(), &mut NoHook)).unwrap();
    let own = |metric: Metric, at: i64| {
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        same(&patching.clean, &metric.of_logits(&logits.select(1, at)).unwrap(), "of the clean run");
        let found = patching.by_position(StreamSite::ResidPre).unwrap();
        assert_eq!(found.metric.size(), [3, 6, 3]);
        for (layer, pos) in [(0, 2), (1, 3), (2, 3), (2, at)] {
            let expected = patching.recompute(Activation::ResidPre(layer), Some(pos), None).unwrap();
            same(&found.metric.get(layer as i64).get(pos), &expected, &format!("{layer}, {pos}"));
        }
        // What comes behind the position that is read cannot change it.
        if at < 5 {
            let behind = found.effect().narrow(1, at + 1, 5 - at);
            assert_eq!(max_abs(&behind, &behind.zeros_like()), 0.0);
            let attributed = AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).unwrap();
            assert_eq!(attributed.z.size(), [3, 6, 4, 3]);
            assert_eq!(max_abs(&attributed.resid_pre.narrow(1, at + 1, 5 - at), &behind), 0.0);
        }
        (patching.clean.copy(), patching.corrupted.copy())
    };
    let (loss, _) = own(Metric::loss(&next).at(4), 4);
    let expected = token_losses(&logits.narrow(1, 0, 5), &targets(&clean, None));
    same(&loss, &expected.select(1, 4), "loss");
    let (own_kl, other_kl) = own(Metric::kl_divergence(&logits.select(1, 5)), 5);
    assert!(own_kl.abs().max().double_value(&[]) < 1e-6, "no distance from itself");
    assert!(other_kl.max().double_value(&[]) > 1e-4);
    let largest = |logits: &Tensor| logits.amax([-1i64], false);
    let _ = own(Metric::new(largest), 5);
}

/// Values against whole logits, patches against whole forwards.
#[test]
fn a_metric_at_several_positions_is_the_mean_over_them() {
    let [clean, corrupted, _] = texts();
    let read = [1i64, 3, 4];
    let index = Tensor::from_slice(&read);
    let next = clean.index_select(1, &(&index + 1i64));
    let answers = Tensor::arange(18i64, (Kind::Int64, Device::Cpu)).view([3, 3, 2]) * 13i64;
    let mean = |x: &Tensor| x.mean_dim(-1i64, false, Kind::Float);
    let largest = |logits: &Tensor| logits.amax([-1i64], false);
    for (name, model, ln) in states() {
        let logits = no_grad(|| model.forward(&clean, &ln, Compute::default(), &mut NoHook)).unwrap();
        let there = logits.index_select(1, &index);
        let losses = token_losses(&logits.narrow(1, 0, 5), &targets(&clean, None)).index_select(1, &index);
        let found = there.gather(-1, &answers, false);
        let differences = found.select(2, 0) - found.select(2, 1);
        let none = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        for (what, metric, expected) in [
            ("loss", Metric::loss(&next), mean(&losses)),
            ("logit difference", Metric::logit_difference(&answers), mean(&differences)),
            ("distance from itself", Metric::kl_divergence(&there), none),
            ("largest logit", Metric::new(largest), mean(&largest(&there))),
        ] {
            let (what, metric) = (format!("{name}: {what}"), metric.at_positions(&read));
            same(&metric.of_logits(&there).unwrap(), &expected, &what);
            let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
            same(&patching.clean, &expected, &what);
            let streams = patching.by_position(StreamSite::AttnOut).unwrap();
            let heads = patching.by_head(HeadSite::V).unwrap().metric;
            let keys = patching.by_head_and_position(HeadSite::K).unwrap().metric;
            for (layer, pos) in (0..3).flat_map(|layer| (0..5).map(move |pos| (layer, pos))) {
                let of = |x: &Tensor| x.get(layer as i64).get(pos);
                let what = format!("{what}, block {layer}, position {pos}");
                let expected = patching.recompute(Activation::AttnOut(layer), Some(pos), None).unwrap();
                same(&of(&streams.metric), &expected, &what);
                let expected = patching.recompute(Activation::K(layer), Some(pos), Some(2)).unwrap();
                same(&of(&keys).get(2), &expected, &what);
            }
            for (layer, head) in (0..3).flat_map(|layer| (0..4).map(move |head| (layer, head))) {
                let expected = patching.recompute(Activation::V(layer), None, Some(head)).unwrap();
                same(&heads.get(layer as i64).get(head), &expected, &format!("{what}, head {layer}.{head}"));
            }
            // What comes behind the last position that is read cannot change it.
            let behind = streams.effect().narrow(1, 5, 1);
            assert_eq!(max_abs(&behind, &behind.zeros_like()), 0.0, "{what}");
            assert!(streams.effect().abs().max().double_value(&[]) > 0.0, "{what}: nothing was patched");
        }
        let shared = Metric::logit_difference(&answers.select(1, 0)).at_every_position();
        let found = logits.gather(-1, &answers.narrow(1, 0, 1).expand([3, 6, 2], false), false);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &shared).unwrap();
        same(&patching.clean, &mean(&(found.select(2, 0) - found.select(2, 1))), name);
    }
}

/// Everything that reads a metric is linear in it where it does not divide by it.
#[test]
fn what_is_found_at_several_positions_is_the_mean_of_what_is_found_at_each() {
    let [clean, corrupted, _] = texts();
    let read = [1i64, 3, 4];
    let answers = Tensor::arange(18i64, (Kind::Int64, Device::Cpu)).view([3, 3, 2]) * 13i64;
    let together = Metric::logit_difference(&answers).at_positions(&read);
    let each = (0i64..).zip(read).map(|(i, at)| Metric::logit_difference(&answers.select(1, i)).at(at));
    let each: Vec<Metric> = each.collect();
    for (name, model, ln) in states() {
        let check = |what: &str, found: &dyn Fn(&Metric) -> Tensor| {
            let parts: Vec<Tensor> = each.iter().map(found).collect();
            let expected = Tensor::stack(&parts, 0).mean_dim(0i64, false, Kind::Float);
            same(&found(&together), &expected, &format!("{name}: {what}"));
            assert!(max_abs(&parts[0], &parts[1]) > 1e-6, "{name}: {what}: all positions are alike");
        };
        let attributed =
            |metric: &Metric| AttributionPatching::of(&model, &ln, &clean, &corrupted, metric).unwrap();
        check("attribution of heads", &|metric| attributed(metric).z);
        check("metric of the corrupted run", &|metric| attributed(metric).corrupted);
        check("edges", &|metric| {
            EdgeAttribution::of(&model, &ln, &clean, &corrupted, metric).unwrap().scores
        });
        check("paths", &|metric| {
            let patching = Patching::new(&model, &ln, &clean, &corrupted, metric).unwrap();
            patching.paths_from_heads(Receiver::K { layer: 2, head: 1 }).unwrap().metric
        });
        check("ablations", &|metric| {
            let ablation = Ablation::new(&model, &ln, &clean, metric, Substitute::Zero).unwrap();
            ablation.every_head().unwrap().metric
        });
    }
}

#[test]
fn no_logits_are_made_that_a_metric_does_not_read() {
    let [clean, corrupted, _] = texts();
    let (model, ln) = load("checkpoint/step30");
    let called = Cell::new(0);
    let metric = Metric::new(|logits| {
        called.set(called.get() + 1);
        logits.amax([-1i64], false)
    });
    let metric = metric.at_positions(&[1, 4]);
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    assert_eq!(called.take(), 4, "two runs at two positions");
    patching.by_position(StreamSite::ResidPre).unwrap();
    // The texts differ at positions 2 and 3 and, behind block 0, at 4 too: none of these patches reaches
    // position 1.
    assert_eq!(called.take(), 2 + 3 + 3);
    patching.by_layer(StreamSite::ResidPre).unwrap();
    assert_eq!(called.take(), 3 * 2);
}
