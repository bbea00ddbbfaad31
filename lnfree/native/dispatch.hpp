// Which kernels a tensor is for: ours, or libtorch's operations, which every device has.
#pragma once
#include <ATen/core/Tensor.h>

namespace lnfree {

// How far our kernels may go, by LNFREE_KERNELS; src/device/kernels.rs has the same numbers.
enum class Kernels : int { Plain = 0, Baseline, Avx2, Avx512, Bf16, Auto };

// The level in force on this thread.
Kernels kernels();

// Whether our kernels take `x`. Plain: no, so that tensors on a CPU take the path of those on a GPU.
inline bool for_cpu_kernels(const at::Tensor &x) { return x.is_cpu() && kernels() != Kernels::Plain; }

} // namespace lnfree
