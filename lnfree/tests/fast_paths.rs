//! What is computed in a roundabout way because that is faster equals the plain formula.

mod common;

use common::{max_abs, relative_rms, vector};
use lnfree::hook::{Activation, NoHook};
use lnfree::loss::{IGNORE, aux_loss, cross_entropy, linear_cross_entropy, predicting, targets};
use lnfree::model::{Compute, Gpt2, LoadedModel, StepModel, causal_attention};
use lnfree::norm::{LnState, NormSettings, RemovalKind};
use lnfree::tch::{Device, Kind, Tensor};
use lnfree::train::{BackwardRecipe, backward};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Numbers without a pattern, of standard deviation one. libtorch's random generator is one for the whole
/// process, so tests that run side by side would get each other's.
fn noise(shape: &[i64], frequency: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    let steps = Tensor::arange(n, (Kind::Double, Device::Cpu)) * frequency;
    let mixed = ((&steps * 12.9898).sin() * 43758.5453).frac();
    ((mixed * 3.46).view(shape)).to_kind(Kind::Float)
}

/// n rows of x, a head, and targets of which some do not count.
fn case(n: i64, n_embd: i64, vocab_size: i64) -> (Tensor, Tensor, Tensor) {
    let (x, head) = (noise(&[n, n_embd], 0.7), noise(&[vocab_size, n_embd], 1.3));
    let targets = (Tensor::arange(n, (Kind::Int64, Device::Cpu)) * 7919).remainder(vocab_size);
    let _ = targets.narrow(0, n / 3, n / 5).fill_(IGNORE);
    (x, head, targets)
}

#[test]
fn a_loss_without_its_logits_is_the_loss() {
    // The last has more rows than are made at a time.
    for (n, n_embd, vocab_size) in [(1, 8, 5), (40, 16, 1003), (5000, 8, 4096)] {
        let (x, head, targets) = case(n.max(5), n_embd, vocab_size);
        let (a, b) = (x.copy().set_requires_grad(true), head.copy().set_requires_grad(true));
        let plain = cross_entropy(&a.matmul(&b.tr()).unsqueeze(0), &targets.unsqueeze(0));
        (&plain * 0.25).backward();
        // About as large as what is added: a library may round every partial sum to the last digit of what
        // was there.
        let there = 2f64.powi(-6);
        let mut head_grad = Tensor::full(head.size(), there, CPU);
        let found = linear_cross_entropy(&x, &head, &targets, 0.25, &mut head_grad).unwrap();
        let difference = (found.loss.double_value(&[]) - plain.double_value(&[])).abs();
        assert!(difference < 1e-6 * plain.double_value(&[]), "{n}: {difference:e}");
        assert!(
            relative_rms(&found.grad, &a.grad()) < 2e-6,
            "{n}: {:e}",
            relative_rms(&found.grad, &a.grad())
        );
        // It is added to what was there.
        let head_grad = head_grad - there;
        assert!(max_abs(&head_grad, &b.grad()) < 1e-6, "{n}: {:e}", max_abs(&head_grad, &b.grad()));
    }
}

#[test]
fn rows_of_an_unembedding_that_are_no_tokens_change_nothing() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let (x, head, targets) = case(100, 16, 1003);
        let (x, head) = (x.to_kind(kind), head.to_kind(kind));
        let longer = Tensor::cat(&[&head, &Tensor::zeros([21, 16], (kind, Device::Cpu))], 0);
        let [found, padded] = [&head, &longer].map(|head| {
            let mut head_grad = Tensor::zeros([1003, 16], CPU);
            let found = linear_cross_entropy(&x, head, &targets, 1.0, &mut head_grad).unwrap();
            (found.loss.double_value(&[]), found.grad.to_kind(Kind::Float), head_grad)
        });
        assert_eq!(found.0, padded.0);
        assert!(relative_rms(&padded.1, &found.1) < 1e-6 && relative_rms(&padded.2, &found.2) < 1e-6);
    }
}

#[test]
fn a_target_outside_the_vocabulary_is_an_error() {
    if common::on_the_path_of_a_gpu() {
        // A GPU says so much later, and in words of its own; data are checked when they are opened.
        return;
    }
    let (x, head, targets) = case(10, 4, 7);
    let _ = targets.narrow(0, 2, 1).fill_(7);
    let mut head_grad = head.zeros_like();
    let error = linear_cross_entropy(&x, &head, &targets, 1.0, &mut head_grad).unwrap_err();
    assert!(error.to_string().contains("outside the vocabulary of 7"), "{error}");
}

/// The paths through the model that training takes, against the model's own forward with autograd on its
/// parameters: for so many tokens that folding pays, and for so few that it does not.
fn compare_gradients(prepare: impl Fn(&mut LnState), aux_weight: f64, folds: bool) {
    compare_step(&prepare, aux_weight, usize::MAX, folds);
    // A GPU has no kernels that compute LNs along with something else, so it folds them always.
    compare_step(&prepare, aux_weight, 0, folds && common::on_the_path_of_a_gpu());
}

fn compare_step(prepare: &impl Fn(&mut LnState), aux_weight: f64, tokens_to_come: usize, folds: bool) {
    let step = prepared(prepare);
    let plain = prepared(prepare);
    let ids = tokens();
    let wanted = targets(&ids, Some(255));
    let compute = Compute { observe: true, ..Compute::default() };

    let recipe = BackwardRecipe {
        teacher: None,
        compute,
        aux_weight,
        scale: 0.5,
        aux_scale: 0.5,
        aux_target: None,
        checkpointing: false,
    };
    let losses = StepModel::run(&step.model, &step.ln, compute, tokens_to_come, |model| {
        assert_eq!(model.n_folded() > 0, folds && cfg!(feature = "kernels"), "which path is taken");
        backward(model, &step.ln, &ids, &wanted, recipe)
    })
    .unwrap();

    // A hook that may look at everything keeps the model from making several things at once.
    let mut looks = |_: Activation, value: Tensor| value;
    let mut pass = plain.model.pass(&ids, &plain.ln, compute).unwrap();
    let residual = plain.model.residual(&ids, &mut pass, &mut looks);
    let last = plain.model.final_norm(&residual, &mut pass, &mut NoHook);
    let logits = plain.model.unembed(&predicting(&last), &pass);
    let total = cross_entropy(&logits, &wanted) + aux_loss(&residual, &pass.is_eot, 1e-5) * aux_weight;
    (&total * 0.5).backward();

    let (found, wanted) = (losses.total.double_value(&[]), total.double_value(&[]));
    assert!((found - wanted).abs() < 1e-5 * wanted, "{found} should be {wanted}");
    let seen = losses.observed.unwrap();
    assert!(max_abs(&seen, &pass.observations().unwrap()) < 1e-5, "standard deviations");
    for ((name, a), (_, b)) in step.model.named_parameters().iter().zip(plain.model.named_parameters()) {
        let (a, b) = (a.grad(), b.grad());
        // The keys' bias has no gradient but rounding.
        let scale = b.norm().double_value(&[]).max(1e-3);
        let worst = (&a - &b).norm().double_value(&[]) / scale;
        assert!(worst < 5e-5, "{name}: {worst:e}");
    }
}

fn tokens() -> Tensor {
    (noise(&[3, 40], 0.9).abs() * 1000).to_kind(Kind::Int64).remainder(256)
}

fn prepared(prepare: &impl Fn(&mut LnState)) -> LoadedModel {
    let mut loaded = LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap();
    for (name, mut parameter) in loaded.model.named_parameters() {
        if name.contains("ln_") {
            // Weights away from one and biases away from zero, so that both are put to the test.
            let _ = parameter.g_add_(&(noise(&parameter.size(), 0.3) * 0.3));
        }
    }
    let ids = tokens();
    let compute = Compute { observe: true, ..Compute::default() };
    let mut pass = loaded.model.pass(&ids, &loaded.ln, compute).unwrap();
    let residual = loaded.model.residual(&ids, &mut pass, &mut NoHook);
    let _ = loaded.model.final_norm(&residual, &mut pass, &mut NoHook);
    let seen = Vec::<f64>::try_from(pass.observations().unwrap().select(1, 0).to_kind(Kind::Double)).unwrap();
    // Not quite what the LNs divide by.
    let stds: Vec<(f64, f64)> = seen.iter().map(|std| (std * 1.1, std * 0.9)).collect();
    drop(pass);
    loaded.ln = LnState::real(&stds, NormSettings::default(), Device::Cpu);
    prepare(&mut loaded.ln);
    loaded.model.set_requires_grad(true);
    loaded
}

fn remove(ln: &mut LnState, kinds: &[RemovalKind]) {
    kinds.iter().for_each(|&kind| ln.remove(kind, None));
}

#[test]
fn gradients_with_every_ln_real() {
    compare_gradients(|_| (), 0.0, false);
}

#[test]
fn gradients_while_values_read_the_real_ln_1() {
    compare_gradients(|ln| remove(ln, &[RemovalKind::Ln2, RemovalKind::Ln1Qk]), 0.1, true);
}

#[test]
fn gradients_with_frozen_queries_and_keys_beside_real_values() {
    let prepare = |ln: &mut LnState| {
        ln.settings.recompute_on_real = false;
        remove(ln, &[RemovalKind::Ln1Qk]);
    };
    compare_gradients(prepare, 0.0, true);
}

#[test]
fn gradients_with_every_ln_fake() {
    compare_gradients(|ln| remove(ln, &RemovalKind::ALL), 0.1, true);
}

#[test]
fn gradients_while_fake_lns_follow_are_not_folded() {
    let prepare = |ln: &mut LnState| {
        ln.settings.recompute_on_fake = true;
        remove(ln, &RemovalKind::ALL);
    };
    compare_gradients(prepare, 0.1, false);
}

/// Logits that all lie far from zero, as GPT-2's do, must cost bfloat16 nothing.
#[test]
fn bfloat16_losses_do_not_see_what_logits_have_in_common() {
    let mut loaded = LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap();
    let loss = |model: &Gpt2, dtype: Kind| {
        let compute = Compute { dtype, ..Compute::default() };
        let ids = (noise(&[4, 64], 0.9).abs() * 1000).to_kind(Kind::Int64).remainder(255);
        let ln = LnState::plain(3, Device::Cpu);
        let recipe = BackwardRecipe {
            teacher: None,
            compute,
            aux_weight: 0.0,
            scale: 1.0,
            aux_scale: 1.0,
            aux_target: None,
            checkpointing: false,
        };
        model.set_requires_grad(true);
        let wanted = targets(&ids, None);
        let losses =
            StepModel::run(model, &ln, compute, 256, |step| backward(step, &ln, &ids, &wanted, recipe));
        losses.unwrap().cross_entropy.double_value(&[])
    };
    // An unembedding of its own, with the same large vector added to every token's.
    let direction = Tensor::full([64], 3.0, CPU);
    if let Some(ln_f) = &mut loaded.model.ln_f {
        ln_f.bias = ln_f.bias.detach() + 1.0;
    }
    loaded.model.lm_head = Some(loaded.model.wte.detach() - direction);
    let (exact, low) = (loss(&loaded.model, Kind::Float), loss(&loaded.model, Kind::BFloat16));
    assert!((exact - low).abs() < 5e-3, "{exact} in float32, {low} in bfloat16");
}

#[test]
fn gelu_is_libtorchs() {
    let compare = |kind: Kind, tolerance: f64| {
        let x = (noise(&[37, 1001], 0.11) * 8.0).to_kind(kind);
        let run = |f: &dyn Fn(&Tensor) -> Tensor| {
            let x = x.copy().set_requires_grad(true);
            let y = f(&x);
            (&y * &y).sum(Kind::Float).backward();
            (y.detach(), x.grad())
        };
        let found = run(&|x| lnfree::model::gelu(x));
        let wanted = run(&|x| x.gelu("tanh"));
        for (found, wanted) in [(found.0, wanted.0), (found.1, wanted.1)] {
            let difference = max_abs(&found.to_kind(Kind::Float), &wanted.to_kind(Kind::Float));
            let largest = wanted.abs().max().double_value(&[]);
            assert!(difference < tolerance * largest, "{kind:?}: {difference:e} of {largest}");
        }
    };
    compare(Kind::Float, 1e-6);
    compare(Kind::BFloat16, 1e-2);
}

/// softmax(q kᵀ / √d + mask) v in float64, with autograd.
fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let (pos, d) = (q.size()[2], q.size()[3]);
    let future = Tensor::ones([pos, pos], (Kind::Bool, Device::Cpu)).triu(1);
    let scores = q.matmul(&k.transpose(-2, -1)) / (d as f64).sqrt();
    scores.masked_fill(&future, f64::NEG_INFINITY).softmax(-1, Kind::Double).matmul(v)
}

/// z and the gradients of q, k and v, with queries, keys and values side by side in memory as c_attn makes
/// them.
fn attention_and_gradients(
    [batch, head, pos, d]: [i64; 4],
    kind: Kind,
    attention: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
) -> (Tensor, Tensor) {
    // Rounded first, so that all types begin with the same numbers.
    let round = |x: Tensor| x.to_kind(Kind::BFloat16).to_kind(kind);
    let qkv = round(noise(&[batch, pos, 3 * head * d], 0.37) * 1.5).set_requires_grad(true);
    let parts: Vec<Tensor> =
        qkv.chunk(3, -1).iter().map(|x| x.view([batch, pos, head, d]).transpose(1, 2)).collect();
    let z = attention(&parts[0], &parts[1], &parts[2]);
    let above = round(noise(&[batch, head, pos, d], 0.91));
    (&z * above).sum(Kind::Float).backward();
    (z.detach(), qkv.grad())
}

#[test]
fn attention_by_tiles_is_attention() {
    // One token, less than a tile, a tile, several and a bit; heads as wide as a tile, narrower and wider,
    // and one that no tile is made for.
    for size in
        [[1, 1, 1, 16], [2, 3, 5, 16], [1, 2, 64, 32], [2, 2, 200, 64], [1, 2, 129, 80], [1, 2, 70, 20]]
    {
        let (z, grad) = attention_and_gradients(size, Kind::Double, plain_attention);
        for (kind, near) in [(Kind::Float, 5e-6), (Kind::BFloat16, 2e-2)] {
            let (found, found_grad) = attention_and_gradients(size, kind, causal_attention);
            assert_eq!((found.size(), found.kind()), (z.size(), kind));
            let (theirs, their_grad) = attention_and_gradients(size, kind, libtorch_attention);
            for (found, theirs, plain) in [(&found, &theirs, &z), (&found_grad, &their_grad, &grad)] {
                let (off, theirs) = (relative_rms(found, plain), relative_rms(theirs, plain));
                assert!(
                    off < f64::max(near, 1.01 * theirs) && off < 1.5 * theirs + 1e-7,
                    "{size:?} {kind:?}: {off:e}, libtorch {theirs:e}"
                );
            }
        }
    }
}

fn libtorch_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    Tensor::scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, true, None, false)
}

#[test]
fn attention_looks_at_nothing_that_comes_later() {
    let size = [1, 2, 100, 32];
    let [q, k, v] = [0.3, 0.5, 0.7].map(|frequency| noise(&size, frequency));
    let z = causal_attention(&q, &k, &v);
    for x in [&k, &v] {
        let _ = x.narrow(2, 90, 10).fill_(1e30);
    }
    let changed = causal_attention(&q, &k, &v);
    assert_eq!(max_abs(&changed.narrow(2, 0, 90), &z.narrow(2, 0, 90)), 0.0);
}

#[test]
fn attention_takes_large_scores() {
    let size = [1, 1, 80, 16];
    let [q, k, v] = [0.3, 0.5, 0.7].map(|frequency| noise(&size, frequency));
    let (q, k) = (q * 300.0, k * 300.0);
    let plain = plain_attention(&q.to_kind(Kind::Double), &k.to_kind(Kind::Double), &v.to_kind(Kind::Double));
    let found = causal_attention(&q, &k, &v);
    assert!(relative_rms(&found, &plain) < 1e-3, "{:e}", relative_rms(&found, &plain));
}

#[test]
fn all_of_this_at_every_level_of_kernels() {
    common::again_at_every_level("all_of_this_at_every_level_of_kernels");
}
