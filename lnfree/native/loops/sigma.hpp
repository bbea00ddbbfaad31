// sigma = sqrt(var(x) + eps) of rows.
#pragma once
#include "moments.hpp"

namespace lnfree::LNFREE_LEVEL {
namespace {

void sigma(const float *x, int64_t n_rows, int64_t n, float eps, float *to) {
    for (int64_t r = 0; r < n_rows; r++) to[r] = sigma_of(x + r * n, n, eps);
}

// d sigma / d x = (x - mean) / (n sigma).
void sigma_backward(const float *x, const float *sigma, const float *grad, int64_t n_rows, int64_t n, float *dx) {
    for (int64_t r = 0; r < n_rows; r++) {
        const float *row = x + r * n;
        const float mean = sum(row, n) / n, scale = grad[r] / (n * sigma[r]);
        for (int64_t i = 0; i < n; i++) dx[r * n + i] = scale * (row[i] - mean);
    }
}

} // namespace
} // namespace lnfree::LNFREE_LEVEL
