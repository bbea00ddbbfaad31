//! Operations on tensors that libtorch has in no fast form, or that tch does not reach; `choose` says what
//! each takes and returns.

use tch::Tensor;

use crate::base::ffi::symbols::*;
use crate::base::ffi::{check, tensor};
use crate::ops::types::{AdamWSlot, AdamWStep, Gradients};
use crate::{Error, Result};

pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, into: Option<&Gradients>) -> Result<Tensor> {
    let null = std::ptr::null();
    let (weight_grad, bias_grad) = into.map_or((null, null), |g| (g.weight.as_ptr(), g.bias.as_ptr()));
    // SAFETY: the tensors live through the call, which takes its own references.
    tensor(unsafe { lnfree_linear(x.as_ptr(), weight.as_ptr(), bias.as_ptr(), weight_grad, bias_grad) })
}

pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_product(a.as_ptr(), b.as_ptr()) })
}

pub(crate) fn add_product(into: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    // SAFETY: as in `linear`; `into` is this caller's alone.
    check(unsafe { lnfree_add_product(into.as_mut_ptr(), a.as_ptr(), b.as_ptr()) })
}

pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_gelu(x.as_ptr()) })
}

pub(crate) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_causal_attention(q.as_ptr(), k.as_ptr(), v.as_ptr()) })
}

pub(crate) fn sigma(x: &Tensor, eps: f64) -> Result<Tensor> {
    // SAFETY: as in `linear`.
    tensor(unsafe { lnfree_sigma(x.as_ptr(), eps) })
}

pub(crate) fn backward_from(tensors: &[(&Tensor, Option<&Tensor>)]) -> Result<()> {
    let roots: Vec<_> = tensors.iter().map(|(tensor, _)| tensor.as_ptr()).collect();
    let grads: Vec<_> =
        tensors.iter().map(|(_, grad)| grad.map_or(std::ptr::null(), Tensor::as_ptr)).collect();
    // SAFETY: two lists of that length, whose tensors outlive the call.
    check(unsafe { lnfree_backward(roots.as_ptr(), grads.as_ptr(), roots.len() as i32) })
}

pub(crate) fn start_gathering(parameter: &Tensor) -> Result<()> {
    let grad = parameter.f_zeros_like()?;
    // SAFETY: as in `linear`.
    check(unsafe { lnfree_set_grad(parameter.as_ptr(), grad.as_ptr()) })
}

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
