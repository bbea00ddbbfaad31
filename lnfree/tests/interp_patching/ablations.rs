//! Ablations.

use lnfree::hook::{Activation, Capture, NoHook, only, without_patterns};
use lnfree::interp::{Ablation, Component, Means, Metric, Substitute};
use lnfree::loss::{targets, token_losses};
use lnfree::model::Compute;
use lnfree::tch::{self, Kind, Tensor};

use super::ln_states::{states, texts};
use super::same;

#[test]
fn ablations_are_forwards_with_a_hook() {
    let [ids, others, answers] = texts();
    let _guard = tch::no_grad_guard();
    for (name, model, ln) in states() {
        let metric = Metric::logit_difference(&answers);
        let means = Means::of(&model, &ln, &others).unwrap();
        let seen = |at: Activation| {
            let mut kept = Capture::of([at]).unwrap();
            let _ = model.forward(&others, &ln, Compute::default(), &mut kept).unwrap();
            kept.get(at).unwrap().shallow_clone()
        };
        let expected = |hook: &mut dyn lnfree::hook::Hook| {
            let logits = model.forward(&ids, &ln, Compute::default(), hook).unwrap();
            let loss = token_losses(&logits.narrow(1, 0, 5), &targets(&ids, None));
            (metric.of_logits(&logits.select(1, 5)).unwrap(), loss)
        };
        let mean = |x: Tensor| x.mean_dim([0i64, 1].as_slice(), true, Kind::Float);
        let substitutes: [(Substitute, &dyn Fn(Activation) -> Tensor); 3] = [
            (Substitute::Zero, &|at| seen(at).zeros_like()),
            (Substitute::Mean(&means), &|at| mean(seen(at))),
            (Substitute::Resample(&others), &seen),
        ];
        for (substitute, value) in substitutes {
            let what = format!("{name}: {substitute:?}").chars().take(60).collect::<String>();
            let ablation = Ablation::new(&model, &ln, &ids, &metric, substitute).unwrap();
            let check = |found: lnfree::interp::Ablated, hook: &mut dyn lnfree::hook::Hook, of: &str| {
                let (metric, loss) = expected(hook);
                same(&found.metric, &metric, &format!("{what}, {of}"));
                same(&found.loss, &loss, &format!("{what}, {of}"));
            };
            check(ablation.nothing().unwrap(), &mut NoHook, "nothing");
            check(ablation.of(&[]).unwrap(), &mut NoHook, "no component");
            let head = Component::Head { layer: 1, head: 2 };
            let neurons = Component::Neurons { layer: 2, neurons: vec![0, 200] };
            let (z, post, out) =
                (value(Activation::Z(1)), value(Activation::MlpPost(2)), value(Activation::MlpOut(0)));
            let put = |x: Tensor, other: &Tensor, dim: i64, at: &[i64]| {
                let (x, other) = (x.copy(), other.expand_as(&x));
                at.iter().for_each(|&i| x.select(dim, i).copy_(&other.select(dim, i)));
                x
            };
            let mut both = without_patterns(|at: Activation, x: Tensor| match at {
                Activation::Z(1) => put(x, &z, 2, &[2]),
                Activation::MlpPost(2) => put(x, &post, 2, &[0, 200]),
                _ => x,
            });
            check(ablation.of(&[neurons, head]).unwrap(), &mut both, "a head and neurons");
            let mlp = [Component::Mlp { layer: 0 }];
            let mut hook = only(Activation::MlpOut(0), |x| out.expand_as(&x)).unwrap();
            check(ablation.of(&mlp).unwrap(), &mut hook, "an MLP");
            // One position alone.
            let mut hook = only(Activation::MlpOut(0), |x| put(x, &out, 1, &[3])).unwrap();
            let at_3 = Ablation::new(&model, &ln, &ids, &metric, substitute).unwrap().at(&[3]).unwrap();
            check(at_3.of(&mlp).unwrap(), &mut hook, "an MLP at a position");
            for ablation in [ablation, at_3] {
                let every = ablation.every_head().unwrap();
                assert_eq!((every.metric.size(), every.loss.size()), (vec![3, 4, 3], vec![3, 4, 3, 5]));
                for (layer, head) in [(0, 0), (1, 2), (2, 3)] {
                    let one = ablation.of(&[Component::Head { layer, head }]).unwrap();
                    let of = |x: &Tensor| x.get(layer as i64).get(head as i64);
                    same(&of(&every.metric), &one.metric, &format!("{what}, head {layer}.{head}"));
                    same(&of(&every.loss), &one.loss, &format!("{what}, head {layer}.{head}"));
                }
            }
        }
    }
}
