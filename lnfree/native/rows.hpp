// Reading rows of logits. The loops are plain so that the compiler vectorises them, once for each instruction set (CLONES).
#pragma once
#include "parallel.hpp"

#include <cstdint>
#include <cstring>
#include <limits>

namespace lnfree {

// Numbers worked on side by side: one register of AVX-512, two of AVX2. Sums are kept apart by lane, because the compiler may
// not change the order of additions by itself.
constexpr int LANES = 16;
// Terms that go into float32 sums before these go into float64.
constexpr int64_t BLOCK = 4096;
// exp() of anything lower is no longer a normal float32.
constexpr float LOWEST = -87.0f;

// A NaN in x is passed over, one in y stays: what the instruction for it does.
INLINE float larger(float x, float y) { return x > y ? x : y; }

INLINE float to_float(float x) { return x; }

INLINE float to_float(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// e^x for LOWEST <= x <= -LOWEST: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' expf), relative error about 1e-7.
INLINE float exp_in_range(float x) {
    constexpr float ROUND = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const float shifted = x * 1.44269504088896341f + ROUND;
    const float n = shifted - ROUND;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    const int32_t power = ((bits - 0x4B400000) + 127) << 23;
    float scale;
    std::memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

INLINE void store(float *to, float x) { *to = x; }

// Rounded to the nearest, to even where two are as near; not meant for NaN's payload.
INLINE void store(uint16_t *to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    *to = static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

template <typename T> INLINE float row_max(const T *row, int64_t n) {
    float lanes[LANES], top = -std::numeric_limits<float>::infinity();
    for (int l = 0; l < LANES; l++) lanes[l] = top;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) lanes[l] = larger(to_float(row[i + l]), lanes[l]);
    }
    for (; i < n; i++) top = larger(to_float(row[i]), top);
    for (int l = 0; l < LANES; l++) top = larger(lanes[l], top);
    return top;
}

} // namespace lnfree
