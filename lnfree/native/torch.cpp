// What libtorch has and tch does not reach.
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/Context.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pin_memory.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdint>
#include <new>
#include <string>
#include <vector>

// How exact matrix products on a GPU are. float32 ones may round their factors to TF32 or may not. bfloat16
// ones add up in float32 also where cuBLAS splits a sum: by default libtorch lets it add the parts in
// bfloat16, which loses digits in the longest sums, those of gradients over all tokens. Returns 0 if it
// worked.
extern "C" int lnfree_set_product_precision(bool tf32) {
    return lnfree::guarded([&] {
        at::globalContext().setAllowTF32CuBLAS(tf32);
        at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false, /*allow_splitk=*/true);
    });
}

// Whether bfloat16 products may add up in bfloat16; -1 where that is not known.
extern "C" int lnfree_adds_up_in_bfloat16() {
    int found = -1;
    lnfree::guarded([&] {
        found = at::globalContext().allowBF16ReductionCuBLAS() == at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK;
    });
    return found;
}

// Settings of the allocators of devices, as PYTORCH_ALLOC_CONF has them. Returns 0 if it worked.
extern "C" int lnfree_set_allocator(const char *settings) {
    return lnfree::guarded([&] { c10::CachingAllocator::setAllocatorSettings(settings); });
}

// The settings that were made last; valid until the next call of this thread.
extern "C" const char *lnfree_allocator_settings() {
    thread_local std::string text;
    lnfree::guarded([&] { text = c10::CachingAllocator::getAllocatorSettings(); });
    return text.c_str();
}

// Gives what libtorch keeps of freed memory of CUDA devices back to the driver. Returns 0 if it worked.
extern "C" int lnfree_empty_cuda_cache() {
    return lnfree::guarded([&] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}

// The bytes of a CUDA device that nobody holds, those in libtorch's own cache counted in; -1 where that is
// not known.
extern "C" int64_t lnfree_cuda_free_memory(int device) {
    try {
        auto *allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
        const auto index = static_cast<c10::DeviceIndex>(device);
        const auto stats = allocator->getDeviceStats(index);
        const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
        const int64_t cached = stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
        return static_cast<int64_t>(allocator->getMemoryInfo(index).first) + cached;
    } catch (...) {
        return -1;
    }
}

// The most bytes of a CUDA device that tensors have held at once since the last reset; -1 where that is not
// known.
extern "C" int64_t lnfree_cuda_peak_memory(int device) {
    try {
        auto *allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
        const auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device));
        return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
    } catch (...) {
        return -1;
    }
}

// Starts the count of lnfree_cuda_peak_memory anew. Returns 0 if it worked.
extern "C" int lnfree_reset_cuda_peak_memory(int device) {
    try {
        c10::getDeviceAllocator(c10::DeviceType::CUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(device));
        return 0;
    } catch (...) {
        return 1;
    }
}

// A copy of a CPU's tensor in memory that a GPU reads by itself. tch would name a device, of which libtorch
// says that it is deprecated.
extern "C" at::Tensor *lnfree_pinned(const at::Tensor *x) {
    return lnfree::guarded_tensor([&] { return x->pin_memory(); });
}

namespace lnfree {

void parallel(int64_t n, const std::function<void(int64_t, int64_t)> &work) {
    const at::Tensor indices = at::arange(n, at::kLong);
    const auto *first = indices.const_data_ptr<int64_t>();
    auto iterator = at::TensorIteratorConfig().add_const_input(indices).build();
    iterator.for_each(
        [&](char **data, const int64_t *, int64_t count) {
            const int64_t begin = reinterpret_cast<const int64_t *>(data[0]) - first;
            work(begin, begin + count);
        },
        /*grain_size=*/1);
}

} // namespace lnfree

// What the last function of this thread that failed says about it; valid until the next one fails.
extern "C" const char *lnfree_last_error() { return lnfree::last_failure().text.c_str(); }

// Whether that was lack of memory.
extern "C" bool lnfree_last_error_is_memory() { return lnfree::last_failure().memory; }

// Fails with an exception of each type that a lack of memory, or something else, has; for tests. 0: a
// device's allocator, 1: the C++ one, 2: an error of libtorch of no particular type.
extern "C" int lnfree_fail(int type) {
    return lnfree::guarded([&] {
        if (type == 0) TORCH_CHECK_WITH(OutOfMemoryError, false, "no words that anybody knows");
        if (type == 1) throw std::bad_alloc();
        TORCH_CHECK(false, "no words that anybody knows");
    });
}

// Makes `grad` the gradient of a leaf.
extern "C" int lnfree_set_grad(const at::Tensor *parameter, const at::Tensor *grad) {
    return lnfree::guarded([&] { parameter->mutable_grad() = *grad; });
}

// Goes on backwards from n tensors with the gradients that arrived at them; null for one, at a tensor of one
// number.
extern "C" int lnfree_backward(const at::Tensor *const *tensors, const at::Tensor *const *grads, int n) {
    return lnfree::guarded([&] {
        torch::autograd::variable_list roots, arrived;
        for (int i = 0; i < n; i++) {
            roots.push_back(*tensors[i]);
            arrived.push_back(grads[i] ? *grads[i] : at::Tensor());
        }
        torch::autograd::backward(roots, arrived);
    });
}

// AdamW (decoupled decay) of n parameters in one pass over the numbers: gradients are divided by `grad_scale`
// first. `steps` are float32 0-dim, the number of this step.
extern "C" int lnfree_fused_adamw(const at::Tensor *const *parameters, const at::Tensor *const *grads, const at::Tensor *const *exp_avgs,
                                  const at::Tensor *const *exp_avg_sqs, const at::Tensor *step, int n, double lr, double beta1,
                                  double beta2, double weight_decay, double eps, const at::Tensor *grad_scale) {
    return lnfree::guarded([&] {
        const c10::AutoGradMode off(false);
        std::vector<at::Tensor> p, g, m, v, steps(n, *step);
        for (int i = 0; i < n; i++) {
            p.push_back(*parameters[i]);
            g.push_back(*grads[i]);
            m.push_back(*exp_avgs[i]);
            v.push_back(*exp_avg_sqs[i]);
        }
        at::_fused_adamw_(p, g, m, v, {}, steps, lr, beta1, beta2, weight_decay, eps, false, false, *grad_scale, {});
    });
}
