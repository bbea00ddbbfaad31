#include "tiles.hpp"

#include "lanes.hpp"
#include "parallel.hpp"

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <utility>

namespace lnfree {
namespace {

template <typename T> void copy(Rows<T> x, T *to) {
    for (int64_t r = 0; r < x.count; r++) std::copy_n(x.first + r * x.stride, x.d, to + r * x.d);
    std::fill(to + x.count * x.d, to + TILE * x.d, T{});
}

// The places k of two vectors' numbers in a row, which are known to the compiler. GCC has clang's word for it from version 12 on.
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, places) __builtin_shufflevector(a, b, (places)...)
#else
#define SHUFFLE(a, b, places) __builtin_shuffle(a, b, Ints{static_cast<int32_t>(places)...})
#endif

// Exchanges row i's second half of every 2s numbers with the first half of row i + s.
template <int s, std::size_t... k> INLINE void exchange(Words &a, Words &b, std::index_sequence<k...>) {
    const Words first = SHUFFLE(a, b, k & s ? 16 + k - s : k);
    b = SHUFFLE(a, b, k & s ? 16 + k : k + s);
    a = first;
}

template <int s> INLINE void exchange_all(Words *rows) {
    for (int i = 0; i < LANES; i++) {
        if ((i & s) == 0) exchange<s>(rows[i], rows[i + s], std::make_index_sequence<LANES>());
    }
}

// `count` rows of `width` words, `stride` apart, then rows of zeros up to `padded`, a multiple of LANES; to [width, padded].
CLONES void transpose_words(const uint32_t *from, int64_t stride, int64_t count, int64_t padded, int64_t width, uint32_t *to) {
    for (int64_t r = 0; r < padded; r += LANES) {
        int64_t c = 0;
        for (; c + LANES <= width; c += LANES) {
            Words rows[LANES];
            for (int64_t i = 0; i < LANES; i++) {
                rows[i] = Words{};
                if (r + i < count) std::memcpy(&rows[i], from + (r + i) * stride + c, sizeof rows[i]);
            }
            exchange_all<1>(rows);
            exchange_all<2>(rows);
            exchange_all<4>(rows);
            exchange_all<8>(rows);
            for (int64_t i = 0; i < LANES; i++) std::memcpy(to + (c + i) * padded + r, &rows[i], sizeof rows[i]);
        }
        for (; c < width; c++) {
            for (int64_t i = r; i < r + LANES; i++) to[c * padded + i] = i < count ? from[i * stride + c] : 0;
        }
    }
}

CLONES void pack(const uint16_t *from, int64_t stride, int64_t count, int64_t d, uint16_t *to) {
    for (int64_t r = 0; r < TILE; r += 2) {
        for (int64_t c = 0; c < d; c += LANES) {
            Shorts rows[2]{};
            for (int64_t i = 0; i < 2; i++) {
                if (r + i < count) std::memcpy(&rows[i], from + (r + i) * stride + c, sizeof rows[i]);
            }
            const Words pairs = __builtin_convertvector(rows[0], Words) | __builtin_convertvector(rows[1], Words) << 16;
            std::memcpy(to + r * d + 2 * c, &pairs, sizeof pairs);
        }
    }
}

template <typename T>
INLINE void write(const float *x, const float *factors, int64_t count, int64_t d, T *to, int64_t stride) {
    for (int64_t r = 0; r < count; r++) {
        for (int64_t c = 0; c < d; c += LANES) store(to + r * stride + c, load(x + r * d + c) * factors[r]);
    }
}

} // namespace

void multiply(int64_t m, int64_t n, int64_t k, bool add, const float *a, const float *b, float *c) {
    at::native::cpublas::brgemm(m, n, k, k, n, n, add, a, b, c, false);
}

void multiply(int64_t m, int64_t n, int64_t k, bool add, const uint16_t *a, const uint16_t *b, float *c) {
    const auto *first = reinterpret_cast<const at::BFloat16 *>(a), *second = reinterpret_cast<const at::BFloat16 *>(b);
    at::native::cpublas::brgemm(m, n, k, k, n, n, add, first, second, c, true);
}

void copy_rows(Rows<float> x, float *to) { copy(x, to); }
void copy_rows(Rows<uint16_t> x, uint16_t *to) { copy(x, to); }

void transpose_rows(Rows<float> x, float *to) { pack_transposed(x, to); }
void transpose_rows(Rows<uint16_t> x, uint16_t *to) {
    for (int64_t r = 0; r < TILE; r++) {
        for (int64_t c = 0; c < x.d; c++) to[c * TILE + r] = r < x.count ? x.first[r * x.stride + c] : uint16_t{};
    }
}

void pack_rows(Rows<float> x, float *to) { copy(x, to); }
void pack_rows(Rows<uint16_t> x, uint16_t *to) { pack(x.first, x.stride, x.count, x.d, to); }

void pack_transposed(Rows<float> x, float *to) {
    transpose_words(reinterpret_cast<const uint32_t *>(x.first), x.stride, x.count, TILE, x.d, reinterpret_cast<uint32_t *>(to));
}
void pack_transposed(Rows<uint16_t> x, uint16_t *to) {
    // A pair of numbers is one word.
    transpose_words(reinterpret_cast<const uint32_t *>(x.first), x.stride / 2, x.count, TILE, x.d / 2, reinterpret_cast<uint32_t *>(to));
}

void transpose(const float *x, int64_t rows, int64_t columns, float *to) {
    transpose_words(reinterpret_cast<const uint32_t *>(x), columns, rows, rows, columns, reinterpret_cast<uint32_t *>(to));
}

CLONES void write_rows(const float *x, const float *factors, int64_t count, int64_t d, float *to, int64_t stride) {
    write(x, factors, count, d, to, stride);
}
CLONES void write_rows(const float *x, const float *factors, int64_t count, int64_t d, uint16_t *to, int64_t stride) {
    write(x, factors, count, d, to, stride);
}

} // namespace lnfree
