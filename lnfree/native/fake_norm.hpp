// Rows of a fake LN, y = (x - mean(x)) / std * weight + bias, and of its gradients.
#pragma once
#include "moments.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include <algorithm>

namespace lnfree {

// Rows whose share of the gradients of weight and bias is summed in float32; sums of these are in float64.
constexpr int64_t ROWS_AT_ONCE = 64;

// What rows are divided by: one number, or one for each position, again and again.
struct Divisor {
    const float *std;
    int64_t period;

    explicit Divisor(const at::Tensor &x) : std(x.const_data_ptr<float>()), period(x.numel()) {}
    float inverse(int64_t row) const { return 1.0f / std[row % period]; }
};

template <typename T>
INLINE void fake_norm(const float *__restrict x, int64_t n, float inverse, const float *__restrict weight, const float *__restrict bias,
                      T *__restrict y) {
    const float mean = sum(x, n) / n;
    for (int64_t i = 0; i < n; i++) store(y + i, (x[i] - mean) * inverse * weight[i] + bias[i]);
}

// dx = (u - mean(u)) / std with u = dy * weight, plus `more` if there is any. To `sums` [2, n] are added dy (x - mean) / std and dy.
template <typename T>
INLINE void fake_norm_backward(const float *__restrict x, const T *__restrict dy, int64_t n, float inverse, const float *__restrict weight,
                               const float *__restrict more, float *__restrict dx, float *__restrict sums) {
    const float mean = sum(x, n) / n;
    for (int64_t i = 0; i < n; i++) {
        const float g = to_float(dy[i]);
        sums[i] += g * ((x[i] - mean) * inverse);
        sums[n + i] += g;
        dx[i] = g * weight[i];
    }
    const float carried = sum(dx, n) / n;
    if (more) {
        for (int64_t i = 0; i < n; i++) dx[i] = more[i] + (dx[i] - carried) * inverse;
    } else {
        for (int64_t i = 0; i < n; i++) dx[i] = (dx[i] - carried) * inverse;
    }
}

// Sums of weight's and bias's gradients, apart for every ROWS_AT_ONCE of the rows, so that no number of threads changes them.
struct RowSums {
    int64_t rows, n, parts;
    at::Tensor sums;

    RowSums(int64_t rows, int64_t n, const at::TensorOptions &float32)
        : rows(rows), n(n), parts((rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE), sums(at::empty({parts, 2, n}, float32)) {}

    // Calls work(begin, end, [2, n]) for every part's rows.
    template <typename F> void by_parts(F &&work) const {
        float *all = sums.data_ptr<float>();
        parallel(parts, [&](int64_t first, int64_t last) {
            for (int64_t p = first; p < last; p++) {
                float *part = all + 2 * p * n;
                std::fill(part, part + 2 * n, 0.0f);
                work(p * ROWS_AT_ONCE, std::min(rows, (p + 1) * ROWS_AT_ONCE), part);
            }
        });
    }

    // Gradients of weight and bias, in `kind`: [2, n].
    at::Tensor total(at::ScalarType kind) const { return sums.sum(0, false, at::kDouble).to(kind); }
};

} // namespace lnfree
