//! Operations on tensors that libtorch has in no fast form, or that tch does not reach.

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use crate::base::ffi::{check, tensor};
use crate::{Error, Result};

unsafe extern "C" {
    fn lnfree_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        weight_grad: *const C_tensor,
        bias_grad: *const C_tensor,
    ) -> *mut C_tensor;
    fn lnfree_product(a: *const C_tensor, b: *const C_tensor) -> *mut C_tensor;
    fn lnfree_add_product(into: *mut C_tensor, a: *const C_tensor, b: *const C_tensor) -> i32;
    fn lnfree_gelu(x: *const C_tensor) -> *mut C_tensor;
    fn lnfree_causal_attention(q: *const C_tensor, k: *const C_tensor, v: *const C_tensor) -> *mut C_tensor;
    fn lnfree_sigma(x: *const C_tensor, eps: f64) -> *mut C_tensor;
    fn lnfree_logits_to_gradient(
        logits: *mut C_tensor,
        vocab_size: i64,
        targets: *const C_tensor,
        coefficient: f32,
        losses: *mut C_tensor,
    ) -> i32;
    fn lnfree_backward(tensors: *const *const C_tensor, grads: *const *const C_tensor, n: i32) -> i32;
    fn lnfree_set_grad(parameter: *const C_tensor, grad: *const C_tensor) -> i32;
    fn lnfree_fused_adamw(
        parameters: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        step: *const C_tensor,
        n: i32,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        grad_scale: *const C_tensor,
    ) -> i32;
}

/// Float32 (or the parameters' type) gradients that gather beside the tensors they belong to.
#[derive(Debug)]
pub(crate) struct Gradients {
    /// Of the weight, in its shape.
    pub weight: Tensor,
    /// Of the bias.
    pub bias: Tensor,
}

/// x `[.., in]` @ weight `[in, out]` + bias `[out]`, all in one type. In a backward, the gradients of weight and bias are added to
/// `into`, or go the usual way without it.
///
/// # Errors
/// What libtorch says: shapes that do not fit, or no memory.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, into: Option<&Gradients>) -> Result<Tensor> {
    let null = std::ptr::null();
    let (weight_grad, bias_grad) = into.map_or((null, null), |g| (g.weight.as_ptr(), g.bias.as_ptr()));
    // SAFETY: the tensors live through the call, which takes its own references.
    tensor(unsafe { lnfree_linear(x.as_ptr(), weight.as_ptr(), bias.as_ptr(), weight_grad, bias_grad) })
}

/// a `[m, k]` @ b `[k, n]`, without a graph.
///
/// # Errors
/// As [`linear`].
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_product(a.as_ptr(), b.as_ptr()) })
}

/// into `[m, n]` += a `[.., k]` @ b `[k, n]`, without a graph, where rows of a after the first m count for nothing; `into` may be float32 where the
/// others are bfloat16.
///
/// # Errors
/// As [`linear`].
pub(crate) fn add_product(into: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    // SAFETY: as in `linear`; `into` is this caller's alone.
    check(unsafe { lnfree_add_product(into.as_mut_ptr(), a.as_ptr(), b.as_ptr()) })
}

/// GPT-2's GELU, the one with tanh; differentiable.
///
/// # Errors
/// As [`linear`].
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_gelu(x.as_ptr()) })
}

/// Causal attention softmax(q kᵀ / √d_head) v of q, k and v `[batch, head, pos, d_head]`; likewise, in memory `[batch, pos, head, d_head]` where it
/// is ours; differentiable.
///
/// # Errors
/// As [`linear`].
pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_causal_attention(q.as_ptr(), k.as_ptr(), v.as_ptr()) })
}

/// σ = sqrt(var(x) + ε) over the last axis, biased variance; differentiable. `[.., n]` → `[..]`.
///
/// # Errors
/// As [`linear`].
pub(crate) fn sigma(x: &Tensor, eps: f64) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_sigma(x.as_ptr(), eps) })
}

/// Turns the first `vocab_size` columns of `logits` `[n, ..]` on the CPU, float32 or bfloat16, into the gradient of `coefficient` · Σ cross-entropy,
/// in place; returns the cross-entropies, float32 `[n]`. A negative target counts for nothing.
///
/// # Errors
/// Logits of another type or layout, targets outside the vocabulary, and as [`linear`].
pub(crate) fn logits_to_gradient(
    logits: &mut Tensor,
    vocab_size: i64,
    targets: &Tensor,
    coefficient: f32,
) -> Result<Tensor> {
    let (kind, size) = (logits.kind(), logits.size());
    let known = matches!(kind, Kind::Float | Kind::BFloat16) && logits.device() == tch::Device::Cpu;
    let fits =
        size.len() == 2 && vocab_size <= size[1] && targets.size() == [size[0]] && logits.is_contiguous();
    if !known || !fits || targets.kind() != Kind::Int64 || !targets.is_contiguous() {
        return Err(Error::invalid(format!("logits {size:?} ({kind:?}) of targets {:?}", targets.size())));
    }
    if size[0] > 0 && targets.max().int64_value(&[]) >= vocab_size {
        return Err(Error::invalid(format!("a target is outside the vocabulary of {vocab_size} tokens")));
    }
    let mut losses = Tensor::empty([size[0]], (Kind::Float, logits.device()));
    // SAFETY: types, layout and range were checked; both tensors that are written are this caller's alone.
    check(unsafe {
        lnfree_logits_to_gradient(
            logits.as_mut_ptr(),
            vocab_size,
            targets.as_ptr(),
            coefficient,
            losses.as_mut_ptr(),
        )
    })?;
    Ok(losses)
}

/// Goes on backwards from `tensors` with the gradient that arrived at each; None for one, at a tensor of one number.
///
/// # Errors
/// As [`linear`].
pub(crate) fn backward_from(tensors: &[(&Tensor, Option<&Tensor>)]) -> Result<()> {
    let roots: Vec<_> = tensors.iter().map(|(tensor, _)| tensor.as_ptr()).collect();
    let grads: Vec<_> =
        tensors.iter().map(|(_, grad)| grad.map_or(std::ptr::null(), Tensor::as_ptr)).collect();
    // SAFETY: two lists of that length, whose tensors outlive the call.
    check(unsafe { lnfree_backward(roots.as_ptr(), grads.as_ptr(), roots.len() as i32) })
}

/// Makes `grad` the gradient of the leaf `parameter`: what is added to the one is seen in the other.
///
/// # Errors
/// As [`linear`].
pub(crate) fn set_grad(parameter: &Tensor, grad: &Tensor) -> Result<()> {
    // SAFETY: as in `linear`.
    check(unsafe { lnfree_set_grad(parameter.as_ptr(), grad.as_ptr()) })
}

/// A parameter, its gradient and its two moments.
pub(crate) type AdamWSlot<'a> = [&'a Tensor; 4];

/// Constants of one AdamW step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decays of the moments.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// One AdamW step over all of `slots` in one pass; gradients are divided by `grad_scale` (float32, 0-dim) first. `step` is float32, 0-dim: the
/// 1-based number of this step.
///
/// # Errors
/// As [`linear`].
pub(crate) fn fused_adamw(
    slots: &[AdamWSlot],
    step: &Tensor,
    constants: AdamWStep,
    grad_scale: &Tensor,
) -> Result<()> {
    let column = |i: usize| slots.iter().map(|slot| slot[i].as_ptr()).collect::<Vec<_>>();
    let (parameters, grads, exp_avgs, exp_avg_sqs) = (column(0), column(1), column(2), column(3));
    let n = i32::try_from(slots.len()).map_err(|_| Error::invalid("too many parameters"))?;
    let AdamWStep { lr, betas, weight_decay, eps } = constants;
    // SAFETY: four lists of n tensors each, which outlive the call.
    check(unsafe {
        lnfree_fused_adamw(
            parameters.as_ptr(),
            grads.as_ptr(),
            exp_avgs.as_ptr(),
            exp_avg_sqs.as_ptr(),
            step.as_ptr(),
            n,
            lr,
            betas.0,
            betas.1,
            weight_decay,
            eps,
            grad_scale.as_ptr(),
        )
    })
}
