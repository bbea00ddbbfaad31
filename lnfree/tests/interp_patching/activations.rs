//! Patches of activations, and their slopes.

use lnfree::hook::{Activation, Capture, only};
use lnfree::interp::{AttributionPatching, HeadSite, Metric, Patching, StreamSite};
use lnfree::model::{Compute, LoadedModel};
use lnfree::tch::{self, Device, Kind, Tensor};

use super::common::{self, max_abs, of_the_paper, tensors};
use super::ln_states::{states, texts};
use super::same;

const SITES: [StreamSite; 4] =
    [StreamSite::ResidPre, StreamSite::ResidMid, StreamSite::AttnOut, StreamSite::MlpOut];

/// Absolute 2e-5 or relative 1e-4: how far libraries differ.
#[track_caller]
fn near(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let beyond = (found - expected).abs() - (expected.abs() * 1e-4).clamp_min(2e-5);
    let worst = beyond.max().double_value(&[]);
    assert!(worst <= 0.0, "{what}: {worst:e} beyond the limit");
}

#[test]
fn patches_are_those_of_the_papers_code() {
    let recorded = tensors("interp_tensors.safetensors");
    let [clean, corrupted, answers] =
        ["clean_tokens", "corrupted_tokens", "answer_tokens"].map(|name| &recorded[&format!("patch.{name}")]);
    let runs = common::json("interp.json");
    for name in ["baseline", "finetuned", "noLN"] {
        let LoadedModel { model, ln, .. } = of_the_paper(name);
        let metric = Metric::logit_difference(answers);
        let patching = Patching::new(&model, &ln, clean, corrupted, &metric).unwrap();
        for (found, key) in [(&patching.clean, "clean"), (&patching.corrupted, "corrupted")] {
            let expected = runs["patching"][name][format!("{key}_logit_diff")].as_array().unwrap();
            let expected: Vec<f32> = expected.iter().map(|x| x.as_f64().unwrap() as f32).collect();
            near(found, &Tensor::from_slice(&expected), &format!("{name} {key}"));
        }
        let found = patching.by_position(StreamSite::ResidPre).unwrap();
        near(&found.effect(), &recorded[&format!("patch.activation.{name}")], name);
        let found = AttributionPatching::of(&model, &ln, clean, corrupted, &metric).unwrap();
        near(&found.resid_pre, &recorded[&format!("patch.attribution.{name}")], name);
        near(&found.corrupted, &patching.corrupted, name);
        near(&found.clean, &patching.clean, name);
    }
}

#[test]
fn what_is_reused_gives_what_whole_forwards_give() {
    let [clean, corrupted, answers] = texts();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        for site in SITES {
            let found = patching.by_position(site).unwrap().metric;
            let whole = patching.by_layer(site).unwrap().metric;
            for layer in 0..3 {
                let at = site.activation(layer);
                for pos in 0..6 {
                    let expected = patching.recompute(at, Some(pos), None).unwrap();
                    let found = found.get(layer as i64).get(pos);
                    same(&found, &expected, &format!("{name}: {at}, position {pos}"));
                }
                let expected = patching.recompute(at, None, None).unwrap();
                same(&whole.get(layer as i64), &expected, &format!("{name}: {at}"));
            }
        }
        for site in HeadSite::ALL {
            let found = patching.by_head(site).unwrap().metric;
            let by_position =
                (site != HeadSite::Pattern).then(|| patching.by_head_and_position(site).unwrap().metric);
            for (layer, head) in (0..3).flat_map(|layer| (0..4).map(move |head| (layer, head))) {
                let at = site.activation(layer);
                let expected = patching.recompute(at, None, Some(head)).unwrap();
                same(&found.get(layer as i64).get(head), &expected, &format!("{name}: {at} {head}"));
                for pos in [0, 2, 3, 5] {
                    let Some(found) = &by_position else { continue };
                    let found = found.get(layer as i64).get(pos).get(head);
                    let expected = patching.recompute(at, Some(pos), Some(head)).unwrap();
                    same(&found, &expected, &format!("{name}: {at} {head}, position {pos}"));
                }
            }
        }
        assert!(patching.by_head_and_position(HeadSite::Pattern).is_err());
    }
}

#[test]
fn between_the_two_runs() {
    let [clean, corrupted, answers] = texts();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        // All of the stream before the first block is the clean run.
        let all = patching.by_layer(StreamSite::ResidPre).unwrap();
        let first = all.metric.get(0);
        same(&first, &patching.recompute(Activation::ResidPre(0), None, None).unwrap(), name);
        // The third corrupted text has end-of-text where the clean one has another token, and a patch of the
        // stream leaves the ids, by which LNs that set end-of-text apart go, as they are.
        let texts = if name == "fake, position 0 apart" { 2 } else { 3 };
        same(&first.narrow(0, 0, texts), &patching.clean.narrow(0, 0, texts), name);
        assert!(texts < 3 || (all.normalised().double_value(&[0]) - 1.0).abs() < 1e-2, "{name}");
        // Texts that are alike up to a position have nothing to patch there, and bit for bit so.
        let found = patching.by_position(StreamSite::ResidPre).unwrap();
        assert_eq!(
            max_abs(&found.effect().narrow(1, 0, 2), &Tensor::zeros([1], (Kind::Float, Device::Cpu))),
            0.0
        );
        assert!(found.effect().abs().max().double_value(&[]) > 1e-3, "{name}: nothing was patched");
        let alike = Patching::new(&model, &ln, &corrupted, &corrupted, &metric).unwrap();
        for site in SITES {
            let worst = max_abs(&alike.by_position(site).unwrap().metric, &alike.clean);
            assert!(worst < 1e-5, "{name}: {site:?}: {worst:e}");
        }
        let [resid_pre, attn_out, mlp_out] = patching.every_block().unwrap();
        for (block, site) in [(resid_pre, SITES[0]), (attn_out, SITES[2]), (mlp_out, SITES[3])] {
            same(&block.metric, &patching.by_position(site).unwrap().metric, name);
        }
    }
}

/// A small step from the corrupted towards the clean activation changes the metric by that part of what is
/// attributed.
#[test]
fn attribution_is_the_slope_of_a_patch() {
    let [clean, corrupted, answers] = texts();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let found = AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).unwrap();
        let step = 0.02;
        let _guard = tch::no_grad_guard();
        let sites = [
            (StreamSite::ResidPre, &found.resid_pre),
            (StreamSite::AttnOut, &found.attn_out),
            (StreamSite::MlpOut, &found.mlp_out),
        ];
        let places =
            sites.iter().flat_map(|(site, found)| (0..3).map(move |l| (site.activation(l), l, *found)));
        let z = (0..3).map(|l| (Activation::Z(l), l, &found.z));
        for (at, layer, found) in places.chain(z) {
            let mut of_clean = Capture::of([at]).unwrap();
            let _ = model.forward(&clean, &ln, Compute::default(), &mut of_clean).unwrap();
            let moved = |by: f64| {
                let value = of_clean.get(at).unwrap();
                let mut hook = only(at, |x| &x + (value - &x) * by).unwrap();
                let logits = model.forward(&corrupted, &ln, Compute::default(), &mut hook).unwrap();
                metric.of_logits(&logits.select(1, 5)).unwrap()
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            // Over positions, and heads where there are any.
            let total = found.get(layer as i64).reshape([-1, 3]).sum_dim_intlist(0i64, false, Kind::Float);
            let worst = max_abs(&total, &slope);
            let limit = 2e-3 + 2e-2 * slope.abs().max().double_value(&[]);
            assert!(worst < limit, "{name}: {at}: {worst:e}");
        }
    }
}
