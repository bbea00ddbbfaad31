// Cross-entropy of logits and its gradient, which takes the logits' place: libtorch's operations would write and read tensors of that size
// some five times.
#include "parallel.hpp"
#include "result.hpp"
#include "rows.hpp"

#include <algorithm>
#include <cmath>

using namespace lnfree;

namespace {

template <typename T>
INLINE void rows_to_gradient(T *logits, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient, float *losses) {
    for (int64_t r = 0; r < n_rows; r++) {
        T *row = logits + r * n;
        losses[r] = 0.0f;
        if (targets[r] < 0) {
            std::fill(row, row + n, T{});
            continue;
        }
        const float top = row_max(row, n), target = to_float(row[targets[r]]);
        double total = 0.0;
        int64_t i = 0;
        while (i + LANES <= n) {
            const int64_t end = std::min(n - LANES, i + BLOCK - LANES);
            float sums[LANES] = {};
            for (; i <= end; i += LANES) {
                for (int l = 0; l < LANES; l++) sums[l] += exp_in_range(larger(to_float(row[i + l]) - top, LOWEST));
            }
            for (int l = 0; l < LANES; l++) total += sums[l];
        }
        for (; i < n; i++) total += exp_in_range(larger(to_float(row[i]) - top, LOWEST));
        const float scale = coefficient / static_cast<float>(total);
        for (i = 0; i < n; i++) store(row + i, scale * exp_in_range(larger(to_float(row[i]) - top, LOWEST)));
        const float p = std::exp(target - top) / static_cast<float>(total);
        store(row + targets[r], coefficient * (p - 1.0f));
        losses[r] = static_cast<float>(std::log(total) - (static_cast<double>(target) - top));
    }
}

CLONES void float32_to_gradient(float *logits, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient, float *losses) {
    rows_to_gradient(logits, n_rows, n, targets, coefficient, losses);
}

CLONES void bfloat16_to_gradient(uint16_t *logits, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient,
                                 float *losses) {
    rows_to_gradient(logits, n_rows, n, targets, coefficient, losses);
}

} // namespace

// logits [n_rows, n], float32 or bfloat16, contiguous on the CPU, become the gradient of coefficient * sum of losses; `losses` float32
// [n_rows] are written. A negative target counts for nothing. Targets are below n.
extern "C" int lnfree_logits_to_gradient(at::Tensor *logits, const at::Tensor *targets, float coefficient, at::Tensor *losses) {
    return guarded([&] {
        const int64_t n = logits->size(1);
        const int64_t *ids = targets->const_data_ptr<int64_t>();
        float *out = losses->data_ptr<float>();
        parallel(logits->size(0), [&](int64_t begin, int64_t end) {
            if (logits->scalar_type() == at::kFloat) {
                float32_to_gradient(logits->data_ptr<float>() + begin * n, end - begin, n, ids + begin, coefficient, out + begin);
            } else {
                auto *first = static_cast<uint16_t *>(logits->data_ptr());
                bfloat16_to_gradient(first + begin * n, end - begin, n, ids + begin, coefficient, out + begin);
            }
        });
    });
}
