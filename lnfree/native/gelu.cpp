// GPT-2's GELU, x/2 (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 + e^(-2u)). On a CPU libtorch takes
// its time over the tanh.
#include "dispatch.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

using namespace lnfree;

namespace {

constexpr float TWICE_ROOT = 1.5957691216057308f; // 2 sqrt(2 / pi)
constexpr float CUBIC = 0.044715f;
// Numbers that a thread works on at a time.
constexpr int64_t PART = 1 << 14;

// 1 / (1 + e^(-2u)).
INLINE Floats gate(Floats x) {
    const Floats twice_u = TWICE_ROOT * x * (1.0f + CUBIC * x * x);
    return 1.0f / (1.0f + exp_in_range(smaller(larger(-twice_u, all(LOWEST)), all(-LOWEST))));
}

INLINE Floats value(Floats x) { return x * gate(x); }

INLINE Floats gradient(Floats x, Floats dy) {
    const Floats s = gate(x), slope = TWICE_ROOT * (1.0f + 3.0f * CUBIC * x * x);
    return dy * (s + x * s * (1.0f - s) * slope);
}

template <typename T> INLINE void forward(const T *x, T *y, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, value(load(x + i)));
    if (i < n) store_some(y + i, value(load_some(x + i, n - i, 0.0f)), n - i);
}

template <typename T> INLINE void backward(const T *x, const T *dy, T *dx, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(dx + i, gradient(load(x + i), load(dy + i)));
    if (i < n) store_some(dx + i, gradient(load_some(x + i, n - i, 0.0f), load_some(dy + i, n - i, 0.0f)), n - i);
}

CLONES void forward_float32(const float *x, float *y, int64_t n) { forward(x, y, n); }
CLONES void forward_bfloat16(const uint16_t *x, uint16_t *y, int64_t n) { forward(x, y, n); }
CLONES void backward_float32(const float *x, const float *dy, float *dx, int64_t n) { backward(x, dy, dx, n); }
CLONES void backward_bfloat16(const uint16_t *x, const uint16_t *dy, uint16_t *dx, int64_t n) { backward(x, dy, dx, n); }

bool is_ours(const at::Tensor &x) {
    return for_cpu_kernels(x) && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

// Calls work(begin, count) for parts of 0..n.
template <typename F> void by_parts(int64_t n, F &&work) {
    parallel((n + PART - 1) / PART, [&](int64_t begin, int64_t end) { work(begin * PART, std::min(n, end * PART) - begin * PART); });
}

at::Tensor activate(const at::Tensor &x) {
    if (!is_ours(x)) return at::gelu(x, "tanh");
    at::Tensor y = at::empty_like(x);
    const bool wide = x.scalar_type() == at::kFloat;
    const void *from = x.const_data_ptr();
    void *to = y.data_ptr();
    by_parts(x.numel(), [&](int64_t i, int64_t n) {
        if (wide) forward_float32(static_cast<const float *>(from) + i, static_cast<float *>(to) + i, n);
        else forward_bfloat16(static_cast<const uint16_t *>(from) + i, static_cast<uint16_t *>(to) + i, n);
    });
    return y;
}

at::Tensor activate_backward(const at::Tensor &x, const at::Tensor &dy) {
    if (!is_ours(x)) return at::gelu_backward(dy, x, "tanh");
    at::Tensor dx = at::empty_like(x);
    const bool wide = x.scalar_type() == at::kFloat;
    const void *from = x.const_data_ptr(), *grad = dy.const_data_ptr();
    void *to = dx.data_ptr();
    by_parts(x.numel(), [&](int64_t i, int64_t n) {
        if (wide) backward_float32(static_cast<const float *>(from) + i, static_cast<const float *>(grad) + i, static_cast<float *>(to) + i, n);
        else backward_bfloat16(static_cast<const uint16_t *>(from) + i, static_cast<const uint16_t *>(grad) + i, static_cast<uint16_t *>(to) + i, n);
    });
    return dx;
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Gelu : torch::autograd::Function<Gelu> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &input) {
        const at::Tensor x = input.contiguous();
        context->save_for_backward({x});
        return activate(x);
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        return {activate_backward(context->get_saved_variables()[0], grads[0].contiguous())};
    }
};

} // namespace

extern "C" at::Tensor *lnfree_gelu(const at::Tensor *x) {
    return guarded_tensor([&] { return Gelu::apply(*x); });
}
