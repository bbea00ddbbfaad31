// What a branch adds to the residual stream, with what the next reader needs of the sum while it is in the cache: its sigma, and its numbers in
// bfloat16. Likewise backwards: the gradients of both meet in one pass.
#include "moments.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace lnfree;

namespace {

template <typename T>
INLINE void add(const float *x, const T *branch, int64_t n_rows, int64_t n, float eps, float *sums, uint16_t *low, float *sigma) {
    for (int64_t r = 0; r < n_rows; r++) {
        const float *__restrict a = x + r * n;
        const T *__restrict b = branch + r * n;
        float *__restrict out = sums + r * n;
        for (int64_t i = 0; i < n; i++) out[i] = a[i] + to_float(b[i]);
        if (low) {
            uint16_t *__restrict copy = low + r * n;
            for (int64_t i = 0; i < n; i++) store(copy + i, out[i]);
        }
        if (sigma) sigma[r] = sigma_of(out, n, eps);
    }
}

CLONES void add_rows(const float *x, const float *branch, int64_t n_rows, int64_t n, float eps, float *sums, uint16_t *low, float *sigma) {
    add(x, branch, n_rows, n, eps, sums, low, sigma);
}
CLONES void add_rows(const float *x, const uint16_t *branch, int64_t n_rows, int64_t n, float eps, float *sums, uint16_t *low,
                     float *sigma) {
    add(x, branch, n_rows, n, eps, sums, low, sigma);
}

// total = grad + low, in float32 and in bfloat16.
CLONES void add_gradients(const float *__restrict grad, const uint16_t *__restrict low, int64_t n, float *__restrict total,
                          uint16_t *__restrict copy) {
    for (int64_t i = 0; i < n; i++) {
        total[i] = grad[i] + to_float(low[i]);
        store(copy + i, total[i]);
    }
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Residual : torch::autograd::Function<Residual> {
    // The sum, then its copy in bfloat16 and its sigma, if these are wanted.
    static variable_list forward(AutogradContext *context, const at::Tensor &input, const at::Tensor &added, bool copy, bool observe,
                                 double eps) {
        const at::Tensor x = input.contiguous(), branch = added.contiguous();
        const int64_t n = x.size(-1), rows = x.numel() / n;
        at::Tensor sum = at::empty_like(x);
        variable_list out{sum};
        uint16_t *low = nullptr;
        float *sigma = nullptr;
        if (copy) {
            out.push_back(at::empty(x.sizes(), x.options().dtype(at::kBFloat16)));
            low = static_cast<uint16_t *>(out.back().data_ptr());
        }
        if (observe) {
            out.push_back(at::empty(x.sizes().slice(0, x.dim() - 1), x.options()));
            sigma = out.back().data_ptr<float>();
            context->mark_non_differentiable({out.back()});
        }
        context->set_materialize_grads(false);
        context->saved_data["copy"] = copy;
        context->saved_data["low branch"] = branch.scalar_type() != at::kFloat;
        const float *from = x.const_data_ptr<float>();
        const void *more = branch.const_data_ptr();
        float *to = sum.data_ptr<float>();
        const bool wide = branch.scalar_type() == at::kFloat;
        parallel(rows, [&](int64_t begin, int64_t end) {
            const int64_t at = begin * n;
            uint16_t *copied = low ? low + at : nullptr;
            float *seen = sigma ? sigma + begin : nullptr;
            const auto e = static_cast<float>(eps);
            if (wide) add_rows(from + at, static_cast<const float *>(more) + at, end - begin, n, e, to + at, copied, seen);
            else add_rows(from + at, static_cast<const uint16_t *>(more) + at, end - begin, n, e, to + at, copied, seen);
        });
        return out;
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const bool low_branch = context->saved_data["low branch"].toBool();
        const at::Tensor low = context->saved_data["copy"].toBool() ? grads[1] : at::Tensor();
        at::Tensor total = grads[0], branch;
        if (total.defined() && low.defined()) {
            const at::Tensor a = total.contiguous(), b = low.contiguous();
            total = at::empty_like(a);
            branch = at::empty_like(b);
            const float *from = a.const_data_ptr<float>();
            const auto *more = static_cast<const uint16_t *>(b.const_data_ptr());
            float *to = total.data_ptr<float>();
            auto *copy = static_cast<uint16_t *>(branch.data_ptr());
            const int64_t n = a.size(-1);
            parallel(a.numel() / n, [&](int64_t begin, int64_t end) {
                const int64_t at = begin * n;
                add_gradients(from + at, more + at, (end - begin) * n, to + at, copy + at);
            });
        } else if (low.defined()) {
            total = low.to(at::kFloat);
        }
        if (!total.defined()) return variable_list(5);
        if (!low_branch) branch = total;
        else if (!branch.defined()) branch = total.to(at::kBFloat16);
        return {total, branch, at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

} // namespace

// x float32 [.., n] + branch, float32 or bfloat16 of the same shape, both on the CPU. `out` takes the sum, its copy in bfloat16 and its sigma [..],
// which is not differentiable; null where not wanted. Returns 0 if it worked.
extern "C" int lnfree_residual(const at::Tensor *x, const at::Tensor *branch, bool copy, bool observe, double eps, at::Tensor **out) {
    return guarded([&] {
        const auto found = Residual::apply(*x, *branch, copy, observe, eps);
        size_t i = 0;
        out[0] = new at::Tensor(found[i++]);
        out[1] = copy ? new at::Tensor(found[i++]) : nullptr;
        out[2] = observe ? new at::Tensor(found[i++]) : nullptr;
    });
}
