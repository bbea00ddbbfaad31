// The loops of all kernels, compiled once for each instruction set (loops/level.cpp) and chosen when the
// program runs.
#pragma once
#include <cstdint>

namespace lnfree {

// What is known of one position after some blocks of the vocabulary; src/base/ffi/symbols.rs has the same
// struct.
struct TokenSums {
    double total;    // sum of e^(x-top)
    double weighted; // sum of (x-top) e^(x-top)
    int64_t best;    // token with the largest logit
    float top;       // the largest logit
    float target;    // the target's logit
};
static_assert(sizeof(TokenSums) == 32 && alignof(TokenSums) == 8, "as in Rust");

// What rows are divided by: one number, or one for each position, again and again.
struct Divisor {
    const float *std;
    int64_t period;

    float inverse(int64_t row) const { return 1.0f / std[row % period]; }
};

// The fake LN that reads a sum; without weights the sum is read as it is.
struct Norm {
    const float *weight = nullptr, *bias = nullptr;
    float inverse = 1.0f;
};

// What is written for each row of a sum; null where not wanted.
template <typename U> struct Outputs {
    float *sum;
    U *read;
    float *sigma;
};

// Some columns of a matrix.
template <typename T> struct Columns {
    T *first;
    int64_t stride, rows, width;
};

// Columns of a matrix at a time: those of 2,000 rows in float32 fit a cache of a megabyte, and memory is read
// in long enough pieces.
constexpr int64_t STRIP = 128;

// Rows of a tile of attention: two float32 tiles fit the first cache, where the exponentials then read them.
constexpr int64_t TILE = 64;
// What a head's dimension is a multiple of.
constexpr int64_t STEP = 16;

// `count` rows of d numbers, `stride` apart in memory; what is read after them is zero.
template <typename T> struct Rows {
    const T *first;
    int64_t stride, count, d;
};

// What is known of a tile of queries after some keys, by query, sixteen of its keys side by side.
struct Queries {
    alignas(64) float top[TILE * STEP], total[TILE * STEP];
};

// How much cross-entropy and the distance to a teacher count in a gradient, and one over the teacher's
// temperature.
struct Mixture {
    float of_targets, of_teacher, cold;
};

// Loops over numbers of type T.
template <typename T> struct TypedLoops {
    void (*gelu)(const T *x, T *y, int64_t n);
    void (*gelu_backward)(const T *x, const T *dy, T *dx, int64_t n);
    void (*logits_to_gradient)(T *logits, int64_t stride, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient, float *losses);
    void (*distilled_gradient)(T *logits, int64_t stride, const T *teacher, int64_t teacher_stride, int64_t n_rows, int64_t n,
                               const int64_t *targets, Mixture mixture, float coefficient, float *losses);
    void (*add_logits)(const T *logits, int64_t n_rows, int64_t n_cols, int64_t stride, int64_t first, const int64_t *targets, TokenSums *sums);
    void (*fake_norm)(const float *x, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, const float *bias, T *y);
    void (*fake_norm_backward)(const float *x, const T *dy, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, float *dx,
                               float *sums);
    // A branch of type T; what is read in float32 or bfloat16.
    void (*add_rows)(const float *x, const T *branch, int64_t begin, int64_t end, int64_t n, Norm norm, float eps, Outputs<float> out);
    void (*add_rows_low)(const float *x, const T *branch, int64_t begin, int64_t end, int64_t n, Norm norm, float eps, Outputs<uint16_t> out);
    // What arrived at what was read, of type T.
    void (*meet_rows)(const float *x, const float *grad, const T *read, int64_t begin, int64_t end, int64_t n, Norm norm, float *total,
                      uint16_t *low, float *sums);
    void (*fold)(Columns<const T> w, Columns<float> to, const float *gain, const float *beta, float *carried);
    void (*fold_low)(Columns<const T> w, Columns<uint16_t> to, const float *gain, const float *beta, float *carried);
    void (*unfold)(Columns<T> grad, Columns<const T> w, const float *gain, const float *beta, const float *g, float *by_gain, float *by_beta);
    void (*exponentials)(const float *scores, const float *top, float scale, bool diagonal, Queries &queries, T *p);
    // p and ds, and ds packed: returned, because where packed is no other layout it is ds.
    const T *(*gradients)(const float *scores, const float *dp, const float *lse, const float *inner, float scale, bool diagonal, T *p, T *ds,
                          T *packed);
    void (*inner_products)(Rows<T> a, Rows<T> b, float *to);
    void (*write_rows)(const float *x, const float *factors, int64_t count, int64_t d, T *to, int64_t stride);
};

struct LoopTable {
    TypedLoops<float> float32;
    TypedLoops<uint16_t> bfloat16;
    void (*add)(float *into, const uint16_t *from, int64_t n);
    void (*widen)(Rows<uint16_t> x, float *to);
    void (*sigma)(const float *x, int64_t n_rows, int64_t n, float eps, float *sigma);
    void (*sigma_backward)(const float *x, const float *sigma, const float *grad, int64_t n_rows, int64_t n, float *dx);
    void (*raise_tops)(const float *scores, bool diagonal, Queries &queries);
    void (*finish_tops)(const Queries &queries, float scale, float *top);
    void (*finish_totals)(const Queries &queries, float *total);
    // `count` rows of `width` words, `stride` apart, then rows of zeros up to `padded`, a multiple of STEP;
    // to [width, padded].
    void (*transpose_words)(const uint32_t *from, int64_t stride, int64_t count, int64_t padded, int64_t width, uint32_t *to);
    // To [TILE, d], the two numbers of a column in a pair of rows side by side.
    void (*pack_pairs)(Rows<uint16_t> x, uint16_t *to);
    // c [m, n] = a [m, k] b [k, n], or += with `add`; no gaps, m and n multiples of STEP.
    void (*multiply)(int64_t m, int64_t n, int64_t k, bool add, const float *a, const float *b, float *c);

    template <typename T> const TypedLoops<T> &of() const {
        if constexpr (sizeof(T) == sizeof(float)) return float32;
        else return bfloat16;
    }
};

// The loops of the level in force on this thread, as far as the processor has it. Work that goes to other
// threads takes them along.
const LoopTable &loops();

} // namespace lnfree
