//! Operations of ours against their formulas in float64, with what autograd makes of these.

use tch::{Device, Kind, Tensor};

use super::recorder::{Recorder, Tolerance, noise};
use crate::Result;
use crate::ops::loss::{IGNORE, Mixture, linear_cross_entropy};
use crate::ops::{self, AdamWStep, Gradients};
use crate::train::optim::clip_coefficient;

type Pairs = Vec<(&'static str, Tensor, Tensor)>;

pub(super) fn all(recorder: &mut Recorder) {
    let op = "operation";
    recorder.compare(op, "product", Tolerance::PRODUCT, product);
    recorder.compare(op, "sum of products", Tolerance::PRODUCT, sum_of_products);
    recorder.compare(op, "affine map", Tolerance::PRODUCT, affine_map);
    if ops::GATHERS {
        recorder.compare(op, "affine map, gradients gathered", Tolerance::PRODUCT, gathered);
    }
    recorder.compare(op, "gelu", Tolerance::ROUNDING, gelu);
    for (name, size) in [
        ("attention, one token", [1, 1, 1, 16]),
        ("attention, heads of 16", [2, 3, 70, 16]),
        ("attention, heads of 64", [1, 2, 129, 64]),
        ("attention, heads of 20", [1, 2, 70, 20]),
    ] {
        recorder.compare(op, name, Tolerance::PRODUCT, |recorder| attention(recorder, size));
    }
    recorder.compare(op, "sigma", Tolerance::ROUNDING, sigma);
    recorder.compare(op, "cross-entropy", Tolerance::PRODUCT, |recorder| cross_entropy(recorder, 0));
    recorder.compare(op, "cross-entropy, padded", Tolerance::PRODUCT, |recorder| cross_entropy(recorder, 21));
    recorder.compare(op, "logits to gradient", Tolerance::ROUNDING, logits_to_gradient);
    recorder.compare(op, "distilled gradient", Tolerance::ROUNDING, distilled_gradient);
    // Whatever the type of logits, numbers are computed in float32.
    let float32 = Tolerance { bfloat16: 1e-5, tf32: 1e-5, ..Tolerance::PRODUCT };
    recorder.compare(op, "token statistics", float32, token_stats);
    recorder.compare(op, "adamw", Tolerance { bfloat16: 2e-6, ..Tolerance::ROUNDING }, adamw);
    recorder.compare(op, "clipping", Tolerance { bfloat16: 2e-6, ..Tolerance::ROUNDING }, clipping);
}

fn product(recorder: &Recorder) -> Result<Pairs> {
    let (a, wide_a) = recorder.both(noise(&[130, 257], 0.31));
    let (b, wide_b) = recorder.both(noise(&[257, 192], 0.57));
    let transposed = ops::product(&b.tr(), &a.tr())?;
    Ok(vec![
        ("", ops::product(&a, &b)?, wide_a.matmul(&wide_b)),
        ("transposed", transposed, wide_b.tr().matmul(&wide_a.tr())),
    ])
}

fn sum_of_products(recorder: &Recorder) -> Result<Pairs> {
    let (a, wide_a) = recorder.both(noise(&[140, 257], 0.31));
    let (b, wide_b) = recorder.both(noise(&[257, 64], 0.57));
    let (mut into, wide_into) = recorder.both_wide(noise(&[130, 64], 0.13));
    ops::add_product(&mut into, &a, &b)?;
    Ok(vec![("", into, wide_into + wide_a.narrow(0, 0, 130).matmul(&wide_b))])
}

/// Leaves that require gradients.
fn leaves<const N: usize>(tensors: [&Tensor; N]) -> [Tensor; N] {
    tensors.map(|x| x.detach().copy().set_requires_grad(true))
}

/// `y` and the gradients of `inputs` of Σ y · above.
fn backward(y: &Tensor, above: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    (y * above).sum(y.kind()).backward();
    std::iter::once(y.detach()).chain(inputs.iter().map(|x| x.grad())).collect()
}

fn pairs(names: &[&'static str], found: Vec<Tensor>, right: Vec<Tensor>) -> Pairs {
    names.iter().copied().zip(found.into_iter().zip(right)).map(|(name, (x, y))| (name, x, y)).collect()
}

/// x, weight, bias and the gradient from above, ours and float64.
fn map_inputs(recorder: &Recorder) -> [(Tensor, Tensor); 4] {
    [noise(&[2, 65, 48], 0.31), noise(&[48, 160], 0.57), noise(&[160], 0.73), noise(&[2, 65, 160], 0.91)]
        .map(|x| recorder.both(x))
}

fn affine_map(recorder: &Recorder) -> Result<Pairs> {
    let inputs = map_inputs(recorder);
    let [x, weight, bias] = leaves([&inputs[0].0, &inputs[1].0, &inputs[2].0]);
    let found = backward(&ops::linear(&x, &weight, &bias, None)?, &inputs[3].0, &[&x, &weight, &bias]);
    let [x, weight, bias] = leaves([&inputs[0].1, &inputs[1].1, &inputs[2].1]);
    let right = backward(&(x.matmul(&weight) + &bias), &inputs[3].1, &[&x, &weight, &bias]);
    Ok(pairs(&["", "gradient of x", "gradient of weight", "gradient of bias"], found, right))
}

fn gathered(recorder: &Recorder) -> Result<Pairs> {
    let inputs = map_inputs(recorder);
    let [x] = leaves([&inputs[0].0]);
    let there = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, recorder.device));
    let into = Gradients { weight: there(&[48, 160]), bias: there(&[160]) };
    let y = ops::linear(&x, &inputs[1].0, &inputs[2].0, Some(&into))?;
    let mut found = backward(&y, &inputs[3].0, &[&x]);
    found.extend([into.weight, into.bias]);
    let [x, weight, bias] = leaves([&inputs[0].1, &inputs[1].1, &inputs[2].1]);
    let mut right = backward(&(x.matmul(&weight) + &bias), &inputs[3].1, &[&x, &weight, &bias]);
    right.iter_mut().skip(2).for_each(|grad| *grad += 1.0);
    Ok(pairs(&["", "of x", "of weight", "of bias"], found, right))
}

fn gelu(recorder: &Recorder) -> Result<Pairs> {
    let (input, wide) = recorder.both(noise(&[37, 1001], 0.11) * 4.0);
    let (above, wide_above) = recorder.both(noise(&[37, 1001], 0.91));
    let [x] = leaves([&input]);
    let found = backward(&ops::gelu(&x)?, &above, &[&x]);
    let [x] = leaves([&wide]);
    let inner = (&x + x.pow_tensor_scalar(3) * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
    let right = backward(&(&x * (inner.tanh() + 1.0) * 0.5), &wide_above, &[&x]);
    Ok(pairs(&["", "gradient"], found, right))
}

fn attention(recorder: &Recorder, [batch, head, pos, d]: [i64; 4]) -> Result<Pairs> {
    // Queries, keys and values side by side in memory, as c_attn makes them.
    let (input, wide) = recorder.both(noise(&[batch, pos, 3 * head * d], 0.37) * 1.5);
    let (above, wide_above) = recorder.both(noise(&[batch, head, pos, d], 0.91));
    let parts = |x: &Tensor| -> Vec<Tensor> {
        x.chunk(3, -1).iter().map(|x| x.view([batch, pos, head, d]).transpose(1, 2)).collect()
    };
    let [x] = leaves([&input]);
    let qkv = parts(&x);
    let found = backward(&ops::causal_attention(&qkv[0], &qkv[1], &qkv[2])?, &above, &[&x]);
    let [x] = leaves([&wide]);
    let qkv = parts(&x);
    let future = Tensor::ones([pos, pos], (Kind::Bool, Device::Cpu)).triu(1);
    let scores = qkv[0].matmul(&qkv[1].transpose(-2, -1)) / (d as f64).sqrt();
    let pattern = scores.masked_fill(&future, f64::NEG_INFINITY).softmax(-1, Kind::Double);
    let right = backward(&pattern.matmul(&qkv[2]), &wide_above, &[&x]);
    Ok(pairs(&["", "gradient"], found, right))
}

fn sigma(recorder: &Recorder) -> Result<Pairs> {
    let (input, wide) = recorder.both_wide(noise(&[3, 41, 768], 0.37) + 5.0);
    let (above, wide_above) = recorder.both_wide(noise(&[3, 41], 0.91));
    let [x] = leaves([&input]);
    let found = backward(&ops::sigma(&x, 1e-5)?, &above, &[&x]);
    let [x] = leaves([&wide]);
    let centred = &x - x.mean_dim(-1i64, true, Kind::Double);
    let variance = centred.square().mean_dim(-1i64, false, Kind::Double);
    let right = backward(&(variance + 1e-5).sqrt(), &wide_above, &[&x]);
    Ok(pairs(&["", "gradient"], found, right))
}

/// Targets, some of which do not count.
fn targets(n: i64, vocab_size: i64) -> Tensor {
    let targets = (Tensor::arange(n, (Kind::Int64, Device::Cpu)) * 7919).remainder(vocab_size);
    let _ = targets.narrow(0, n / 3, n / 5).fill_(IGNORE);
    targets
}

/// Mean cross-entropy of float64 logits over the targets that count.
fn plain_cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let counts = targets.not_equal(IGNORE).to_kind(Kind::Double);
    let at = targets.clamp_min(0).unsqueeze(-1);
    let losses = logits.logsumexp([-1i64], false) - logits.gather(-1, &at, false).squeeze_dim(-1);
    (losses * &counts).sum(Kind::Double) / counts.sum(Kind::Double)
}

/// `padding`: rows of the unembedding that are no tokens.
fn cross_entropy(recorder: &Recorder, padding: i64) -> Result<Pairs> {
    let (n, vocab_size) = (301, 1003);
    let (last, wide_last) = recorder.both(noise(&[n, 64], 0.31));
    let (head, wide_head) = recorder.both(noise(&[vocab_size, 64], 0.57) * 0.5);
    let ids = targets(n, vocab_size);
    let no_tokens = Tensor::zeros([padding, 64], (head.kind(), head.device()));
    let mut head_grad = Tensor::zeros([vocab_size, 64], (Kind::Float, recorder.device));
    let on_device = ids.to_device(recorder.device);
    let longer = Tensor::cat(&[head, no_tokens], 0);
    let found = linear_cross_entropy(&last, &longer, &on_device, 0.25, &mut head_grad)?;
    let [x, w] = leaves([&wide_last, &wide_head]);
    let loss = plain_cross_entropy(&x.matmul(&w.tr()), &ids);
    (&loss * 0.25).backward();
    Ok(vec![
        ("", found.loss, loss.detach()),
        ("gradient of x", found.grad, x.grad()),
        ("gradient of head", head_grad, w.grad()),
    ])
}

/// On logits with columns that are no tokens.
fn logits_to_gradient(recorder: &Recorder) -> Result<Pairs> {
    let (n, vocab_size) = (60, 1003);
    let (mut logits, wide) = recorder.both(noise(&[n, vocab_size + 21], 0.31) * 4.0);
    let ids = targets(n, vocab_size);
    let one = Tensor::ones([], (Kind::Double, recorder.device));
    let losses = ops::logits_to_gradient(&mut logits, vocab_size, &ids.to_device(recorder.device), &one)?;
    let [x] = leaves([&wide.narrow(1, 0, vocab_size)]);
    let mean = plain_cross_entropy(&x, &ids);
    let counted = ids.not_equal(IGNORE).sum(Kind::Double);
    (&mean * &counted).backward();
    let found = logits.narrow(1, 0, vocab_size);
    Ok(vec![("losses", losses.sum(Kind::Double), (mean * counted).detach()), ("", found, x.grad())])
}

/// Likewise with a teacher, at a temperature.
fn distilled_gradient(recorder: &Recorder) -> Result<Pairs> {
    let (n, vocab_size) = (60, 1003);
    let (mut logits, wide) = recorder.both(noise(&[n, vocab_size + 21], 0.31) * 4.0);
    let (teacher, wide_teacher) = recorder.both(noise(&[n, vocab_size], 0.57) * 3.0);
    let ids = targets(n, vocab_size);
    let on_device = ids.to_device(recorder.device);
    let one = Tensor::ones([], (Kind::Double, recorder.device));
    let mixture = Mixture { weight: 0.7, temperature: 2.0 };
    let losses = ops::distilled_gradient(&mut logits, &teacher, vocab_size, &on_device, &one, mixture)?;
    let [x] = leaves([&wide.narrow(1, 0, vocab_size)]);
    let counts = ids.not_equal(IGNORE).to_kind(Kind::Double);
    let ce = plain_cross_entropy(&x, &ids) * counts.sum(Kind::Double);
    let [log_p, log_q] = [&x, &wide_teacher].map(|logits| (logits / 2.0).log_softmax(-1, Kind::Double));
    let kl = (log_q.exp() * (log_q - log_p)).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    let kl = (kl * counts).sum(Kind::Double);
    (&ce * 0.3 + &kl * 2.8).backward();
    let sums = losses.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    let found = logits.narrow(1, 0, vocab_size);
    Ok(vec![("losses", sums, Tensor::stack(&[ce.detach(), kl.detach()], 0)), ("", found, x.grad())])
}

/// With rows of the unembedding that are no tokens, and the vocabulary in pieces.
fn token_stats(recorder: &Recorder) -> Result<Pairs> {
    let (n, vocab_size) = (60, 1003);
    // Each row picks a column of the unembedding, so that products are exact.
    let (last, wide_last) =
        recorder.both(Tensor::eye(64, (Kind::Double, Device::Cpu)).narrow(0, 0, n).contiguous());
    let (head, wide_head) = recorder.both(noise(&[vocab_size + 21, 64], 0.57) * 4.0);
    let wide = wide_last.matmul(&wide_head.narrow(0, 0, vocab_size).tr());
    // Some are the most likely token.
    let ids = (Tensor::arange(n, (Kind::Int64, Device::Cpu)) * 7919).remainder(vocab_size);
    ids.narrow(0, 0, 20).copy_(&wide.narrow(0, 0, 20).argmax(-1, false));
    let found = ops::token_stats(&last, &head, vocab_size, &ids.to_device(recorder.device), 100)?;
    let log_p = wide.log_softmax(-1, Kind::Double);
    let right = [
        -log_p.gather(-1, &ids.unsqueeze(-1), false).squeeze_dim(-1),
        -(log_p.exp() * &log_p).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double),
        log_p.amax([-1i64], false).exp(),
        wide.argmax(-1, false).eq_tensor(&ids).to_kind(Kind::Double),
    ];
    let names = ["losses", "entropy", "confidence", "correct"];
    let columns = (0..4).map(|i| found.select(1, i));
    Ok(names.into_iter().zip(columns.zip(right)).map(|(name, (x, y))| (name, x, y)).collect())
}

fn adamw(recorder: &Recorder) -> Result<Pairs> {
    let shape: &[i64] = &[70, 131];
    let noises = [
        noise(shape, 0.31),
        noise(shape, 0.57),
        noise(shape, 0.13) * 0.1,
        noise(shape, 0.71).square() * 0.01,
    ];
    let [(p, wide_p), (g, wide_g), (m, wide_m), (v, wide_v)] = noises.map(|x| recorder.both_wide(x));
    let (lr, (b1, b2), decay, eps) = (3e-3, (0.9, 0.999), 0.1, 1e-8);
    let constants = AdamWStep { lr, betas: (b1, b2), weight_decay: decay, eps };
    let number = |x: f64| Tensor::full([], x, (Kind::Float, recorder.device));
    ops::fused_adamw(&[[&p, &g, &m, &v]], &number(7.0), constants, &number(4.0))?;
    let grad = wide_g / 4.0;
    let first = wide_m * b1 + &grad * (1.0 - b1);
    let second = wide_v * b2 + grad.square() * (1.0 - b2);
    let denominator = (&second / (1.0 - f64::powi(b2, 7))).sqrt() + eps;
    let right = wide_p * (1.0 - lr * decay) - &first / (1.0 - f64::powi(b1, 7)) / denominator * lr;
    Ok(vec![("parameters", p, right), ("first moment", m, first), ("second moment", v, second)])
}

fn clipping(recorder: &Recorder) -> Result<Pairs> {
    let (norm, wide) = recorder.both_wide(Tensor::from_slice(&[0.2f64, 0.999, 1.0, 3.5, 1e4]));
    let right = (wide + 1e-6).reciprocal().clamp_max(1.0);
    Ok(vec![("", clip_coefficient(&norm, 1.0), right)])
}
