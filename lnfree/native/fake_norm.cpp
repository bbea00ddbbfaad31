// A fake LN as an operation on activations, where no matrix has taken it in: y = (x - mean(x)) / std * weight + bias. libtorch's operations would
// pass over the activations some five times, and twice as often for the gradients.
#include "moments.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

using namespace lnfree;

namespace {

// Rows whose share of the gradients of weight and bias is summed in float32; sums of these are in float64.
constexpr int64_t ROWS = 64;

// What rows are divided by: one number, or one for each position, again and again.
struct Divisor {
    const float *std;
    int64_t period;

    float inverse(int64_t row) const { return 1.0f / std[row % period]; }
};

template <typename T>
INLINE void forward(const float *x, int64_t begin, int64_t end, int64_t n, Divisor by, const float *__restrict weight,
                    const float *__restrict bias, T *y) {
    for (int64_t r = begin; r < end; r++) {
        const float *__restrict row = x + r * n;
        T *__restrict out = y + r * n;
        const float mean = sum(row, n) / n, inverse = by.inverse(r);
        for (int64_t i = 0; i < n; i++) store(out + i, (row[i] - mean) * inverse * weight[i] + bias[i]);
    }
}

// dx = (u - mean(u)) / std with u = dy * weight; `sums` [2, n] becomes those of dy (x - mean) / std and of dy.
template <typename T>
INLINE void backward(const float *x, const T *dy, int64_t begin, int64_t end, int64_t n, Divisor by, const float *__restrict weight,
                     float *dx, float *__restrict sums) {
    std::fill(sums, sums + 2 * n, 0.0f);
    for (int64_t r = begin; r < end; r++) {
        const float *__restrict row = x + r * n;
        const T *__restrict grad = dy + r * n;
        float *__restrict out = dx + r * n;
        const float mean = sum(row, n) / n, inverse = by.inverse(r);
        for (int64_t i = 0; i < n; i++) {
            const float g = to_float(grad[i]);
            sums[i] += g * ((row[i] - mean) * inverse);
            sums[n + i] += g;
            out[i] = g * weight[i];
        }
        const float carried = sum(out, n) / n;
        for (int64_t i = 0; i < n; i++) out[i] = (out[i] - carried) * inverse;
    }
}

CLONES void forward_rows(const float *x, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, const float *bias, float *y) {
    forward(x, begin, end, n, by, weight, bias, y);
}
CLONES void forward_rows(const float *x, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, const float *bias, uint16_t *y) {
    forward(x, begin, end, n, by, weight, bias, y);
}
CLONES void backward_rows(const float *x, const float *dy, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, float *dx,
                          float *sums) {
    backward(x, dy, begin, end, n, by, weight, dx, sums);
}
CLONES void backward_rows(const float *x, const uint16_t *dy, int64_t begin, int64_t end, int64_t n, Divisor by, const float *weight, float *dx,
                          float *sums) {
    backward(x, dy, begin, end, n, by, weight, dx, sums);
}

Divisor divisor(const at::Tensor &std) { return {std.const_data_ptr<float>(), std.numel()}; }

at::Tensor wide(const at::Tensor &x) { return x.to(at::kFloat).contiguous(); }

at::Tensor normalise(const at::Tensor &x, const at::Tensor &std, const at::Tensor &weight, const at::Tensor &bias, at::ScalarType kind) {
    const int64_t n = x.size(-1);
    at::Tensor y = at::empty(x.sizes(), x.options().dtype(kind));
    const float *from = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>(), *b = bias.const_data_ptr<float>();
    void *to = y.data_ptr();
    parallel(x.numel() / n, [&](int64_t begin, int64_t end) {
        if (kind == at::kFloat) forward_rows(from, begin, end, n, divisor(std), w, b, static_cast<float *>(to));
        else forward_rows(from, begin, end, n, divisor(std), w, b, static_cast<uint16_t *>(to));
    });
    return y;
}

// Gradients of x, weight and bias, float32.
std::vector<at::Tensor> gradients(const at::Tensor &x, const at::Tensor &std, const at::Tensor &weight, const at::Tensor &dy) {
    const int64_t n = x.size(-1), rows = x.numel() / n, parts = (rows + ROWS - 1) / ROWS;
    at::Tensor dx = at::empty_like(x), sums = at::empty({parts, 2, n}, x.options());
    const float *from = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
    const void *grad = dy.const_data_ptr();
    float *to = dx.data_ptr<float>(), *partial = sums.data_ptr<float>();
    parallel(parts, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; p++) {
            const int64_t begin = p * ROWS, end = std::min(rows, begin + ROWS);
            float *part = partial + 2 * p * n;
            if (dy.scalar_type() == at::kFloat) backward_rows(from, static_cast<const float *>(grad), begin, end, n, divisor(std), w, to, part);
            else backward_rows(from, static_cast<const uint16_t *>(grad), begin, end, n, divisor(std), w, to, part);
        }
    });
    const at::Tensor total = sums.sum(0, false, at::kDouble).to(at::kFloat);
    return {dx, total.select(0, 0), total.select(0, 1)};
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FakeNorm : torch::autograd::Function<FakeNorm> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &input, const at::Tensor &weight, const at::Tensor &bias,
                              const at::Tensor &divisor, at::ScalarType kind) {
        const at::Tensor x = input.contiguous(), std = divisor.reshape({-1}).contiguous();
        context->save_for_backward({x, weight, std});
        return normalise(x, std, wide(weight), wide(bias), kind);
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const at::Tensor &weight = saved[1];
        const auto found = gradients(saved[0], saved[2], wide(weight), grads[0].contiguous());
        return {found[0], found[1].to(weight.scalar_type()), found[2].to(weight.scalar_type()), at::Tensor(), at::Tensor()};
    }
};

} // namespace

// `x` float32 [.., n] on the CPU; `std` float32, one number or one for each row (of a group of rows that repeats); `weight` and `bias` [n]. The
// result is bfloat16 if that is asked for, else float32.
extern "C" at::Tensor *lnfree_fake_norm(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, const at::Tensor *std,
                                        bool bfloat16) {
    return guarded_tensor([&] { return FakeNorm::apply(*x, *weight, *bias, *std, bfloat16 ? at::kBFloat16 : at::kFloat); });
}
