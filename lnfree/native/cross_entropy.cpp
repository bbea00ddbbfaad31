// Cross-entropy of logits and its gradient, which takes the logits' place: libtorch's operations would write and read tensors of that size
// some five times.
#include "lanes.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <algorithm>
#include <cmath>

using namespace lnfree;

namespace {

INLINE Floats exponential(Floats x, float top) { return exp_in_range(larger(x - top, all(LOWEST))); }

// Sum of e^(x - top).
template <typename T> INLINE double total_of(const T *row, int64_t n, float top) {
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = std::min(n, begin + BLOCK);
        Floats first{}, second{};
        int64_t i = begin;
        for (; i + 2 * LANES <= end; i += 2 * LANES) {
            first += exponential(load(row + i), top);
            second += exponential(load(row + i + LANES), top);
        }
        total += sum(first) + sum(second);
        for (; i < end; i += LANES) total += sum(exponential(load_some(row + i, std::min(LANES, end - i), NONE), top));
    }
    return total;
}

template <typename T>
INLINE void rows_to_gradient(T *logits, int64_t stride, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient, float *losses) {
    for (int64_t r = 0; r < n_rows; r++) {
        T *row = logits + r * stride;
        losses[r] = 0.0f;
        if (targets[r] < 0) {
            std::fill(row, row + n, T{});
            continue;
        }
        const float top = largest(row, n), target = to_float(row[targets[r]]);
        const double total = total_of(row, n, top);
        const float scale = coefficient / static_cast<float>(total);
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) store(row + i, scale * exponential(load(row + i), top));
        if (i < n) store_some(row + i, scale * exponential(load_some(row + i, n - i, top), top), n - i);
        const float p = std::exp(target - top) / static_cast<float>(total);
        store(row + targets[r], coefficient * (p - 1.0f));
        losses[r] = static_cast<float>(std::log(total) - (static_cast<double>(target) - top));
    }
}

CLONES void to_gradient(float *logits, int64_t stride, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient, float *losses) {
    rows_to_gradient(logits, stride, n_rows, n, targets, coefficient, losses);
}

CLONES void to_gradient(uint16_t *logits, int64_t stride, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient,
                        float *losses) {
    rows_to_gradient(logits, stride, n_rows, n, targets, coefficient, losses);
}

} // namespace

// The first n columns of logits, float32 or bfloat16, contiguous on the CPU, become the gradient of coefficient * sum of losses; `losses` float32
// [n_rows] are written. A negative target counts for nothing. Targets are below n.
extern "C" int lnfree_logits_to_gradient(at::Tensor *logits, int64_t n, const at::Tensor *targets, float coefficient, at::Tensor *losses) {
    return guarded([&] {
        const int64_t stride = logits->size(1);
        const int64_t *ids = targets->const_data_ptr<int64_t>();
        float *out = losses->data_ptr<float>();
        const bool wide = logits->scalar_type() == at::kFloat;
        void *first = logits->data_ptr();
        parallel(logits->size(0), [&](int64_t begin, int64_t end) {
            const auto all_of = [&](auto *rows) {
                to_gradient(rows + begin * stride, stride, end - begin, n, ids + begin, coefficient, out + begin);
            };
            if (wide) all_of(static_cast<float *>(first));
            else all_of(static_cast<uint16_t *>(first));
        });
    });
}
