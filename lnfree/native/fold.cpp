// A fake LN put into the columns of the matrix that reads it, and taken out of their gradients; formulas are
// in src/model/step.rs. libtorch's operations would pass over such matrices some ten times: here both stages
// of a strip of columns find it in the cache.
#include "dispatch.hpp"
#include "loops.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

using namespace lnfree;

namespace {

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
    const auto &of = loops().of<T>();
    by_strips(weight, [&](int64_t, int64_t begin) {
        const auto columns = strip<const T>(from, weight, begin);
        const auto out = strip<U>(into, to, begin);
        if constexpr (sizeof(U) == sizeof(float)) of.fold(columns, out, gain, beta, carried + begin);
        else of.fold_low(columns, out, gain, beta, carried + begin);
    });
}

// by_row: [strips, 2, rows].
template <typename T>
void unfold_all(const at::Tensor &grad, const at::Tensor &weight, const float *gain, const float *beta, const float *g, float *by_row) {
    void *into = grad.data_ptr();
    const void *from = weight.const_data_ptr();
    const int64_t rows = grad.size(0);
    const auto &of = loops().of<T>();
    by_strips(grad, [&](int64_t s, int64_t begin) {
        float *part = by_row + 2 * s * rows;
        of.unfold(strip<T>(into, grad, begin), strip<const T>(from, weight, begin), gain, beta, g + begin, part, part + rows);
    });
}

} // namespace

// `weight` and `to` [in, out], each float32 or bfloat16 on the CPU with rows of neighbours; `gain` and `beta`
// float32 [in]. Writes C diag(gain) weight into `to`; returns beta^T weight, float32 [out].
extern "C" at::Tensor *lnfree_fold(const at::Tensor *weight, const at::Tensor *gain, const at::Tensor *beta, const at::Tensor *to) {
    return guarded_tensor([&] {
        at::Tensor carried = at::empty({weight->size(1)}, gain->options());
        const float *a = gain->const_data_ptr<float>(), *b = beta->const_data_ptr<float>();
        float *out = carried.data_ptr<float>();
        if (is_float32(*weight)) {
            is_float32(*to) ? fold_all<float, float>(*weight, *to, a, b, out) : fold_all<float, uint16_t>(*weight, *to, a, b, out);
        } else {
            is_float32(*to) ? fold_all<uint16_t, float>(*weight, *to, a, b, out) : fold_all<uint16_t, uint16_t>(*weight, *to, a, b, out);
        }
        return carried;
    });
}

// `grad` and `weight` [in, out], both float32 or both bfloat16 on the CPU with rows of neighbours; `gain` and
// `beta` float32 [in], `bias_grad` float32 [out]. Turns `grad` into the gradient of what was folded; returns
// rowsum(C grad * weight) and weight bias_grad, float32 [2, in].
extern "C" at::Tensor *lnfree_unfold(const at::Tensor *grad, const at::Tensor *weight, const at::Tensor *gain, const at::Tensor *beta,
                                     const at::Tensor *bias_grad) {
    return guarded_tensor([&] {
        const int64_t rows = grad->size(0), strips = n_strips(*grad);
        std::vector<float> by_row(2 * rows * strips);
        const float *a = gain->const_data_ptr<float>(), *b = beta->const_data_ptr<float>(), *g = bias_grad->const_data_ptr<float>();
        is_float32(*grad) ? unfold_all<float>(*grad, *weight, a, b, g, by_row.data())
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
