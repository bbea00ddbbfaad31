// Numbers of float32 or bfloat16, one at a time. Loops over them are plain so that the compiler vectorises
// them, once for each instruction set; where it does that badly, lanes.hpp has sixteen of them.
#pragma once
#include "inline.hpp"

#include <cstdint>
#include <cstring>
#include <limits>

namespace lnfree::LNFREE_LEVEL {

// Numbers worked on side by side: one register of AVX-512, two of AVX2. Sums are kept apart by lane, because
// the compiler may not change the order of additions by itself.
constexpr int64_t LANES = 16;
// Terms that go into float32 sums before these go into float64.
constexpr int64_t BLOCK = 4096;
// exp() of anything lower is no longer a normal float32.
constexpr float LOWEST = -87.0f;
// exp_in_range() of this is infinity, and of anything between is a number.
constexpr float HIGHEST = 89.0f;

// std::min would be one more function that is compiled for an instruction set and could be called from
// elsewhere.
INLINE int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

// A NaN in x is passed over, one in y stays: what the instruction for it does. So a running maximum belongs
// in y, and NaN has to show elsewhere; a number that is clamped belongs in y, and the bound in x.
INLINE float larger(float x, float y) { return x > y ? x : y; }

INLINE float to_float(float x) { return x; }

INLINE float to_float(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE void store(float *to, float x) { *to = x; }

// A NaN whose payload is lost in rounding would become infinity or zero.
constexpr uint32_t BFLOAT16_NAN = 0x7FC0;

// Rounded to the nearest, to even where two are as near.
INLINE void store(uint16_t *to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    *to = static_cast<uint16_t>(x == x ? nearest : BFLOAT16_NAN);
}

} // namespace lnfree::LNFREE_LEVEL
