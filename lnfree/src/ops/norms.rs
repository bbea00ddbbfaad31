//! The kernels of fake LNs, on a CPU; for other devices, and to compare with, the same in libtorch's operations.

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use crate::Result;
use crate::base::device::{for_cpu_kernels, for_gpu_kernels};
use crate::base::ffi::{check, must, tensor};

/// The longest rows of the residual stream that a GPU adds; native/residual.cpp has the same number.
const GPU_LONGEST: i64 = 4096;

unsafe extern "C" {
    fn lnfree_fold(
        weight: *const C_tensor,
        gain: *const C_tensor,
        beta: *const C_tensor,
        to: *const C_tensor,
    ) -> *mut C_tensor;
    fn lnfree_unfold(
        grad: *const C_tensor,
        weight: *const C_tensor,
        gain: *const C_tensor,
        beta: *const C_tensor,
        bias_grad: *const C_tensor,
    ) -> *mut C_tensor;
    fn lnfree_fake_norm(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        std: *const C_tensor,
        bfloat16: bool,
    ) -> *mut C_tensor;
    fn lnfree_residual(
        x: *const C_tensor,
        branch: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        std: *const C_tensor,
        bfloat16: bool,
        observe: bool,
        eps: f64,
        out: *mut *mut C_tensor,
    ) -> i32;
}

/// A fake LN as the matrix that reads it sees it: x ↦ (x − mean(x)) ⊙ gain + β.
#[derive(Debug)]
pub(crate) struct Affine {
    /// γ/σ̄, float32 `[in]`.
    pub gain: Tensor,
    /// β, float32 `[in]`.
    pub beta: Tensor,
}

impl Affine {
    /// Writes C diag(gain) weight into `to`, and returns βᵀ weight, float32 `[out]`. `weight` and `to` `[in, out]`, each float32 or bfloat16;
    /// both may be columns of wider matrices.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn fold(&self, weight: &Tensor, to: &Tensor) -> Result<Tensor> {
        if !(is_ours(weight) && is_ours(to)) {
            return Ok(self.fold_plainly(weight, to));
        }
        // SAFETY: types, device and layout are what the kernel takes; `to` is written by it alone.
        tensor(unsafe { lnfree_fold(weight.as_ptr(), self.gain.as_ptr(), self.beta.as_ptr(), to.as_ptr()) })
    }

    /// [`Affine::fold`] in libtorch's operations.
    pub(super) fn fold_plainly(&self, weight: &Tensor, to: &Tensor) -> Tensor {
        let wide = weight.to_kind(self.gain.kind());
        let sums = Tensor::stack(&[&self.gain / self.gain.numel() as f64, self.beta.shallow_clone()], 0)
            .matmul(&wide);
        to.shallow_clone().copy_(&(wide * self.gain.unsqueeze(1) - sums.get(0)));
        sums.get(1)
    }

    /// Turns `grad`, that of the folded matrix, into that of `weight`, both `[in, out]` of one type, and returns rowsum(C G ⊙ W) and W g, float32
    /// `[2, in]`, where G is what `grad` was and g is `bias_grad`, float32 `[out]`.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn unfold(&self, grad: &Tensor, weight: &Tensor, bias_grad: &Tensor) -> Result<Tensor> {
        if !(is_ours(grad) && is_ours(weight) && grad.kind() == weight.kind()) {
            return Ok(self.unfold_plainly(grad, weight, bias_grad));
        }
        let bias_grad = bias_grad.contiguous();
        // SAFETY: as in `fold`; `grad` is written by the kernel alone.
        tensor(unsafe {
            lnfree_unfold(
                grad.as_ptr(),
                weight.as_ptr(),
                self.gain.as_ptr(),
                self.beta.as_ptr(),
                bias_grad.as_ptr(),
            )
        })
    }

    /// [`Affine::unfold`] in libtorch's operations.
    pub(super) fn unfold_plainly(&self, grad: &Tensor, weight: &Tensor, bias_grad: &Tensor) -> Tensor {
        let (kind, mut grad) = (self.gain.kind(), grad.shallow_clone());
        // What centring takes from G, and g, side by side: [2, out].
        let sides = Tensor::stack(&[grad.mean_dim(0i64, false, kind), bias_grad.to_kind(kind)], 0);
        let by_row = weight.matmul(&sides.tr().to_kind(weight.kind())).to_kind(kind);
        let rows = (&grad * weight).sum_dim_intlist([1i64].as_slice(), false, kind) - by_row.select(1, 0);
        let _ = grad.g_mul_(&self.gain.unsqueeze(1));
        let outer = Tensor::stack(&[-&self.gain, self.beta.shallow_clone()], 1);
        let _ = grad.g_add_(&outer.matmul(&sides));
        Tensor::stack(&[rows, by_row.select(1, 1)], 0)
    }
}

/// Whether the kernels of matrices take it.
fn is_ours(matrix: &Tensor) -> bool {
    let known = matches!(matrix.kind(), Kind::Float | Kind::BFloat16);
    known && for_cpu_kernels(matrix) && matrix.stride()[1] == 1
}

/// (x − mean(x)) / std ⊙ γ + β of `x` `[batch, pos, n]`, in `kind`; differentiable, but for `std`, which is 0-dim, `[1, pos, 1]`,
/// `[batch, pos, 1]` or `[1, 1, n]`.
pub(crate) fn fake_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, std: &Tensor, kind: Kind) -> Tensor {
    let one_per_row = std.numel() == 1 || std.size().last() == Some(&1);
    let known = x.kind() == Kind::Float && matches!(kind, Kind::Float | Kind::BFloat16);
    if !(known && for_cpu_kernels(x) && one_per_row && x.numel() > 0) {
        return fake_norm_plainly(x, weight, bias, std).to_kind(kind);
    }
    // SAFETY: types, device and shapes are what the kernel takes; the tensors live through the call, which takes its own references.
    must(tensor(unsafe {
        let (weight, bias) = (weight.as_ptr(), bias.as_ptr());
        lnfree_fake_norm(x.as_ptr(), weight, bias, std.detach().as_ptr(), kind == Kind::BFloat16)
    }))
}

/// [`fake_norm`] in libtorch's operations, in the type of `x`.
pub(super) fn fake_norm_plainly(x: &Tensor, weight: &Tensor, bias: &Tensor, std: &Tensor) -> Tensor {
    (x - x.mean_dim(-1i64, true, x.kind())) / std * weight + bias
}

/// The residual stream somewhere, with what the kernel that made it found besides.
#[derive(Debug)]
pub(crate) struct ResidualStream {
    /// float32 `[batch, pos, n]`.
    pub x: Tensor,
    /// What the next matrix reads, if that was asked for.
    pub read: Option<Tensor>,
    /// Whether that is the fake LN before the matrix, not the stream itself.
    pub normed: bool,
    /// σ = sqrt(var(x) + ε), `[batch, pos]`, if that was asked for; without gradient.
    pub sigma: Option<Tensor>,
}

/// What a sum on the residual stream is to bring along, made by the same kernel.
#[derive(Debug, Default)]
pub(crate) struct FusedOutputs<'a> {
    /// The fake LN of the sum: γ, β `[n]` and σ̄, float32, 0-dim.
    pub norm: Option<(&'a Tensor, &'a Tensor, Tensor)>,
    /// What is read of the sum, its fake LN or itself, in bfloat16.
    pub bfloat16: bool,
    /// σ, with this ε.
    pub sigma: Option<f64>,
}

impl FusedOutputs<'_> {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.norm.is_some() || self.bfloat16 || self.sigma.is_some()
    }
}

/// Whether [`residual`] takes sums on the stream `x`: on a CPU all, on a GPU those whose rows its threads share evenly.
pub(crate) fn residual_is_ours(x: &Tensor) -> bool {
    let n = x.size().last().copied().unwrap_or(0);
    x.numel() > 0 && (for_cpu_kernels(x) || (n % 4 == 0 && n <= GPU_LONGEST && for_gpu_kernels(x)))
}

/// `x` + `branch`, both `[batch, pos, n]`, the one float32, the other float32 or bfloat16, and the outputs `fused` asks for, in one pass;
/// differentiable. On a GPU there is no fake LN of it.
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

#[cfg(test)]
#[path = "norms_tests.rs"]
mod tests;
