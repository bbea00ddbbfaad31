// Mean and spread of a row. Sums are kept apart by lane, as in rows.hpp.
#pragma once
#include "rows.hpp"

#include <cmath>

namespace lnfree {

INLINE float sum(const float *x, int64_t n) {
    float lanes[LANES] = {}, total = 0.0f;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) lanes[l] += x[i + l];
    }
    for (; i < n; i++) total += x[i];
    for (int l = 0; l < LANES; l++) total += lanes[l];
    return total;
}

INLINE float sum_of_squares(const float *x, float mean, int64_t n) {
    float lanes[LANES] = {}, total = 0.0f;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) lanes[l] += (x[i + l] - mean) * (x[i + l] - mean);
    }
    for (; i < n; i++) total += (x[i] - mean) * (x[i] - mean);
    for (int l = 0; l < LANES; l++) total += lanes[l];
    return total;
}

// sqrt(var(x) + eps), biased variance.
INLINE float sigma_of(const float *x, int64_t n, float eps) { return std::sqrt(sum_of_squares(x, sum(x, n) / n, n) / n + eps); }

} // namespace lnfree
