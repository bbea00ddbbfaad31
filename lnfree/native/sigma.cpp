// sigma = sqrt(var(x) + eps) over the last axis, which libtorch has no single operation for: its own would
// read and write x several times.
#include "dispatch.hpp"
#include "loops.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/var_mean.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Sigma : torch::autograd::Function<Sigma> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &input, double eps) {
        const at::Tensor x = input.contiguous();
        at::Tensor sigma;
        if (lnfree::for_cpu_kernels(x) && x.scalar_type() == at::kFloat) {
            const int64_t n = x.size(-1);
            sigma = at::empty(x.sizes().slice(0, x.dim() - 1), x.options());
            const float *from = x.const_data_ptr<float>();
            float *to = sigma.data_ptr<float>();
            const lnfree::LoopTable &table = lnfree::loops();
            lnfree::parallel(sigma.numel(), [&](int64_t begin, int64_t end) {
                table.sigma(from + begin * n, end - begin, n, static_cast<float>(eps), to + begin);
            });
        } else {
            sigma = std::get<0>(at::var_mean(x, at::OptionalIntArrayRef(-1), c10::Scalar(0))).add_(eps).sqrt_();
        }
        context->save_for_backward({x, sigma});
        return sigma;
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const at::Tensor &x = saved[0], &sigma = saved[1];
        const int64_t n = x.size(-1);
        const at::Tensor grad = grads[0].contiguous();
        if (!lnfree::for_cpu_kernels(x) || x.scalar_type() != at::kFloat) {
            const at::Tensor scale = grad.div(sigma).div_(static_cast<double>(n)).unsqueeze_(-1);
            return {x.sub(x.mean(-1, true)).mul_(scale), at::Tensor()};
        }
        at::Tensor dx = at::empty_like(x);
        const float *from = x.const_data_ptr<float>(), *s = sigma.const_data_ptr<float>(), *g = grad.const_data_ptr<float>();
        float *to = dx.data_ptr<float>();
        const lnfree::LoopTable &table = lnfree::loops();
        lnfree::parallel(sigma.numel(), [&](int64_t begin, int64_t end) {
            table.sigma_backward(from + begin * n, s + begin, g + begin, end - begin, n, to + begin * n);
        });
        return {dx, at::Tensor()};
    }
};

} // namespace

extern "C" at::Tensor *lnfree_sigma(const at::Tensor *x, double eps) {
    return lnfree::guarded_tensor([&] { return Sigma::apply(*x, eps); });
}
