//! Every operation as a formula, in libtorch's operations, for any device; `choose` says what each takes and
//! returns.

use tch::{Device, Kind, Tensor};

use super::types::{AdamWSlot, AdamWStep, FusedOutputs, Gradients, LinearNorm, Mixture, ResidualStream};
use crate::{Error, Result};

/// x `[.., in]` @ weight `[in, out]` + bias `[out]`.
///
/// # Errors
/// Gradients that are to gather beside tensors: autograd hands them to leaves alone.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, into: Option<&Gradients>) -> Result<Tensor> {
    if into.is_some() {
        return Err(Error::invalid("gradients gather beside tensors only with the feature `kernels`"));
    }
    Ok(x.f_matmul(weight)?.f_add(bias)?)
}

/// a `[m, k]` @ b `[k, n]`, without a graph.
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    tch::no_grad(|| Ok(a.f_mm(b)?))
}

/// into `[m, n]` += the first m rows of a `[.., k]` @ b `[k, n]`.
pub(crate) fn add_product(into: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let rows = a.f_narrow(0, 0, into.size()[0])?;
    let sum = rows.f_mm(b)?.to_kind(into.kind());
    tch::no_grad(|| into.f_add_(&sum).map(drop))?;
    Ok(())
}

pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_gelu("tanh")?)
}

pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, true, None, false)?)
}

pub(crate) fn sigma(x: &Tensor, eps: f64) -> Result<Tensor> {
    Ok((x.f_var_correction([-1i64].as_slice(), 0, false)? + eps).sqrt())
}

pub(crate) fn fold(ln: &LinearNorm, weight: &Tensor, to: &Tensor) -> Result<Tensor> {
    let wide = weight.to_kind(ln.gain.kind());
    let sums =
        Tensor::stack(&[&ln.gain / ln.gain.numel() as f64, ln.beta.shallow_clone()], 0).f_matmul(&wide)?;
    to.shallow_clone().f_copy_(&(wide * ln.gain.unsqueeze(1) - sums.get(0)))?;
    Ok(sums.get(1))
}

pub(crate) fn unfold(ln: &LinearNorm, grad: &Tensor, weight: &Tensor, bias_grad: &Tensor) -> Result<Tensor> {
    let (kind, mut grad) = (ln.gain.kind(), grad.shallow_clone());
    // What centring takes from G, and g, side by side: [2, out].
    let sides = Tensor::stack(&[grad.mean_dim(0i64, false, kind), bias_grad.to_kind(kind)], 0);
    let by_row = weight.f_matmul(&sides.tr().to_kind(weight.kind()))?.to_kind(kind);
    let rows = (&grad * weight).sum_dim_intlist([1i64].as_slice(), false, kind) - by_row.select(1, 0);
    let _ = grad.g_mul_(&ln.gain.unsqueeze(1));
    let outer = Tensor::stack(&[-&ln.gain, ln.beta.shallow_clone()], 1);
    let _ = grad.g_add_(&outer.matmul(&sides));
    Ok(Tensor::stack(&[rows, by_row.select(1, 1)], 0))
}

pub(crate) fn fake_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, std: &Tensor, kind: Kind) -> Tensor {
    ((x - x.mean_dim(-1i64, true, x.kind())) / std.detach() * weight + bias).to_kind(kind)
}

pub(crate) fn residual(x: &Tensor, branch: &Tensor, fused: &FusedOutputs) -> ResidualStream {
    let sum = x + branch;
    let kind = if fused.bfloat16 { Kind::BFloat16 } else { sum.kind() };
    let read = match &fused.norm {
        Some((weight, bias, std)) => Some(fake_norm(&sum, weight, bias, std, kind)),
        None => fused.bfloat16.then(|| sum.to_kind(kind)),
    };
    let sigma = fused.sigma.map(|eps| crate::base::ffi::must(sigma(&sum.detach(), eps)));
    ResidualStream { x: sum, read, normed: fused.norm.is_some(), sigma }
}

pub(crate) fn logits_to_gradient(
    logits: &mut Tensor,
    vocab_size: i64,
    targets: &Tensor,
    coefficient: &Tensor,
) -> Result<Tensor> {
    let no_tokens = logits.narrow(1, vocab_size, logits.size()[1] - vocab_size);
    let _ = no_tokens.shallow_clone().fill_(f64::NEG_INFINITY);
    let n = logits.size()[0];
    let losses = Tensor::empty([n], (Kind::Float, logits.device()));
    let at_a_time = float_rows_at_a_time(vocab_size as u64) as i64;
    for start in (0..n).step_by(at_a_time as usize) {
        let cut = |x: &Tensor| x.narrow(0, start, at_a_time.min(n - start));
        let targets = cut(targets);
        let mut log_p = cut(logits).log_softmax(-1, Kind::Float);
        let at = targets.clamp_min(0).unsqueeze(-1);
        let counted = targets.ge(0).unsqueeze(-1).to_kind(Kind::Float);
        cut(&losses).f_copy_(&-(log_p.f_gather(-1, &at, false)? * &counted).squeeze_dim(-1))?;
        let weights = (&counted * coefficient).to_kind(Kind::Float);
        // p − onehot(target) is exact in float32; the product with the weights is rounded into its place.
        let _ = log_p.exp_().scatter_add_(-1, &at, &-counted).mul_out(&cut(logits), &weights);
    }
    Ok(losses)
}

pub(crate) fn distilled_gradient(
    logits: &mut Tensor,
    teacher: &Tensor,
    vocab_size: i64,
    targets: &Tensor,
    coefficient: &Tensor,
    Mixture { weight, temperature }: Mixture,
) -> Result<Tensor> {
    let n = logits.size()[0];
    let losses = Tensor::empty([n, 2], (Kind::Float, logits.device()));
    // What is written and read again some ten times stays in a CPU's cache.
    let at_a_time = match logits.device() {
        Device::Cpu => (IN_CACHE / vocab_size).max(1),
        _ => float_rows_at_a_time(vocab_size as u64) as i64,
    };
    for start in (0..n).step_by(at_a_time as usize) {
        let cut = |x: &Tensor| x.narrow(0, start, at_a_time.min(n - start));
        let tokens = |x: &Tensor| cut(x).narrow(1, 0, vocab_size).to_kind(Kind::Float);
        let targets = cut(targets);
        let at = targets.clamp_min(0).unsqueeze(-1);
        let counted = targets.ge(0).unsqueeze(-1).to_kind(Kind::Float);
        let weights = (&counted * coefficient).to_kind(Kind::Float);
        let student = tokens(logits);
        let mut log_p = student.log_softmax(-1, Kind::Float);
        let ce = -log_p.f_gather(-1, &at, false)?;
        // (1 − w)(p − onehot(target)), if that is not all of it.
        let of_targets =
            (weight != 1.0).then(|| log_p.exp().scatter_add_(-1, &at, &-&counted) * (1.0 - weight));
        if temperature != 1.0 {
            log_p = (student / temperature).log_softmax(-1, Kind::Float);
        }
        let mut log_q = (tokens(teacher) / temperature).log_softmax(-1, Kind::Float);
        let q = log_q.exp();
        // 0 log 0 is 0.
        let _ = log_q.clamp_min_(-1e30);
        let kl = log_q.g_sub_(&log_p).g_mul_(&q).sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
        cut(&losses).f_copy_(&(Tensor::cat(&[ce, kl], -1) * &counted))?;
        // w T² times the gradient of the KL, (p − q) / T.
        let mut grad = log_p.exp_().g_sub_(&q).g_mul_scalar_(weight * temperature);
        if let Some(of_targets) = of_targets {
            grad += of_targets;
        }
        cut(logits).narrow(1, 0, vocab_size).f_copy_(&grad.g_mul_(&weights))?;
    }
    Ok(losses)
}

/// Numbers of float32 that fit into a CPU's cache several times.
const IN_CACHE: i64 = 1 << 18;

/// Rows of logits in float32 at a time, twice where logits are bfloat16: 256 MiB, which is enough to keep a
/// GPU busy.
pub(crate) fn float_rows_at_a_time(vocab_size: u64) -> u64 {
    ((64 << 20) / vocab_size.max(1)).max(1)
}

pub(crate) fn token_stats(
    last: &Tensor,
    head: &Tensor,
    vocab_size: i64,
    targets: &Tensor,
    _tokens: i64,
) -> Result<Tensor> {
    let logits = last.f_linear::<Tensor>(head, None)?.narrow(1, 0, vocab_size).to_kind(Kind::Float);
    let targets = targets.unsqueeze(-1);
    let correct = logits.argmax(-1, true).eq_tensor(&targets).to_kind(Kind::Float);
    // Below the largest logit, sums lose no digits to what all logits have in common.
    let below = &logits - logits.amax([-1i64], true);
    let target = below.f_gather(-1, &targets, false)?;
    let log_total = below.logsumexp([-1i64], true);
    let mean = ((&below - &log_total).exp() * &below).sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
    Ok(Tensor::cat(&[&log_total - target, &log_total - mean, (-&log_total).exp(), correct], -1))
}

/// Autograd sums products, whose gradients are those that arrived.
pub(crate) fn backward_from(tensors: &[(&Tensor, Option<&Tensor>)]) -> Result<()> {
    let term = |(tensor, grad): &(&Tensor, Option<&Tensor>)| match grad {
        Some(grad) => (*tensor * *grad).sum(Kind::Float),
        None => tensor.to_kind(Kind::Float),
    };
    let sum = tensors.iter().map(term).reduce(|a, b| a + b);
    Ok(sum.map_or(Ok(()), |sum| sum.f_backward())?)
}

/// Autograd makes the gradient, whatever is in it.
pub(crate) fn start_gathering(parameter: &Tensor) -> Result<()> {
    tch::with_grad(|| (parameter * 0.0).sum(Kind::Float).f_backward())?;
    tch::no_grad(|| parameter.grad().f_zero_().map(drop))?;
    Ok(())
}

pub(crate) fn fused_adamw(
    slots: &[AdamWSlot],
    step: &Tensor,
    constants: AdamWStep,
    grad_scale: &Tensor,
) -> Result<()> {
    let AdamWStep { lr, betas, weight_decay, eps } = constants;
    let _guard = tch::no_grad_guard();
    // 1 − βᵗ, by which a moment that began at zero is too small.
    let correction = |beta: f64| -> Tensor { 1.0 - (step.to_kind(Kind::Double) * beta.ln()).exp() };
    let (of_mean, of_square) = (correction(betas.0), correction(betas.1));
    for &[parameter, grad, mean, square] in slots {
        let [mut parameter, mut mean, mut square] = [parameter, mean, square].map(Tensor::shallow_clone);
        let grad = grad / grad_scale;
        parameter *= 1.0 - lr * weight_decay;
        let _ = mean.f_lerp_(&grad, 1.0 - betas.0)?;
        let _ = square.f_mul_scalar_(betas.1)?.f_addcmul_(&grad, &(&grad * (1.0 - betas.1)))?;
        let root = (&square / &of_square.to_kind(square.kind())).sqrt() + eps;
        parameter -= &mean / root * (of_mean.reciprocal() * lr).to_kind(mean.kind());
    }
    Ok(())
}

/// Numbers that are on the CPU once somebody waits for them.
#[cfg(not(feature = "kernels"))]
#[derive(Debug)]
pub(crate) struct Reading(Tensor);

#[cfg(not(feature = "kernels"))]
impl Reading {
    pub(crate) fn begin(x: &Tensor) -> Result<Reading> {
        Ok(Reading(x.shallow_clone()))
    }

    pub(crate) fn end(self) -> Result<Tensor> {
        Ok(self.0.f_to_device(tch::Device::Cpu)?)
    }
}
