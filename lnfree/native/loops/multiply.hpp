// Products of small float32 matrices that are in the cache: libraries spend more on setting up such a product
// than it takes.
#pragma once
#include "../loops.hpp"
#include "lanes.hpp"

namespace lnfree::LNFREE_LEVEL {
namespace {

// Numbers of c that stay in registers while k runs, in units of sixteen: as many sums as hide an addition's
// delay, and few enough to fit.
#if defined(__AVX512F__)
constexpr int SUMS = 16, WIDEST = 4;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int SUMS = 4, WIDEST = 1;
#else
constexpr int SUMS = 2, WIDEST = 1;
#endif

// c [R, 16 C] (+)= a [R, k] b [k, 16 C].
template <int R, int C> INLINE void block(int64_t n, int64_t k, bool add, const float *a, const float *b, float *c) {
    Floats sums[R][C];
    for (int i = 0; i < R; i++) {
        for (int j = 0; j < C; j++) sums[i][j] = add ? load(c + i * n + j * LANES) : Floats{};
    }
    for (int64_t p = 0; p < k; p++) {
        Floats row[C];
        for (int j = 0; j < C; j++) row[j] = load(b + p * n + j * LANES);
        for (int i = 0; i < R; i++) {
            const Floats x = all(a[i * k + p]);
            for (int j = 0; j < C; j++) sums[i][j] += x * row[j];
        }
    }
    for (int i = 0; i < R; i++) {
        for (int j = 0; j < C; j++) store(c + i * n + j * LANES, sums[i][j]);
    }
}

template <int C> INLINE void columns(int64_t m, int64_t n, int64_t k, bool add, const float *a, const float *b, float *c) {
    constexpr int ROWS = SUMS / C;
    for (int64_t i = 0; i < m; i += ROWS) block<ROWS, C>(n, k, add, a + i * k, b, c + i * n);
}

void multiply(int64_t m, int64_t n, int64_t k, bool add, const float *a, const float *b, float *c) {
    int64_t j = 0;
    if constexpr (WIDEST == 4) {
        for (; j + 4 * LANES <= n; j += 4 * LANES) columns<4>(m, n, k, add, a, b + j, c + j);
        for (; j + 2 * LANES <= n; j += 2 * LANES) columns<2>(m, n, k, add, a, b + j, c + j);
    }
    for (; j < n; j += LANES) columns<1>(m, n, k, add, a, b + j, c + j);
}

void add(float *into, const uint16_t *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) into[i] += to_float(from[i]);
}

} // namespace
} // namespace lnfree::LNFREE_LEVEL
