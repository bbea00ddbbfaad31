// y = x @ weight + bias, whose gradients can go straight into float32 buffers.
//
// libtorch's autograd would make every micro-batch's weight gradient as a tensor of its own, in the type of
// the computation, convert it, and add it; and it would convert the weights anew in every forward.
#include "matmul.hpp"
#include "result.hpp"

#include <torch/csrc/autograd/custom_function.h>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor rows(const at::Tensor &x) { return x.reshape({-1, x.size(-1)}); }

// Where gradients go; undefined for autograd's own way. In a struct, so that autograd does not take them for
// inputs.
struct Into {
    at::Tensor weight, bias;
};

struct Linear : torch::autograd::Function<Linear> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias,
                              Into into) {
        context->save_for_backward({x, weight});
        context->saved_data["weight_grad"] = into.weight;
        context->saved_data["bias_grad"] = into.bias;
        auto size = x.sizes().vec();
        size.back() = weight.size(1);
        return lnfree::affine(rows(x), weight, bias).view(size);
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const at::Tensor &x = saved[0], &weight = saved[1];
        const at::Tensor dy = rows(grads[0]).contiguous();
        const auto weight_grad = context->saved_data["weight_grad"].toTensor();
        const auto bias_grad = context->saved_data["bias_grad"].toTensor();
        variable_list out(4);
        if (context->needs_input_grad(0)) out[0] = lnfree::product(dy, weight.t()).view(x.sizes());
        if (weight_grad.defined()) {
            lnfree::add_product(weight_grad, rows(x).t(), dy);
            bias_grad.add_(dy.sum(0, false, bias_grad.scalar_type()));
            return out;
        }
        if (context->needs_input_grad(1)) out[1] = lnfree::product(rows(x).t(), dy);
        if (context->needs_input_grad(2)) out[2] = dy.sum(0);
        return out;
    }
};

} // namespace

// Gradients of weight and bias are added to the buffers, or handed to autograd where these are null.
extern "C" at::Tensor *lnfree_linear(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias,
                                     const at::Tensor *weight_grad, const at::Tensor *bias_grad) {
    return lnfree::guarded_tensor([&] {
        const Into into = weight_grad ? Into{*weight_grad, *bias_grad} : Into{};
        return Linear::apply(*x, *weight, *bias, into);
    });
}
