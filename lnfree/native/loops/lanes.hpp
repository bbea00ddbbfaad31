// Sixteen numbers worked on side by side: one register of AVX-512, two of AVX2, four of what every processor
// has. The compiler knows such vectors, and left to itself turns a loop with a comparison or a conversion
// into worse.
#pragma once
#include "rows.hpp"

#include <cstdint>
#include <cstring>
#include <limits>

namespace lnfree::LNFREE_LEVEL {

using Floats = float __attribute__((vector_size(64)));
using Words = uint32_t __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Shorts = uint16_t __attribute__((vector_size(32)));

template <typename To, typename From> INLINE To same_bits(const From &x) {
    static_assert(sizeof(To) == sizeof(From), "bits of another size");
    To to;
    std::memcpy(&to, &x, sizeof to);
    return to;
}

INLINE Floats all(float x) { return Floats{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

// 0, 1, 2, ...
INLINE Ints places() { return Ints{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

INLINE Floats load(const float *from) {
    Floats x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

INLINE Floats load(const uint16_t *bfloat16) {
    Shorts x;
    std::memcpy(&x, bfloat16, sizeof x);
    const Words wide = __builtin_convertvector(x, Words) << 16;
    return same_bits<Floats>(wide);
}

// The nearest bfloat16, as store() of one number makes it, in the low bits.
INLINE Words rounded(Floats x) {
    const Words bits = same_bits<Words>(x);
    const Words nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return x == x ? nearest : Words{} + BFLOAT16_NAN;
}

INLINE void store(float *to, Floats x) { std::memcpy(to, &x, sizeof x); }

INLINE void store(uint16_t *to, Floats x) {
    const Shorts bits = __builtin_convertvector(rounded(x), Shorts);
    std::memcpy(to, &bits, sizeof bits);
}

// As larger() of two numbers: a NaN in y stays, one in x is passed over.
INLINE Floats larger(Floats x, Floats y) { return x > y ? x : y; }
INLINE Floats smaller(Floats x, Floats y) { return x < y ? x : y; }

// A NaN stays.
INLINE Floats at_least(float bound, Floats x) { return larger(all(bound), x); }
INLINE Floats at_most(float bound, Floats x) { return smaller(all(bound), x); }

// The first n numbers, and `rest` in the places of the others.
template <typename T> INLINE Floats load_some(const T *from, int64_t n, float rest) {
    T some[LANES] = {};
    for (int64_t i = 0; i < n; i++) some[i] = from[i];
    return places() < static_cast<int32_t>(n) ? load(some) : all(rest);
}

template <typename T> INLINE void store_some(T *to, Floats x, int64_t n) {
    T some[LANES];
    store(some, x);
    for (int64_t i = 0; i < n; i++) to[i] = some[i];
}

INLINE float sum(Floats x) {
    float total = 0.0f;
    for (int64_t i = 0; i < LANES; i++) total += x[i];
    return total;
}

// -infinity before anything was seen.
constexpr float NONE = -std::numeric_limits<float>::infinity();

INLINE float largest(Floats x) {
    float most = NONE;
    for (int64_t i = 0; i < LANES; i++) most = larger(x[i], most);
    return most;
}

// The largest of n, NaN passed over; NONE of none.
template <typename T> INLINE float largest(const T *row, int64_t n) {
    Floats first = all(NONE), second = first;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        first = larger(load(row + i), first);
        second = larger(load(row + i + LANES), second);
    }
    for (; i < n; i += LANES) first = larger(load_some(row + i, n - i < LANES ? n - i : LANES, NONE), first);
    return largest(larger(second, first));
}

// e^x for LOWEST <= x < HIGHEST, infinity from 88.4 on, NaN for NaN: 2^n times a polynomial on [-ln2/2,
// ln2/2] (Cephes' expf), relative error about 1e-7.
INLINE Floats exp_in_range(Floats x) {
    constexpr float ROUND = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const Floats shifted = x * 1.44269504088896341f + ROUND;
    const Floats n = shifted - ROUND;
    const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Ints power = ((same_bits<Ints>(shifted) - 0x4B400000) + 127) << 23;
    return p * same_bits<Floats>(power);
}

} // namespace lnfree::LNFREE_LEVEL
