// GPT-2's GELU, x/2 (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 + e^(-2u)).
#pragma once
#include "lanes.hpp"

namespace lnfree::LNFREE_LEVEL {
namespace {

constexpr float TWICE_ROOT = 1.5957691216057308f; // 2 sqrt(2 / pi)
constexpr float CUBIC = 0.044715f;

// 1 / (1 + e^(-2u)); zero far below, where the exponential is infinite, so that -infinity becomes NaN as in
// the formula with tanh.
INLINE Floats gate(Floats x) {
    const Floats twice_u = TWICE_ROOT * x * (1.0f + CUBIC * x * x);
    return 1.0f / (1.0f + exp_in_range(at_most(HIGHEST, at_least(LOWEST, -twice_u))));
}

INLINE Floats value(Floats x) { return x * gate(x); }

INLINE Floats slope(Floats x, Floats dy) {
    const Floats s = gate(x), inner = TWICE_ROOT * (1.0f + 3.0f * CUBIC * x * x);
    return dy * (s + x * s * (1.0f - s) * inner);
}

template <typename T> void gelu(const T *x, T *y, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, value(load(x + i)));
    if (i < n) store_some(y + i, value(load_some(x + i, n - i, 0.0f)), n - i);
}

template <typename T> void gelu_backward(const T *x, const T *dy, T *dx, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(dx + i, slope(load(x + i), load(dy + i)));
    if (i < n) store_some(dx + i, slope(load_some(x + i, n - i, 0.0f), load_some(dy + i, n - i, 0.0f)), n - i);
}

} // namespace
} // namespace lnfree::LNFREE_LEVEL
