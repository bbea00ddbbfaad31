// Matrix products by the fastest library of the machine.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace lnfree {

// Whether the processor multiplies bfloat16 faster than float32; else tiles of it are multiplied in float32.
bool bfloat16_pays();

// x [m, in] times weight [in, out], plus bias [out].
at::Tensor affine(const at::Tensor &x, const at::Tensor &weight, const std::optional<at::Tensor> &bias);

// a [m, k] times b [k, n], of any strides.
at::Tensor product(const at::Tensor &a, const at::Tensor &b);

// into [m, n] += the first m rows of a times b; `into` may be float32 where a and b are bfloat16.
void add_product(at::Tensor into, const at::Tensor &a, const at::Tensor &b);

} // namespace lnfree
