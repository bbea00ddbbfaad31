// Square tiles of attention matrices, in float32 or bfloat16, and their products by oneDNN's kernels.
//
// A product a b reads a row by row; how it reads b depends on the type. float32: row by row. bfloat16: in pairs of rows, the two numbers of a
// column side by side, which is what the instruction for it multiplies. Such a b is called packed.
#pragma once
#include <cstdint>

namespace lnfree {

// Rows of a tile: two float32 tiles fit the first cache, where the exponentials then read them.
constexpr int64_t TILE = 64;
// What a head's dimension is a multiple of.
constexpr int64_t STEP = 16;

// c [m, n] = a [m, k] b [k, n], or += with `add`; b packed, all without gaps.
void multiply(int64_t m, int64_t n, int64_t k, bool add, const float *a, const float *b, float *c);
void multiply(int64_t m, int64_t n, int64_t k, bool add, const uint16_t *a, const uint16_t *b, float *c);

// `count` rows of d numbers, `stride` apart in memory; what is read after them is zero.
template <typename T> struct Rows {
    const T *first;
    int64_t stride, count, d;
};

// To [TILE, d], row by row.
void copy_rows(Rows<float> x, float *to);
void copy_rows(Rows<uint16_t> x, uint16_t *to);

// To [d, TILE], row by row.
void transpose_rows(Rows<float> x, float *to);
void transpose_rows(Rows<uint16_t> x, uint16_t *to);

// To [TILE, d], packed.
void pack_rows(Rows<float> x, float *to);
void pack_rows(Rows<uint16_t> x, uint16_t *to);

// To [d, TILE], packed.
void pack_transposed(Rows<float> x, float *to);
void pack_transposed(Rows<uint16_t> x, uint16_t *to);

// [rows, columns] to [columns, rows]; rows are a multiple of STEP.
void transpose(const float *x, int64_t rows, int64_t columns, float *to);

// The first rows of x [TILE, d] times a factor each to rows `stride` apart.
void write_rows(const float *x, const float *factors, int64_t count, int64_t d, float *to, int64_t stride);
void write_rows(const float *x, const float *factors, int64_t count, int64_t d, uint16_t *to, int64_t stride);

} // namespace lnfree
