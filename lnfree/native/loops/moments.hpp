// Mean and spread of a row. Sums are kept apart by lane, as in rows.hpp, in four registers: one alone would
// wait for each of its additions.
#pragma once
#include "rows.hpp"

namespace lnfree::LNFREE_LEVEL {

constexpr int WIDE = 4 * LANES;

// Sum of WIDE lanes, by halves: few of these additions wait for another.
INLINE float total_of(float *lanes) {
    for (int l = 0; l < LANES; l++) lanes[l] = (lanes[l] + lanes[l + LANES]) + (lanes[l + 2 * LANES] + lanes[l + 3 * LANES]);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    }
    return lanes[0];
}

INLINE float sum(const float *x, int64_t n) {
    float lanes[WIDE] = {}, total = 0.0f;
    int64_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        for (int l = 0; l < WIDE; l++) lanes[l] += x[i + l];
    }
    for (; i < n; i++) total += x[i];
    return total + total_of(lanes);
}

INLINE float sum_of_squares(const float *x, float mean, int64_t n) {
    float lanes[WIDE] = {}, total = 0.0f;
    int64_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        for (int l = 0; l < WIDE; l++) lanes[l] += (x[i + l] - mean) * (x[i + l] - mean);
    }
    for (; i < n; i++) total += (x[i] - mean) * (x[i] - mean);
    return total + total_of(lanes);
}

// sqrt(var(x) + eps), biased variance.
INLINE float sigma_of(const float *x, int64_t n, float eps) { return __builtin_sqrtf(sum_of_squares(x, sum(x, n) / n, n) / n + eps); }

} // namespace lnfree::LNFREE_LEVEL
