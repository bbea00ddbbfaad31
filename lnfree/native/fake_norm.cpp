// A fake LN as an operation on activations, where no matrix has taken it in. libtorch's operations would pass
// over the activations some five times, and twice as often for the gradients.
#include "fake_norm.hpp"
#include "result.hpp"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace lnfree;

namespace {

at::Tensor normalise(const at::Tensor &x, const at::Tensor &std, const at::Tensor &weight, const at::Tensor &bias, at::ScalarType kind) {
    const int64_t n = x.size(-1);
    at::Tensor y = at::empty(x.sizes(), x.options().dtype(kind));
    const float *from = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>(), *b = bias.const_data_ptr<float>();
    void *to = y.data_ptr();
    const LoopTable &table = loops();
    parallel(x.numel() / n, [&](int64_t begin, int64_t end) {
        if (kind == at::kFloat) table.float32.fake_norm(from, begin, end, n, divisor(std), w, b, static_cast<float *>(to));
        else table.bfloat16.fake_norm(from, begin, end, n, divisor(std), w, b, static_cast<uint16_t *>(to));
    });
    return y;
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
        const at::Tensor &x = saved[0], &std = saved[2], weight = wide(saved[1]), dy = grads[0].contiguous();
        const int64_t n = x.size(-1);
        at::Tensor dx = at::empty_like(x);
        const float *from = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
        const void *grad = dy.const_data_ptr();
        float *to = dx.data_ptr<float>();
        const LoopTable &table = loops();
        const RowSums sums(x.numel() / n, n, x.options());
        sums.by_parts([&](int64_t begin, int64_t end, float *part) {
            const auto rows = [&](auto *arrived, const auto &of) {
                of.fake_norm_backward(from, arrived, begin, end, n, divisor(std), w, to, part);
            };
            if (dy.scalar_type() == at::kFloat) rows(static_cast<const float *>(grad), table.float32);
            else rows(static_cast<const uint16_t *>(grad), table.bfloat16);
        });
        const at::Tensor total = sums.total(saved[1].scalar_type());
        return {dx, total.select(0, 0), total.select(0, 1), at::Tensor(), at::Tensor()};
    }
};

} // namespace

// `x` float32 [.., n] on the CPU; `std` float32, one number or one for each row (of a group of rows that
// repeats); `weight` and `bias` [n]. The result is bfloat16 if that is asked for, else float32.
extern "C" at::Tensor *lnfree_fake_norm(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, const at::Tensor *std,
                                        bool bfloat16) {
    return guarded_tensor([&] { return FakeNorm::apply(*x, *weight, *bias, *std, bfloat16 ? at::kBFloat16 : at::kFloat); });
}
