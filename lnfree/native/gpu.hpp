// Starts our kernels on NVIDIA GPUs, cuda/rows.cu; src/device/gpu_kernels.rs compiles them and finds them in
// CUDA's driver.
#pragma once
#include <ATen/core/Tensor.h>

namespace lnfree {

// Each is there for float32 and bfloat16; src/native/gpu.rs has the same order.
enum class GpuKernel : int { LogitsToGradient, TokenStats, AddRows, MeetRows, Count };

// Starts `kernel`, that for the type of `of`, on its device and libtorch's current stream there.
void start(GpuKernel kernel, const at::Tensor &of, int64_t blocks, int threads, void **arguments);

template <typename... A> void start_with(GpuKernel kernel, const at::Tensor &of, int64_t blocks, int threads, A... arguments) {
    void *list[] = {&arguments...};
    if (blocks > 0) start(kernel, of, blocks, threads, list);
}

} // namespace lnfree
