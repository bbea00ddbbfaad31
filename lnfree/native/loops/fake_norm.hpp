// Rows of a fake LN, y = (x - mean(x)) / std * weight + bias, of its gradients, and of sums on the residual
// stream that it reads.
#pragma once
#include "../loops.hpp"
#include "moments.hpp"

namespace lnfree::LNFREE_LEVEL {
namespace {

template <typename T>
INLINE void normalise(const float *__restrict x, int64_t n, float inverse, const float *__restrict weight, const float *__restrict bias,
                      T *__restrict y) {
    const float mean = sum(x, n) / n;
    for (int64_t i = 0; i < n; i++) store(y + i, (x[i] - mean) * inverse * weight[i] + bias[i]);
}

// dx = (u - mean(u)) / std with u = dy * weight, plus `more` if there is any. To `sums` [2, n] are added dy
// (x - mean) / std and dy.
template <typename T>
INLINE void normalise_backward(const float *__restrict x, const T *__restrict dy, int64_t n, float inverse, const float *__restrict weight,
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

template <typename T>
void fake_norm(const float *x, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, const float *bias, T *y) {
    for (int64_t r = begin; r < end; r++) normalise(x + r * n, n, 1.0f / by.std[r % by.period], weight, bias, y + r * n);
}

template <typename T>
void fake_norm_backward(const float *x, const T *dy, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, float *dx,
                        float *sums) {
    for (int64_t r = begin; r < end; r++) {
        normalise_backward(x + r * n, dy + r * n, n, 1.0f / by.std[r % by.period], weight, nullptr, dx + r * n, sums);
    }
}

template <typename T, typename U>
void add_rows(const float *x, const T *branch, int64_t begin, int64_t end, int64_t n, Norm norm, float eps, Outputs<U> out) {
    for (int64_t r = begin; r < end; r++) {
        const float *__restrict a = x + r * n;
        const T *__restrict b = branch + r * n;
        float *__restrict total = out.sum + r * n;
        for (int64_t i = 0; i < n; i++) total[i] = a[i] + to_float(b[i]);
        if (out.read && norm.weight) {
            normalise(total, n, norm.inverse, norm.weight, norm.bias, out.read + r * n);
        } else if (out.read) {
            U *__restrict copy = out.read + r * n;
            for (int64_t i = 0; i < n; i++) store(copy + i, total[i]);
        }
        if (out.sigma) out.sigma[r] = sigma_of(total, n, eps);
    }
}

// total = grad + what arrived through the reader's way of reading; its copy in bfloat16 if there is room for
// one.
template <typename U>
void meet_rows(const float *x, const float *grad, const U *read, int64_t begin, int64_t end, int64_t n, Norm norm, float *total, uint16_t *low,
               float *sums) {
    for (int64_t r = begin; r < end; r++) {
        const float *__restrict more = grad + r * n;
        const U *__restrict arrived = read + r * n;
        float *__restrict out = total + r * n;
        if (norm.weight) normalise_backward(x + r * n, arrived, n, norm.inverse, norm.weight, more, out, sums);
        else for (int64_t i = 0; i < n; i++) out[i] = more[i] + to_float(arrived[i]);
        if (!low) continue;
        uint16_t *__restrict copy = low + r * n;
        for (int64_t i = 0; i < n; i++) store(copy + i, out[i]);
    }
}

} // namespace
} // namespace lnfree::LNFREE_LEVEL
