//! Direct paths.

use lnfree::hook::{Activation, Capture, only, without_patterns};
use lnfree::interp::{Metric, Patching, Receiver, Sender};
use lnfree::model::Compute;
use lnfree::tch::{self, Kind, Tensor};

use super::common::max_abs;
use super::ln_states::{load, states, texts};
use super::same;

/// The same by hand, with a whole forward for each step.
#[test]
fn a_path_is_the_senders_change_at_the_receivers_input() {
    let [clean, corrupted, answers] = texts();
    let _guard = tch::no_grad_guard();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
        let run = |ids: &Tensor, hook: &mut dyn lnfree::hook::Hook| {
            model.forward(ids, &ln, Compute::default(), hook).unwrap()
        };
        let value = |ids: &Tensor, at: Activation| {
            let mut kept = Capture::of([at]).unwrap();
            let _ = run(ids, &mut kept);
            kept.get(at).unwrap().shallow_clone()
        };
        let read = |logits: &Tensor| metric.of_logits(&logits.select(1, 5)).unwrap();
        // What head 1.2 writes, found by leaving it out of what attention adds.
        let head = |ids: &Tensor| {
            let mut without = Capture::of([Activation::AttnOut(1)]).unwrap();
            let mut hook = without_patterns(|at: Activation, x: Tensor| {
                if at == Activation::Z(1) {
                    let _ = x.select(2, 2).zero_();
                }
                lnfree::hook::Hook::on(&mut without, at, x)
            });
            let _ = run(ids, &mut hook);
            value(ids, Activation::AttnOut(1)) - without.get(Activation::AttnOut(1)).unwrap()
        };
        let of_head = head(&clean) - head(&corrupted);
        let of_mlp = value(&clean, Activation::MlpOut(0)) - value(&corrupted, Activation::MlpOut(0));
        let senders = [(Sender::Head { layer: 1, head: 2 }, of_head), (Sender::Mlp { layer: 0 }, of_mlp)];
        for (sender, change) in &senders {
            let plus = |at: Activation| only(at, move |x| x + change).unwrap();
            let found = |receiver| patching.path(*sender, receiver).unwrap();
            let logits = run(&corrupted, &mut plus(Activation::ResidPost(2)));
            same(&found(Receiver::Logits), &read(&logits), &format!("{name}: {sender:?} to the logits"));
            // The MLP's output with the change in what it reads, put into the corrupted run.
            let mut kept = Capture::of([Activation::MlpOut(1)]).unwrap();
            let mut both = without_patterns(|at: Activation, x: Tensor| {
                let x = if at == Activation::ResidMid(1) { x + change } else { x };
                lnfree::hook::Hook::on(&mut kept, at, x)
            });
            let _ = run(&corrupted, &mut both);
            let out = kept.get(Activation::MlpOut(1)).unwrap();
            let logits = run(&corrupted, &mut only(Activation::MlpOut(1), |_| out.shallow_clone()).unwrap());
            same(
                &found(Receiver::Mlp { layer: 1 }),
                &read(&logits),
                &format!("{name}: {sender:?} to an MLP"),
            );
            for (receiver, at) in [
                (Receiver::Q { layer: 2, head: 3 }, Activation::Q(2)),
                (Receiver::K { layer: 2, head: 3 }, Activation::K(2)),
                (Receiver::V { layer: 2, head: 3 }, Activation::V(2)),
            ] {
                let mut kept = Capture::of([at]).unwrap();
                let mut both = without_patterns(|here: Activation, x: Tensor| {
                    let x = if here == Activation::ResidPre(2) { x + change } else { x };
                    lnfree::hook::Hook::on(&mut kept, here, x)
                });
                let _ = run(&corrupted, &mut both);
                let other = kept.get(at).unwrap().select(2, 3);
                let mut hook = only(at, |x| {
                    let x = x.copy();
                    x.select(2, 3).copy_(&other);
                    x
                })
                .unwrap();
                let logits = run(&corrupted, &mut hook);
                same(&found(receiver), &read(&logits), &format!("{name}: {sender:?} to {receiver:?}"));
            }
        }
    }
}

#[test]
fn every_sender_is_found_in_its_place() {
    let [clean, corrupted, answers] = texts();
    let (model, ln) = load("checkpoint/step60");
    let metric = Metric::logit_difference(&answers);
    let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric).unwrap();
    let receiver = Receiver::V { layer: 2, head: 1 };
    let heads = patching.paths_from_heads(receiver).unwrap().metric;
    assert_eq!(heads.size(), [3, 4, 3]);
    let one = patching.path(Sender::Head { layer: 1, head: 3 }, receiver).unwrap();
    same(&heads.get(1).get(3), &one, "head 1.3");
    assert!(max_abs(&one, &patching.corrupted) > 1e-6, "the path does nothing");
    assert_eq!(max_abs(&heads.get(2), &patching.corrupted), 0.0, "no head of block 2 is read by its values");
    let mlps = patching.paths_from_mlps(receiver).unwrap().metric;
    same(&mlps.get(0), &patching.path(Sender::Mlp { layer: 0 }, receiver).unwrap(), "MLP 0");
    // Without LN the logits are linear in what is written: all direct paths and the embedding together are
    // the whole way from one run to the other.
    let direct = [patching.paths_from_heads(Receiver::Logits), patching.paths_from_mlps(Receiver::Logits)];
    let [heads, mlps] = direct.map(|found| found.unwrap().effect().reshape([-1, 3]));
    let last = Tensor::cat(&[heads, mlps], 0).sum_dim_intlist(0i64, false, Kind::Float);
    let [from, to] = [&corrupted, &clean].map(|ids| {
        let mut kept = Capture::of([Activation::ResidPre(0)]).unwrap();
        let _ = model.forward(ids, &ln, Compute::default(), &mut kept).unwrap();
        kept.get(Activation::ResidPre(0)).unwrap().shallow_clone()
    });
    let _guard = tch::no_grad_guard();
    let mut hook = only(Activation::ResidPost(2), |x| x + (&to - &from)).unwrap();
    let logits = model.forward(&corrupted, &ln, Compute::default(), &mut hook).unwrap();
    let embedding = metric.of_logits(&logits.select(1, 5)).unwrap() - &patching.corrupted;
    // Sixteen differences of numbers that are each rounded.
    let worst = max_abs(&(last + embedding), &(&patching.clean - &patching.corrupted));
    assert!(worst < 1e-4, "all paths: {worst:e}");
}
