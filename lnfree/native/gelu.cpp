// GPT-2's GELU, the one with tanh, over which libtorch takes its time on a CPU.
#include "dispatch.hpp"
#include "loops.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

using namespace lnfree;

namespace {

// Numbers that a thread works on at a time.
constexpr int64_t PART = 1 << 14;

bool by_loops(const at::Tensor &x) { return for_cpu_kernels(x) && (is_float32(x) || x.scalar_type() == at::kBFloat16); }

// Calls work(begin, count) for parts of 0..n.
template <typename F> void by_parts(int64_t n, F &&work) {
    parallel((n + PART - 1) / PART, [&](int64_t begin, int64_t end) { work(begin * PART, std::min(n, end * PART) - begin * PART); });
}

at::Tensor activate(const at::Tensor &x) {
    if (!by_loops(x)) return at::gelu(x, "tanh");
    at::Tensor y = at::empty_like(x);
    const bool wide = is_float32(x);
    const void *from = x.const_data_ptr();
    void *to = y.data_ptr();
    const LoopTable &table = loops();
    by_parts(x.numel(), [&](int64_t i, int64_t n) {
        if (wide) table.float32.gelu(static_cast<const float *>(from) + i, static_cast<float *>(to) + i, n);
        else table.bfloat16.gelu(static_cast<const uint16_t *>(from) + i, static_cast<uint16_t *>(to) + i, n);
    });
    return y;
}

at::Tensor activate_backward(const at::Tensor &x, const at::Tensor &dy) {
    if (!by_loops(x)) return at::gelu_backward(dy, x, "tanh");
    at::Tensor dx = at::empty_like(x);
    const bool wide = is_float32(x);
    const void *from = x.const_data_ptr(), *grad = dy.const_data_ptr();
    void *to = dx.data_ptr();
    const LoopTable &table = loops();
    by_parts(x.numel(), [&](int64_t i, int64_t n) {
        if (wide) table.float32.gelu_backward(static_cast<const float *>(from) + i, static_cast<const float *>(grad) + i, static_cast<float *>(to) + i, n);
        else table.bfloat16.gelu_backward(static_cast<const uint16_t *>(from) + i, static_cast<const uint16_t *>(grad) + i, static_cast<uint16_t *>(to) + i, n);
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
