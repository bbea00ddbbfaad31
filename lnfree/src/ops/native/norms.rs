//! The kernels of fake LNs and of sums on the residual stream.

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use crate::Result;
use crate::base::ffi::symbols::*;
use crate::base::ffi::{check, must, tensor};
use crate::ops::types::{FusedOutputs, LinearNorm, ResidualStream};

pub(crate) fn fold(ln: &LinearNorm, weight: &Tensor, to: &Tensor) -> Result<Tensor> {
    // SAFETY: `choose` looked at types, device and layout; `to` is written by the kernel alone.
    tensor(unsafe { lnfree_fold(weight.as_ptr(), ln.gain.as_ptr(), ln.beta.as_ptr(), to.as_ptr()) })
}

pub(crate) fn unfold(ln: &LinearNorm, grad: &Tensor, weight: &Tensor, bias_grad: &Tensor) -> Result<Tensor> {
    let bias_grad = bias_grad.contiguous();
    let (gain, beta) = (ln.gain.as_ptr(), ln.beta.as_ptr());
    // SAFETY: as in `fold`; `grad` is written by the kernel alone.
    tensor(unsafe { lnfree_unfold(grad.as_ptr(), weight.as_ptr(), gain, beta, bias_grad.as_ptr()) })
}

pub(crate) fn fake_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, std: &Tensor, kind: Kind) -> Tensor {
    // SAFETY: types, device and shapes are what the kernel takes; the tensors live through the call, which
    // takes its own references.
    must(tensor(unsafe {
        let (weight, bias) = (weight.as_ptr(), bias.as_ptr());
        lnfree_fake_norm(x.as_ptr(), weight, bias, std.detach().as_ptr(), kind == Kind::BFloat16)
    }))
}

pub(crate) fn residual(x: &Tensor, branch: &Tensor, fused: &FusedOutputs) -> ResidualStream {
    let null = std::ptr::null();
    let (weight, bias, divisor) = match &fused.norm {
        Some((weight, bias, std)) => (weight.as_ptr(), bias.as_ptr(), std.as_ptr()),
        None => (null, null, null),
    };
    let (bfloat16, sigma) = (fused.bfloat16, fused.sigma);
    let (observe, eps) = (sigma.is_some(), sigma.unwrap_or(0.0));
    let mut out = [std::ptr::null_mut(); 3];
    let to = out.as_mut_ptr();
    // SAFETY: the tensors live through the call, which takes its own references; `out` has room for three.
    must(check(unsafe {
        lnfree_residual(x.as_ptr(), branch.as_ptr(), weight, bias, divisor, bfloat16, observe, eps, to)
    }));
    let [x, read, sigma] = out;
    // SAFETY: new tensors, or null, which nobody else will free.
    let owned = |pointer: *mut C_tensor| (!pointer.is_null()).then(|| unsafe { Tensor::from_ptr(pointer) });
    ResidualStream {
        x: must(tensor(x)),
        read: owned(read),
        normed: fused.norm.is_some(),
        sigma: owned(sigma),
    }
}
