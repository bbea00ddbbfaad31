// A fake LN put into the columns of the matrix that reads it, and taken out of their gradients; formulas are in src/model/step.rs. libtorch's
// operations would pass over such matrices some ten times: here both stages of a strip of columns find it in the cache.
#include "parallel.hpp"
#include "result.hpp"
#include "rows.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

using namespace lnfree;

namespace {

// Columns at a time: those of 2,000 rows in float32 fit a cache of a megabyte, and memory is read in long enough pieces.
constexpr int64_t STRIP = 128;
// Rows whose terms go into float32 sums before these go into float64.
constexpr int64_t ROWS = 64;

// Some columns of a matrix.
template <typename T> struct Columns {
    T *first;
    int64_t stride, rows, width;
};

// to = diag(gain) w - 1 (gain^T w) / rows; carried = beta^T w.
template <typename T, typename U>
INLINE void fold(Columns<const T> w, Columns<U> to, const float *gain, const float *beta, float *carried) {
    double means[STRIP] = {}, betas[STRIP] = {};
    for (int64_t begin = 0; begin < w.rows; begin += ROWS) {
        float a[STRIP] = {}, b[STRIP] = {};
        for (int64_t r = begin; r < std::min(w.rows, begin + ROWS); r++) {
            const T *__restrict row = w.first + r * w.stride;
            for (int64_t j = 0; j < w.width; j++) {
                const float x = to_float(row[j]);
                a[j] += gain[r] * x;
                b[j] += beta[r] * x;
            }
        }
        for (int64_t j = 0; j < w.width; j++) {
            means[j] += a[j];
            betas[j] += b[j];
        }
    }
    float mean[STRIP];
    for (int64_t j = 0; j < w.width; j++) {
        mean[j] = static_cast<float>(means[j] / w.rows);
        carried[j] = static_cast<float>(betas[j]);
    }
    for (int64_t r = 0; r < w.rows; r++) {
        const T *__restrict row = w.first + r * w.stride;
        U *__restrict out = to.first + r * to.stride;
        for (int64_t j = 0; j < w.width; j++) store(out + j, gain[r] * to_float(row[j]) - mean[j]);
    }
}

// With m the means of grad's columns: by_gain[r] = sum of w (grad - m), by_beta[r] = sum of w g, grad = gain (grad - m) + beta g^T.
template <typename T>
INLINE void unfold(Columns<T> grad, Columns<const T> w, const float *gain, const float *beta, const float *__restrict g,
                   float *by_gain, float *by_beta) {
    double sums[STRIP] = {};
    for (int64_t begin = 0; begin < grad.rows; begin += ROWS) {
        float a[STRIP] = {};
        for (int64_t r = begin; r < std::min(grad.rows, begin + ROWS); r++) {
            const T *row = grad.first + r * grad.stride;
            for (int64_t j = 0; j < grad.width; j++) a[j] += to_float(row[j]);
        }
        for (int64_t j = 0; j < grad.width; j++) sums[j] += a[j];
    }
    float mean[STRIP];
    for (int64_t j = 0; j < grad.width; j++) mean[j] = static_cast<float>(sums[j] / grad.rows);
    for (int64_t r = 0; r < grad.rows; r++) {
        T *__restrict row = grad.first + r * grad.stride;
        const T *__restrict weights = w.first + r * w.stride;
        float a[LANES] = {}, b[LANES] = {};
        const auto one = [&](int64_t j, int l) {
            const float centred = to_float(row[j]) - mean[j], x = to_float(weights[j]);
            a[l] += x * centred;
            b[l] += x * g[j];
            store(row + j, gain[r] * centred + beta[r] * g[j]);
        };
        int64_t j = 0;
        for (; j + LANES <= grad.width; j += LANES) {
            for (int l = 0; l < LANES; l++) one(j + l, l);
        }
        for (; j < grad.width; j++) one(j, 0);
        by_gain[r] = by_beta[r] = 0.0f;
        for (int l = 0; l < LANES; l++) {
            by_gain[r] += a[l];
            by_beta[r] += b[l];
        }
    }
}

CLONES void fold_strip(Columns<const float> w, Columns<float> to, const float *gain, const float *beta, float *carried) {
    fold(w, to, gain, beta, carried);
}
CLONES void fold_strip(Columns<const float> w, Columns<uint16_t> to, const float *gain, const float *beta, float *carried) {
    fold(w, to, gain, beta, carried);
}
CLONES void fold_strip(Columns<const uint16_t> w, Columns<float> to, const float *gain, const float *beta, float *carried) {
    fold(w, to, gain, beta, carried);
}
CLONES void fold_strip(Columns<const uint16_t> w, Columns<uint16_t> to, const float *gain, const float *beta, float *carried) {
    fold(w, to, gain, beta, carried);
}
CLONES void unfold_strip(Columns<float> grad, Columns<const float> w, const float *gain, const float *beta, const float *g,
                         float *by_gain, float *by_beta) {
    unfold(grad, w, gain, beta, g, by_gain, by_beta);
}
CLONES void unfold_strip(Columns<uint16_t> grad, Columns<const uint16_t> w, const float *gain, const float *beta, const float *g,
                         float *by_gain, float *by_beta) {
    unfold(grad, w, gain, beta, g, by_gain, by_beta);
}

bool is_wide(const at::Tensor &x) { return x.scalar_type() == at::kFloat; }

// The strip of `matrix` from column `begin` on.
template <typename T, typename M> Columns<T> strip(M *matrix, const at::Tensor &like, int64_t begin) {
    return {static_cast<T *>(matrix) + begin, like.stride(0), like.size(0), std::min(STRIP, like.size(1) - begin)};
}

int64_t n_strips(const at::Tensor &matrix) { return (matrix.size(1) + STRIP - 1) / STRIP; }

// Calls work(s, begin) for every strip s of `matrix`, which starts at column `begin`.
template <typename F> void by_strips(const at::Tensor &matrix, F &&work) {
    parallel(n_strips(matrix), [&](int64_t first, int64_t last) {
        for (int64_t s = first; s < last; s++) work(s, s * STRIP);
    });
}

template <typename T, typename U>
void fold_all(const at::Tensor &weight, const at::Tensor &to, const float *gain, const float *beta, float *carried) {
    const void *from = weight.const_data_ptr();
    void *into = to.data_ptr();
    by_strips(weight, [&](int64_t, int64_t begin) {
        fold_strip(strip<const T>(from, weight, begin), strip<U>(into, to, begin), gain, beta, carried + begin);
    });
}

// by_row: [strips, 2, rows].
template <typename T>
void unfold_all(const at::Tensor &grad, const at::Tensor &weight, const float *gain, const float *beta, const float *g, float *by_row) {
    void *into = grad.data_ptr();
    const void *from = weight.const_data_ptr();
    const int64_t rows = grad.size(0);
    by_strips(grad, [&](int64_t s, int64_t begin) {
        float *part = by_row + 2 * s * rows;
        unfold_strip(strip<T>(into, grad, begin), strip<const T>(from, weight, begin), gain, beta, g + begin, part, part + rows);
    });
}

} // namespace

// `weight` and `to` [in, out], each float32 or bfloat16 on the CPU with rows of neighbours; `gain` and `beta` float32 [in]. Writes
// C diag(gain) weight into `to`; returns beta^T weight, float32 [out].
extern "C" at::Tensor *lnfree_fold(const at::Tensor *weight, const at::Tensor *gain, const at::Tensor *beta, const at::Tensor *to) {
    return guarded_tensor([&] {
        at::Tensor carried = at::empty({weight->size(1)}, gain->options());
        const float *a = gain->const_data_ptr<float>(), *b = beta->const_data_ptr<float>();
        float *out = carried.data_ptr<float>();
        if (is_wide(*weight)) {
            is_wide(*to) ? fold_all<float, float>(*weight, *to, a, b, out) : fold_all<float, uint16_t>(*weight, *to, a, b, out);
        } else {
            is_wide(*to) ? fold_all<uint16_t, float>(*weight, *to, a, b, out) : fold_all<uint16_t, uint16_t>(*weight, *to, a, b, out);
        }
        return carried;
    });
}

// `grad` and `weight` [in, out], both float32 or both bfloat16 on the CPU with rows of neighbours; `gain` and `beta` float32 [in], `bias_grad`
// float32 [out]. Turns `grad` into the gradient of what was folded; returns rowsum(C grad * weight) and weight bias_grad, float32 [2, in].
extern "C" at::Tensor *lnfree_unfold(const at::Tensor *grad, const at::Tensor *weight, const at::Tensor *gain, const at::Tensor *beta,
                                     const at::Tensor *bias_grad) {
    return guarded_tensor([&] {
        const int64_t rows = grad->size(0), strips = n_strips(*grad);
        std::vector<float> by_row(2 * rows * strips);
        const float *a = gain->const_data_ptr<float>(), *b = beta->const_data_ptr<float>(), *g = bias_grad->const_data_ptr<float>();
        is_wide(*grad) ? unfold_all<float>(*grad, *weight, a, b, g, by_row.data())
                       : unfold_all<uint16_t>(*grad, *weight, a, b, g, by_row.data());
        // In the order of the strips, whatever thread had which.
        std::vector<double> sums(2 * rows);
        for (int64_t s = 0; s < strips; s++) {
            for (int64_t i = 0; i < 2 * rows; i++) sums[i] += by_row[2 * s * rows + i];
        }
        at::Tensor out = at::empty({2, rows}, gain->options());
        std::copy(sums.begin(), sums.end(), out.data_ptr<float>());
        return out;
    });
}
