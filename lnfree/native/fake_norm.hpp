// What operations with a fake LN share.
#pragma once
#include "dispatch.hpp"
#include "loops.hpp"
#include "parallel.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include <algorithm>

namespace lnfree {

// Rows whose share of the gradients of weight and bias is summed in float32; sums of these are in float64.
constexpr int64_t ROWS_AT_ONCE = 64;

// `std` float32, contiguous: one number, or one for each of a group of rows that repeats.
inline Divisor divisor(const at::Tensor &std) { return {std.const_data_ptr<float>(), std.numel()}; }

inline at::Tensor wide(const at::Tensor &x) { return x.to(at::kFloat).contiguous(); }

// Sums of weight's and bias's gradients, apart for every ROWS_AT_ONCE of the rows, so that no number of
// threads changes them.
struct RowSums {
    int64_t rows, n, parts;
    at::Tensor sums;

    RowSums(int64_t rows, int64_t n, const at::TensorOptions &float32)
        : rows(rows), n(n), parts((rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE), sums(at::empty({parts, 2, n}, float32)) {}

    // Calls work(begin, end, [2, n]) for every part's rows.
    template <typename F> void by_parts(F &&work) const {
        float *all = sums.data_ptr<float>();
        parallel(parts, [&](int64_t first, int64_t last) {
            for (int64_t p = first; p < last; p++) {
                float *part = all + 2 * p * n;
                std::fill(part, part + 2 * n, 0.0f);
                work(p * ROWS_AT_ONCE, std::min(rows, (p + 1) * ROWS_AT_ONCE), part);
            }
        });
    }

    // Gradients of weight and bias, in `kind`: [2, n].
    at::Tensor total(at::ScalarType kind) const { return sums.sum(0, false, at::kDouble).to(kind); }
};

} // namespace lnfree
