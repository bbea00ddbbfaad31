// A fake LN put into a strip of columns of a matrix, and taken out of their gradients; formulas are in
// src/model/step.rs.
#pragma once
#include "../loops.hpp"
#include "rows.hpp"

namespace lnfree::LNFREE_LEVEL {
namespace {

// Rows whose terms go into float32 sums before these go into float64.
constexpr int64_t ROWS = 64;

// to = diag(gain) w - 1 (gain^T w) / rows; carried = beta^T w.
template <typename T, typename U>
void fold(Columns<const T> w, Columns<U> to, const float *gain, const float *beta, float *carried) {
    double means[STRIP] = {}, betas[STRIP] = {};
    for (int64_t begin = 0; begin < w.rows; begin += ROWS) {
        float a[STRIP] = {}, b[STRIP] = {};
        for (int64_t r = begin; r < least(w.rows, begin + ROWS); r++) {
            const T *__restrict row = w.first + r * w.stride;
            for (int64_t j = 0; j < w.width; j++) {
                const float x = to_float(row[j]);
                a[j] += gain[r] * x;
                b[j] += beta[r] * x;
            }
        }
        for (int64_t j = 0; j < w.width; j++) {
            means[j] += a[j];
            betas[j] += b[j];
        }
    }
    float mean[STRIP];
    for (int64_t j = 0; j < w.width; j++) {
        mean[j] = static_cast<float>(means[j] / w.rows);
        carried[j] = static_cast<float>(betas[j]);
    }
    for (int64_t r = 0; r < w.rows; r++) {
        const T *__restrict row = w.first + r * w.stride;
        U *__restrict out = to.first + r * to.stride;
        for (int64_t j = 0; j < w.width; j++) store(out + j, gain[r] * to_float(row[j]) - mean[j]);
    }
}

// With m the means of grad's columns: by_gain[r] = sum of w (grad - m), by_beta[r] = sum of w g, grad = gain
// (grad - m) + beta g^T.
template <typename T>
void unfold(Columns<T> grad, Columns<const T> w, const float *gain, const float *beta, const float *__restrict g,
                   float *by_gain, float *by_beta) {
    double sums[STRIP] = {};
    for (int64_t begin = 0; begin < grad.rows; begin += ROWS) {
        float a[STRIP] = {};
        for (int64_t r = begin; r < least(grad.rows, begin + ROWS); r++) {
            const T *row = grad.first + r * grad.stride;
            for (int64_t j = 0; j < grad.width; j++) a[j] += to_float(row[j]);
        }
        for (int64_t j = 0; j < grad.width; j++) sums[j] += a[j];
    }
    float mean[STRIP];
    for (int64_t j = 0; j < grad.width; j++) mean[j] = static_cast<float>(sums[j] / grad.rows);
    for (int64_t r = 0; r < grad.rows; r++) {
        T *__restrict row = grad.first + r * grad.stride;
        const T *__restrict weights = w.first + r * w.stride;
        float a[LANES] = {}, b[LANES] = {};
        const auto one = [&](int64_t j, int l) {
            const float centred = to_float(row[j]) - mean[j], x = to_float(weights[j]);
            a[l] += x * centred;
            b[l] += x * g[j];
            store(row + j, gain[r] * centred + beta[r] * g[j]);
        };
        int64_t j = 0;
        for (; j + LANES <= grad.width; j += LANES) {
            for (int l = 0; l < LANES; l++) one(j + l, l);
        }
        for (; j < grad.width; j++) one(j, 0);
        by_gain[r] = by_beta[r] = 0.0f;
        for (int l = 0; l < LANES; l++) {
            by_gain[r] += a[l];
            by_beta[r] += b[l];
        }
    }
}

} // namespace
} // namespace lnfree::LNFREE_LEVEL
