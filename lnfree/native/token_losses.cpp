// Loss, entropy and confidence of tokens, from logits that come a block of the vocabulary at a time and are read while they are
// in the cache. libtorch's operations would each read and write all logits again, which on a CPU costs as much as a seventh of the
// forward.
#include "lanes.hpp"
#include "parallel.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

using namespace lnfree;

// What is known of one position after some blocks of the vocabulary; src/native.rs has the same struct.
struct TokenSums {
    double total;    // sum of e^(x-top)
    double weighted; // sum of (x-top) e^(x-top)
    int64_t best;    // token with the largest logit
    float top;       // the largest logit
    float target;    // the target's logit
};

namespace {

// Sums of e^(x-top) and of (x-top) e^(x-top).
template <typename T> INLINE void row_sums(const T *row, int64_t n, float top, double &total, double &weighted) {
    total = weighted = 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = std::min(n, begin + BLOCK);
        Floats sums{}, products{};
        for (int64_t i = begin; i < end; i += LANES) {
            const bool whole = i + LANES <= end;
            const Floats x = larger((whole ? load(row + i) : load_some(row + i, end - i, NONE)) - top, all(LOWEST));
            const Floats e = exp_in_range(x);
            sums += e;
            products += x * e;
        }
        total += sum(sums);
        weighted += sum(products);
    }
}

template <typename T>
INLINE void add_block(const T *logits, int64_t n_rows, int64_t n_cols, int64_t stride, int64_t first,
                      const int64_t *targets, TokenSums *sums) {
    for (int64_t r = 0; r < n_rows; r++) {
        const T *row = logits + r * stride;
        TokenSums &sum = sums[r];
        const int64_t target = targets[r] - first;
        if (target >= 0 && target < n_cols) sum.target = to_float(row[target]);
        const float top = largest(row, n_cols);
        if (!(top <= sum.top)) {
            // What was added so far becomes relative to the new largest logit.
            const double below = static_cast<double>(sum.top) - top;
            const double scale = sum.total > 0.0 ? std::exp(below) : 0.0;
            sum.weighted = sum.total > 0.0 ? scale * (sum.weighted + below * sum.total) : 0.0;
            sum.total *= scale;
            sum.top = top;
            // Of equal logits the first counts as the most likely one, as in argmax; they are common in bfloat16.
            int64_t at = 0;
            while (at + 1 < n_cols && to_float(row[at]) != top) at++;
            sum.best = first + at;
        }
        double total, weighted;
        row_sums(row, n_cols, sum.top, total, weighted);
        sum.total += total;
        sum.weighted += weighted;
    }
}

CLONES void add_float32(const float *logits, int64_t n_rows, int64_t n_cols, int64_t stride, int64_t first,
                        const int64_t *targets, TokenSums *sums) {
    add_block(logits, n_rows, n_cols, stride, first, targets, sums);
}

CLONES void add_bfloat16(const uint16_t *logits, int64_t n_rows, int64_t n_cols, int64_t stride, int64_t first,
                         const int64_t *targets, TokenSums *sums) {
    add_block(logits, n_rows, n_cols, stride, first, targets, sums);
}

} // namespace

// Adds logits [n_rows, n_cols] in bfloat16 or float32, rows `stride` apart, from row `row` on, of the tokens from `first` on to the
// sums of n_rows positions, which begin as {top -inf, best -1, rest 0}. A NaN among the logits ends up in `total`.
extern "C" void lnfree_add_logits(bool bfloat16, const void *logits, int64_t row, int64_t n_rows, int64_t n_cols,
                                  int64_t stride, int64_t first, const int64_t *targets, TokenSums *sums) {
    if (bfloat16) {
        add_bfloat16(static_cast<const uint16_t *>(logits) + row * stride, n_rows, n_cols, stride, first, targets, sums);
    } else {
        add_float32(static_cast<const float *>(logits) + row * stride, n_rows, n_cols, stride, first, targets, sums);
    }
}
