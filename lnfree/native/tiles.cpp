#include "tiles.hpp"

#include <ATen/native/CPUBlas.h>

#include <algorithm>

namespace lnfree {
namespace {

template <typename T> void copy_rows(Rows<T> x, T *to) {
    for (int64_t r = 0; r < x.count; r++) std::copy_n(x.first + r * x.stride, x.d, to + r * x.d);
    std::fill(to + x.count * x.d, to + TILE * x.d, T{});
}

const uint32_t *words(const void *x) { return static_cast<const uint32_t *>(x); }
uint32_t *words(void *x) { return static_cast<uint32_t *>(x); }

} // namespace

void transpose(const LoopTable &table, const float *x, int64_t rows, int64_t columns, float *to) {
    table.transpose_words(words(x), columns, rows, rows, columns, words(to));
}

template <> void Tiles<float>::copy(Rows<float> x, float *to) const { copy_rows(x, to); }
template <> void Tiles<float>::copy(Rows<uint16_t> x, float *to) const { table.widen(x, to); }

template <> void Tiles<float>::transpose(Rows<float> x, float *to) const {
    table.transpose_words(words(x.first), x.stride, x.count, TILE, x.d, words(to));
}
template <> void Tiles<float>::transpose(Rows<uint16_t> x, float *to) const {
    table.widen(x, wide.data());
    transpose(Rows<float>{wide.data(), x.d, TILE, x.d}, to);
}

void Tiles<uint16_t>::copy(Rows<uint16_t> x, uint16_t *to) const { copy_rows(x, to); }

void Tiles<uint16_t>::transpose(Rows<uint16_t> x, uint16_t *to) const {
    for (int64_t r = 0; r < TILE; r++) {
        for (int64_t c = 0; c < x.d; c++) to[c * TILE + r] = r < x.count ? x.first[r * x.stride + c] : uint16_t{};
    }
}

void Tiles<uint16_t>::pack_transposed(Rows<uint16_t> x, uint16_t *to) const {
    // A pair of numbers is one word.
    table.transpose_words(words(x.first), x.stride / 2, x.count, TILE, x.d / 2, words(to));
}

void Tiles<uint16_t>::multiply(int64_t m, int64_t n, int64_t k, bool add, const uint16_t *a, const uint16_t *b, float *c) const {
    const auto *first = reinterpret_cast<const at::BFloat16 *>(a), *second = reinterpret_cast<const at::BFloat16 *>(b);
    at::native::cpublas::brgemm(m, n, k, k, n, n, add, first, second, c, true);
}

void Tiles<uint16_t>::release() { at::native::cpublas::brgemm_release(true); }

} // namespace lnfree
