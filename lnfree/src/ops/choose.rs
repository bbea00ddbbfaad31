//! Where each operation is computed: no other file chooses.

use tch::{Kind, Tensor};

use super::types::{AdamWSlot, AdamWStep, FusedOutputs, Gradients, LinearNorm, Mixture, ResidualStream};
use super::{native, reference};
use crate::base::device::{Kernels, for_cpu_kernels, for_gpu_kernels, kernels_are_off};
use crate::base::ffi::must;
use crate::{Error, Result};

/// The longest rows of the residual stream that a GPU adds; native/residual.cpp has the same number.
const GPU_LONGEST: i64 = 4096;

/// Heads of attention are multiplied that many numbers at a time; native/loops.hpp has the same number.
const ATTENTION_STEP: i64 = 16;

/// x `[.., in]` @ weight `[in, out]` + bias `[out]`, all in one type; differentiable. In a backward, the
/// gradients of weight and bias are added to `into`, which only kernels can, or go the usual way without it.
///
/// # Errors
/// What libtorch says: shapes that do not fit, or no memory.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, into: Option<&Gradients>) -> Result<Tensor> {
    match noted(into.is_some() || !kernels_are_off()) {
        true => native::linear(x, weight, bias, into),
        false => reference::linear(x, weight, bias, into),
    }
}

/// a `[m, k]` @ b `[k, n]`, without a graph.
///
/// # Errors
/// As [`linear`].
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ours = noted(!kernels_are_off());
    if ours { native::product(a, b) } else { reference::product(a, b) }
}

/// into `[m, n]` += a `[.., k]` @ b `[k, n]`, without a graph, where rows of a after the first m count for
/// nothing; `into` may be float32 where the others are bfloat16.
///
/// # Errors
/// As [`linear`].
pub(crate) fn add_product(into: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let ours = noted(!kernels_are_off());
    if ours { native::add_product(into, a, b) } else { reference::add_product(into, a, b) }
}

/// Goes on backwards from `tensors` with the gradient that arrived at each; None for one, at a tensor of one
/// number.
///
/// # Errors
/// As [`linear`].
pub(crate) fn backward_from(tensors: &[(&Tensor, Option<&Tensor>)]) -> Result<()> {
    let ours = noted(!kernels_are_off());
    if ours { native::backward_from(tensors) } else { reference::backward_from(tensors) }
}

/// Gives the leaf `parameter` a gradient of zeros, to which what is found is added.
///
/// # Errors
/// As [`linear`].
pub(crate) fn start_gathering(parameter: &Tensor) -> Result<()> {
    let ours = noted(!kernels_are_off());
    if ours { native::start_gathering(parameter) } else { reference::start_gathering(parameter) }
}

/// One AdamW step (decoupled decay) over all of `slots`; gradients are divided by `grad_scale` (float32,
/// 0-dim) first. `step` is float32, 0-dim: the 1-based number of this step.
///
/// # Errors
/// As [`linear`].
pub(crate) fn fused_adamw(
    slots: &[AdamWSlot],
    step: &Tensor,
    constants: AdamWStep,
    grad_scale: &Tensor,
) -> Result<()> {
    match noted(!kernels_are_off()) {
        true => native::fused_adamw(slots, step, constants, grad_scale),
        false => reference::fused_adamw(slots, step, constants, grad_scale),
    }
}

/// GPT-2's GELU, the one with tanh; differentiable.
///
/// # Errors
/// What libtorch says.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let ours = noted(for_cpu_kernels(x) && known(x.kind()));
    if ours { native::gelu(x) } else { reference::gelu(x) }
}

/// Causal attention softmax(q kᵀ / √d_head) v of q, k and v `[batch, head, pos, d_head]`; likewise, in memory
/// `[batch, pos, head, d_head]` where it is ours; differentiable.
///
/// # Errors
/// What libtorch says.
pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    // Where vectors are wide enough that it was measured to be faster than libtorch's, or where a test wants
    // it.
    let pays = || Kernels::usable().any(|level| level == Kernels::Avx512) || Kernels::was_set();
    let fits = q.size().last().is_some_and(|d| d % ATTENTION_STEP == 0) && q.numel() > 0 && known(q.kind());
    let ours = noted(fits && for_cpu_kernels(q) && pays());
    if ours { native::causal_attention(q, k, v) } else { reference::causal_attention(q, k, v) }
}

/// σ = sqrt(var(x) + ε) over the last axis, biased variance; differentiable. `[.., n]` → `[..]`.
///
/// # Errors
/// What libtorch says.
pub(crate) fn sigma(x: &Tensor, eps: f64) -> Result<Tensor> {
    let ours = noted(for_cpu_kernels(x) && x.kind() == Kind::Float);
    if ours { native::sigma(x, eps) } else { reference::sigma(x, eps) }
}

/// [`sigma`] of the residual stream `[batch, pos, n_embd]`: `[batch, pos]`.
pub(crate) fn sigma_of(x: &Tensor, eps: f64) -> Tensor {
    must(sigma(x, eps))
}

impl LinearNorm {
    /// Writes C diag(gain) weight into `to`, and returns βᵀ weight, float32 `[out]`. `weight` and `to`
    /// `[in, out]`, each float32 or bfloat16; both may be columns of wider matrices.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn fold(&self, weight: &Tensor, to: &Tensor) -> Result<Tensor> {
        let ours = noted(for_matrix_kernels(weight) && for_matrix_kernels(to));
        if ours { native::fold(self, weight, to) } else { reference::fold(self, weight, to) }
    }

    /// Turns `grad`, that of the folded matrix, into that of `weight`, both `[in, out]` of one type, and
    /// returns rowsum(C G ⊙ W) and W g, float32 `[2, in]`, where G is what `grad` was and g is `bias_grad`,
    /// float32 `[out]`.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn unfold(&self, grad: &Tensor, weight: &Tensor, bias_grad: &Tensor) -> Result<Tensor> {
        let ours = for_matrix_kernels(grad) && for_matrix_kernels(weight) && grad.kind() == weight.kind();
        match noted(ours) {
            true => native::unfold(self, grad, weight, bias_grad),
            false => reference::unfold(self, grad, weight, bias_grad),
        }
    }
}

/// (x − mean(x)) / std ⊙ γ + β of `x` `[batch, pos, n]`, in `kind`; differentiable, but for `std`, which is
/// 0-dim, `[1, pos, 1]`, `[batch, pos, 1]` or `[1, 1, n]`.
pub(crate) fn fake_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, std: &Tensor, kind: Kind) -> Tensor {
    let one_per_row = std.numel() == 1 || std.size().last() == Some(&1);
    let fits = x.kind() == Kind::Float && known(kind) && one_per_row && x.numel() > 0;
    match noted(fits && for_cpu_kernels(x)) {
        true => native::fake_norm(x, weight, bias, std, kind),
        false => reference::fake_norm(x, weight, bias, std, kind),
    }
}

/// Whether a kernel makes sums on the stream `x` with other things: on a CPU all, on a GPU those whose rows
/// its threads share evenly.
pub(crate) fn residual_is_ours(x: &Tensor) -> bool {
    let n = x.size().last().copied().unwrap_or(0);
    x.numel() > 0 && (for_cpu_kernels(x) || (n % 4 == 0 && n <= GPU_LONGEST && for_gpu_kernels(x)))
}

/// `x` + `branch`, both `[batch, pos, n]`, the one float32, the other float32 or bfloat16, and the outputs
/// `fused` asks for, in one pass; differentiable. A GPU's kernel makes no fake LN of it.
pub(crate) fn residual(x: &Tensor, branch: &Tensor, fused: &FusedOutputs) -> ResidualStream {
    match noted(residual_is_ours(x)) {
        true => native::residual(x, branch, fused),
        false => reference::residual(x, branch, fused),
    }
}

/// The first `vocab_size` columns of `logits` `[n, ..]`, float32 or bfloat16, become the gradient of
/// `coefficient` (float64, 0-dim) times the sum of the cross-entropies, in place; returns these, float32
/// `[n]`. A negative target counts for nothing. `targets` int64 `[n]`.
///
/// # Errors
/// Logits of another type or layout, a target outside the vocabulary on a CPU, and what libtorch says.
pub(crate) fn logits_to_gradient(
    logits: &mut Tensor,
    vocab_size: i64,
    targets: &Tensor,
    coefficient: &Tensor,
) -> Result<Tensor> {
    check_logits(logits, vocab_size, targets)?;
    match noted(for_cpu_kernels(logits) || for_gpu_kernels(logits)) {
        true => native::logits_to_gradient(logits, vocab_size, targets, coefficient),
        false => reference::logits_to_gradient(logits, vocab_size, targets, coefficient),
    }
}

/// [`logits_to_gradient`] of a loss that is partly the distance to a teacher, whose logits `teacher`
/// `[n, vocab_size..]` are of any floating type. The first `vocab_size` columns of `logits` become the
/// gradient of `coefficient` times the sum of (1 − w) · cross-entropy + w T² · KL(teacher ‖ student), the KL
/// between distributions at temperature T (Hinton et al., arXiv 1503.02531); the other columns, which are no
/// tokens, become zeros. Returns cross-entropy and KL, in nats, float32 `[n, 2]`. A row with a negative
/// target counts for nothing.
///
/// # Errors
/// As [`logits_to_gradient`].
pub(crate) fn distilled_gradient(
    logits: &mut Tensor,
    teacher: &Tensor,
    vocab_size: i64,
    targets: &Tensor,
    coefficient: &Tensor,
    mixture: Mixture,
) -> Result<Tensor> {
    check_logits(logits, vocab_size, targets)?;
    let size = teacher.size();
    if size.len() != 2 || size[0] != logits.size()[0] || size[1] < vocab_size {
        let logits = logits.size();
        return Err(Error::invalid(format!("a teacher's logits {size:?} for those of a model, {logits:?}")));
    }
    let _ = logits.narrow(1, vocab_size, logits.size()[1] - vocab_size).zero_();
    let dense = teacher.stride()[1] == 1 && teacher.kind() == logits.kind();
    match noted(dense && for_cpu_kernels(logits)) {
        true => native::distilled_gradient(logits, teacher, vocab_size, targets, coefficient, mixture),
        false => reference::distilled_gradient(logits, teacher, vocab_size, targets, coefficient, mixture),
    }
}

/// Cross-entropy, entropy (both in nats), largest probability, and whether the target has it (1 or 0),
/// float32 `[n, 4]`, of `last` `[n, n_embd]` unembedded by `head` `[vocab_size.., n_embd]`, whose rows behind
/// the vocabulary are no tokens. `targets` int64 `[n]`. `tokens`: how many of the vocabulary a CPU takes at a
/// time. NaN on a GPU for a target outside the vocabulary.
///
/// # Errors
/// A target outside the vocabulary on a CPU, and what libtorch says.
pub(crate) fn token_stats(
    last: &Tensor,
    head: &Tensor,
    vocab_size: i64,
    targets: &Tensor,
    tokens: i64,
) -> Result<Tensor> {
    check_targets(targets, 0, vocab_size)?;
    match noted(for_cpu_kernels(last) || for_gpu_kernels(last)) {
        true => native::token_stats(last, head, vocab_size, targets, tokens),
        false => reference::token_stats(last, head, vocab_size, targets, tokens),
    }
}

/// Whether a kernel computes; tests ask which way operations went.
fn noted(ours: bool) -> bool {
    #[cfg(test)]
    tests::WAYS.with_borrow_mut(|ways| ways.push(ours));
    ours
}

/// Whether kernels compute in it.
fn known(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::BFloat16)
}

/// Whether the kernels of matrices take it.
fn for_matrix_kernels(matrix: &Tensor) -> bool {
    known(matrix.kind()) && for_cpu_kernels(matrix) && matrix.stride()[1] == 1
}

/// # Errors
/// Logits that are no rows of numbers, or not those of `targets`.
fn check_logits(logits: &Tensor, vocab_size: i64, targets: &Tensor) -> Result<()> {
    let size = logits.size();
    let fits = size.len() == 2 && targets.size() == [size[0]] && (1..=size[1]).contains(&vocab_size);
    let types = known(logits.kind()) && targets.kind() == Kind::Int64;
    let one_place = logits.device() == targets.device();
    if fits && types && one_place && logits.is_contiguous() && targets.is_contiguous() {
        return check_targets(targets, i64::MIN, vocab_size);
    }
    let kind = logits.kind();
    let targets = targets.size();
    Err(Error::invalid(format!("{vocab_size} tokens of logits {size:?} ({kind:?}) for targets {targets:?}")))
}

/// For the kernels of CPUs, which look at nothing themselves; elsewhere it would make somebody wait.
///
/// # Errors
/// One outside `least .. vocab_size`.
fn check_targets(targets: &Tensor, least: i64, vocab_size: i64) -> Result<()> {
    if !for_cpu_kernels(targets) || targets.numel() == 0 {
        return Ok(());
    }
    let (low, high) = (targets.min().int64_value(&[]), targets.max().int64_value(&[]));
    match [low, high].into_iter().find(|id| !(least..vocab_size).contains(id)) {
        Some(id) => {
            Err(Error::invalid(format!("token {id} is outside the vocabulary of {vocab_size} tokens")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tch::Device;

    use super::*;

    thread_local!(pub(super) static WAYS: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) });

    /// Every operation once, with what each kernel takes.
    fn all_of_them() -> Vec<bool> {
        WAYS.take();
        let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
        let matrix = ones(&[32, 32]);
        drop(must(linear(&matrix, &matrix, &ones(&[32]), None)));
        drop(must(product(&matrix, &matrix)));
        must(add_product(&mut matrix.copy(), &matrix, &matrix));
        let leaf = matrix.copy().set_requires_grad(true);
        must(start_gathering(&leaf));
        must(backward_from(&[(&(&leaf * 2.0), Some(&matrix))]));
        let constants = AdamWStep { lr: 1e-3, betas: (0.9, 0.95), weight_decay: 0.0, eps: 1e-8 };
        let slot: [Tensor; 4] = std::array::from_fn(|_| matrix.copy());
        must(fused_adamw(&[slot.each_ref()], &Tensor::from(1.0f32), constants, &Tensor::from(1.0f32)));
        drop(must(gelu(&matrix)));
        let [q, k, v]: [Tensor; 3] = std::array::from_fn(|_| ones(&[1, 2, 8, 16]));
        drop(must(causal_attention(&q, &k, &v)));
        drop(must(sigma(&matrix, 1e-5)));
        let ln = LinearNorm { gain: ones(&[32]), beta: ones(&[32]) };
        drop(must(ln.fold(&matrix, &matrix.copy())));
        drop(must(ln.unfold(&matrix.copy(), &matrix, &ones(&[32]))));
        let x = ones(&[1, 8, 32]);
        drop(fake_norm(&x, &ln.gain, &ln.beta, &Tensor::from(1.0f32), Kind::Float));
        residual(&x, &x, &FusedOutputs::default());
        let ids = Tensor::zeros([32], (Kind::Int64, Device::Cpu));
        drop(must(logits_to_gradient(&mut matrix.copy(), 32, &ids, &Tensor::from(1.0f64))));
        let mixture = Mixture { weight: 0.5, temperature: 2.0 };
        drop(must(distilled_gradient(&mut matrix.copy(), &matrix, 32, &ids, &Tensor::from(1.0f64), mixture)));
        drop(must(token_stats(&matrix, &matrix, 32, &ids, 16)));
        WAYS.take()
    }

    #[test]
    fn kernels_compute_where_they_may_and_formulas_elsewhere() {
        let levels = Kernels::usable().filter(|level| *level != Kernels::Plain);
        for level in levels {
            let _level = level.on_this_thread();
            let ways = all_of_them();
            assert!(ways.len() >= 16 && ways.iter().all(|ours| *ours), "{level:?}: {ways:?}");
        }
        let _plain = Kernels::Plain.on_this_thread();
        let ways = all_of_them();
        assert!(ways.len() >= 16 && !ways.contains(&true), "{ways:?}");
    }
}
