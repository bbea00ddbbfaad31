// Numbers of float32 or bfloat16, one at a time. Loops over them are plain so that the compiler vectorises them, once for each instruction set
// (CLONES); where it does that badly, lanes.hpp has sixteen of them.
#pragma once
#include "parallel.hpp"

#include <cstdint>
#include <cstring>
#include <limits>

namespace lnfree {

// Numbers worked on side by side: one register of AVX-512, two of AVX2. Sums are kept apart by lane, because the compiler may
// not change the order of additions by itself.
constexpr int64_t LANES = 16;
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

INLINE void store(float *to, float x) { *to = x; }

// Rounded to the nearest, to even where two are as near; not meant for NaN's payload.
INLINE void store(uint16_t *to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    *to = static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

} // namespace lnfree
