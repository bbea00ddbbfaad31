// Square tiles of attention matrices, in float32 or bfloat16, and their products.
//
// A product a b reads a row by row; how it reads b depends on the type. float32: row by row. bfloat16: in
// pairs of rows, the two numbers of a column side by side, which is what the instruction for it multiplies.
// Such a b is called packed.
#pragma once
#include "loops.hpp"

#include <vector>

namespace lnfree {

// [rows, columns] to [columns, rows]; rows are a multiple of STEP.
void transpose(const LoopTable &table, const float *x, int64_t rows, int64_t columns, float *to);

// What is done with tiles of U. Rows that are given have d numbers; tiles have TILE rows, of zeros where
// there are no more.
template <typename U> class Tiles;

template <> class Tiles<float> {
  public:
    Tiles(const LoopTable &table, int64_t d) : table(table), wide(TILE * d) {}

    template <typename T> void copy(Rows<T> x, float *to) const;
    // To [d, TILE], row by row.
    template <typename T> void transpose(Rows<T> x, float *to) const;
    // To [TILE, d] and [d, TILE], packed.
    template <typename T> void pack(Rows<T> x, float *to) const { copy(x, to); }
    template <typename T> void pack_transposed(Rows<T> x, float *to) const { transpose(x, to); }

    // c [m, n] = a [m, k] b [k, n], or += with `add`; b packed, all without gaps.
    void multiply(int64_t m, int64_t n, int64_t k, bool add, const float *a, const float *b, float *c) const {
        table.multiply(m, n, k, add, a, b, c);
    }

    // After a thread's last product.
    static void release() {}

  private:
    const LoopTable &table;
    mutable std::vector<float> wide;
};

template <> class Tiles<uint16_t> {
  public:
    Tiles(const LoopTable &table, int64_t) : table(table) {}

    void copy(Rows<uint16_t> x, uint16_t *to) const;
    void transpose(Rows<uint16_t> x, uint16_t *to) const;
    void pack(Rows<uint16_t> x, uint16_t *to) const { table.pack_pairs(x, to); }
    void pack_transposed(Rows<uint16_t> x, uint16_t *to) const;
    void multiply(int64_t m, int64_t n, int64_t k, bool add, const uint16_t *a, const uint16_t *b, float *c) const;

    // Where the processor multiplies by tiles of its own, their registers stay configured until then.
    static void release();

  private:
    const LoopTable &table;
};

} // namespace lnfree
