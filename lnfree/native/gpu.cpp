#include "gpu.hpp"
#include "result.hpp"
#include <ATen/ops/empty.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <array>
#include <memory>
#include <algorithm>

namespace lnfree {
namespace {

constexpr int KERNELS = 2 * static_cast<int>(GpuKernel::Count), DEVICES = 64;
// Enough to keep a processor of the GPU busy with two rows of logits.
constexpr int THREADS = 512;

// A device's kernels, with the driver's functions cuLaunchKernel, cuCtxGetCurrent and cuCtxSetCurrent;
// written before anybody asks for them.
struct Gpu {
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **) = nullptr;
    int (*current)(void **) = nullptr;
    int (*set_current)(void *) = nullptr;
    void *context = nullptr;
    std::array<void *, KERNELS> kernels{};
};

Gpu gpus[DEVICES];

void check(int code) { TORCH_CHECK(code == 0, "CUDA driver: error ", code, " at the start of a kernel"); }

} // namespace

void start(GpuKernel kernel, const at::Tensor &of, int64_t blocks, int threads, void **arguments) {
    const int index = of.get_device();
    TORCH_CHECK(of.is_cuda() && index < DEVICES && gpus[index].launch, "no kernels on ", of.device());
    const Gpu &gpu = gpus[index];
    const c10::impl::VirtualGuardImpl device(c10::DeviceType::CUDA);
    void *stream = device.getStreamNativeHandle(device.getStream(of.device()));
    // A thread that has not used this device yet has no context, or another device's.
    void *before = nullptr;
    check(gpu.current(&before));
    if (before != gpu.context) check(gpu.set_current(gpu.context));
    void *function = gpu.kernels[2 * static_cast<int>(kernel) + (of.scalar_type() == at::kBFloat16)];
    const int code = gpu.launch(function, static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(threads), 1, 1, 0, stream, arguments, nullptr);
    if (before != gpu.context) check(gpu.set_current(before));
    check(code);
}

} // namespace lnfree

using namespace lnfree;

// The kernels of a device. Returns 0 if it worked.
extern "C" int lnfree_set_gpu_kernels(int64_t device, void *const *driver, void *context, void *const *kernels, int n) {
    return guarded([&] {
        TORCH_CHECK(device >= 0 && device < DEVICES && n == KERNELS, "no room for ", n, " kernels of device ", device);
        Gpu &gpu = gpus[device];
        gpu.current = reinterpret_cast<decltype(gpu.current)>(driver[1]);
        gpu.set_current = reinterpret_cast<decltype(gpu.set_current)>(driver[2]);
        gpu.context = context;
        std::copy_n(kernels, n, gpu.kernels.begin());
        gpu.launch = reinterpret_cast<decltype(gpu.launch)>(driver[0]);
    });
}

// The first n columns of logits [rows, stride] become the gradient of the weighted sum of losses, the others
// zeros; returns the losses.
extern "C" at::Tensor *lnfree_gpu_logits_to_gradient(const at::Tensor *logits, int64_t n, const at::Tensor *targets, const at::Tensor *weights) {
    return guarded_tensor([&] {
        const int64_t rows = logits->size(0), stride = logits->size(1);
        const at::Tensor by_row = weights->contiguous();
        TORCH_CHECK(by_row.scalar_type() == at::kFloat && by_row.numel() == rows && by_row.device() == logits->device());
        at::Tensor losses = at::empty({rows}, by_row.options());
        start_with(GpuKernel::LogitsToGradient, *logits, rows, THREADS, logits->data_ptr(), static_cast<int>(n), static_cast<long long>(stride),
                   targets->data_ptr(), by_row.data_ptr(), losses.data_ptr());
        return losses;
    });
}

// Loss, entropy, confidence and correctness [rows, 4] of the first n columns of logits.
extern "C" at::Tensor *lnfree_gpu_token_stats(const at::Tensor *logits, int64_t n, const at::Tensor *targets) {
    return guarded_tensor([&] {
        const int64_t rows = logits->size(0), stride = logits->size(1);
        at::Tensor stats = at::empty({rows, 4}, logits->options().dtype(at::kFloat));
        start_with(GpuKernel::TokenStats, *logits, rows, THREADS, logits->data_ptr(), static_cast<int>(n), static_cast<long long>(stride),
                   targets->data_ptr(), stats.data_ptr());
        return stats;
    });
}

// Numbers on their way from a GPU, which goes on computing meanwhile.
struct Reading {
    at::Tensor host;
    c10::Event arrived;
};

// Begins to read x; null if something was thrown. Whoever gets it ends it.
extern "C" void *lnfree_begin_reading(const at::Tensor *x) {
    Reading *out = nullptr;
    guarded([&] {
        at::Tensor host = at::empty(x->sizes(), x->options().device(at::kCPU).pinned_memory(true));
        host.copy_(*x, /*non_blocking=*/true);
        c10::Event arrived(x->device().type());
        arrived.record(c10::impl::VirtualGuardImpl(x->device().type()).getStream(x->device()));
        out = new Reading{std::move(host), std::move(arrived)};
    });
    return out;
}

// Waits until they are there, and frees `reading`; null if something was thrown.
extern "C" at::Tensor *lnfree_end_reading(void *begun) {
    auto *reading = static_cast<Reading *>(begun);
    return guarded_tensor([&] {
        const std::unique_ptr<Reading> held(reading);
        held->arrived.synchronize();
        return held->host;
    });
}
