// What libtorch has and tch does not reach. No exception leaves these functions: they would end the program.
#include <ATen/Context.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/arange.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdint>

// Lets float32 matrix products on a GPU round their factors to TF32. Returns 0 if it worked.
extern "C" int lnfree_allow_tf32(bool allow) {
    try {
        at::globalContext().setAllowTF32CuBLAS(allow);
        return 0;
    } catch (...) {
        return 1;
    }
}

// The bytes of a CUDA device that nobody holds, those in libtorch's own cache counted in; -1 where that is not known.
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

// The most bytes of a CUDA device that tensors have held at once since the last reset; -1 where that is not known.
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

// Calls work(context, begin, end) for parts of 0..n on libtorch's own threads. Threads of ours would share the cores with
// these, which spin for a while after every operation. Returns 0 if all was done.
extern "C" int lnfree_parallel(int64_t n, void (*work)(void *, int64_t, int64_t), void *context) {
    try {
        const at::Tensor indices = at::arange(n, at::kLong);
        const auto *first = indices.const_data_ptr<int64_t>();
        auto iterator = at::TensorIteratorConfig().add_const_input(indices).build();
        iterator.for_each(
            [&](char **data, const int64_t *, int64_t count) {
                const int64_t begin = reinterpret_cast<const int64_t *>(data[0]) - first;
                work(context, begin, begin + count);
            },
            /*grain_size=*/1);
        return 0;
    } catch (...) {
        return 1;
    }
}
