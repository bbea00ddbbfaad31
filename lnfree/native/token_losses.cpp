// Loss, entropy and confidence of tokens, from logits that come a block of the vocabulary at a time and are read while they are
// in the cache. libtorch's operations would each read and write all logits again, which on a CPU costs as much as a seventh of the
// forward.
//
// The loops are plain so that the compiler vectorises them, once for each instruction set; the one that runs is chosen
// when the program is loaded.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define CLONES
#endif

// What is known of one position after some blocks of the vocabulary; src/native.rs has the same struct.
struct TokenSums {
    double total;    // sum of e^(x-top)
    double weighted; // sum of (x-top) e^(x-top)
    int64_t best;    // token with the largest logit
    float top;       // the largest logit
    float target;    // the target's logit
};

namespace {

// Numbers worked on side by side: one register of AVX-512, two of AVX2. Sums are kept apart by lane, because the compiler may
// not change the order of additions by itself.
constexpr int LANES = 16;
// Terms that go into float32 sums before these go into float64.
constexpr int64_t BLOCK = 4096;
// exp() of anything lower is no longer a normal float32.
constexpr float LOWEST = -87.0f;

// A NaN in x is passed over, one in y stays: what the instruction for it does.
inline float larger(float x, float y) { return x > y ? x : y; }

inline float to_float(float x) { return x; }

inline float to_float(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// e^x for LOWEST <= x <= 0: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' expf), relative error about 1e-7.
inline float exp_negative(float x) {
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

template <typename T> inline float row_max(const T *row, int64_t n) {
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

// Sums of e^(x-top) and of (x-top) e^(x-top).
template <typename T> inline void row_sums(const T *row, int64_t n, float top, double &total, double &weighted) {
    total = weighted = 0.0;
    int64_t i = 0;
    while (i + LANES <= n) {
        const int64_t end = std::min(n - LANES, i + BLOCK - LANES);
        float sums[LANES] = {}, products[LANES] = {};
        for (; i <= end; i += LANES) {
            for (int l = 0; l < LANES; l++) {
                const float x = larger(to_float(row[i + l]) - top, LOWEST);
                const float e = exp_negative(x);
                sums[l] += e;
                products[l] += x * e;
            }
        }
        for (int l = 0; l < LANES; l++) {
            total += sums[l];
            weighted += products[l];
        }
    }
    for (; i < n; i++) {
        const float x = larger(to_float(row[i]) - top, LOWEST);
        const float e = exp_negative(x);
        total += e;
        weighted += x * e;
    }
}

template <typename T>
inline void add_block(const T *logits, int64_t n_rows, int64_t n_cols, int64_t stride, int64_t first,
                      const int64_t *targets, TokenSums *sums) {
    for (int64_t r = 0; r < n_rows; r++) {
        const T *row = logits + r * stride;
        TokenSums &sum = sums[r];
        const int64_t target = targets[r] - first;
        if (target >= 0 && target < n_cols) sum.target = to_float(row[target]);
        const float top = row_max(row, n_cols);
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
