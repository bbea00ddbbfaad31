// What a branch adds to the residual stream, with what the next reader needs of the sum while it is in the
// cache: its fake LN, or its numbers in bfloat16, and its sigma. Likewise backwards: the gradients of both
// meet in one pass.
#include "fake_norm.hpp"
#include "gpu.hpp"
#include "result.hpp"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

using namespace lnfree;

namespace {

// Chooses the element type of an untyped pointer, and the loops over it.
template <typename F> void typed(const at::Tensor &like, const void *data, F &&work) {
    if (is_float32(like)) work(static_cast<const float *>(data), loops().float32);
    else work(static_cast<const uint16_t *>(data), loops().bfloat16);
}

// On a GPU: a thread for 4 numbers of a row.
constexpr int64_t GPU_LONGEST = 4 * 1024;

// What a GPU reads 16 bytes at a time.
at::Tensor aligned(const at::Tensor &x) {
    const at::Tensor dense = x.contiguous();
    return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0 ? dense : dense.clone();
}

void add_on_gpu(const at::Tensor &x, const at::Tensor &branch, double eps, const at::Tensor &sum, const at::Tensor &low, const at::Tensor &sigma) {
    const int64_t n = x.size(-1);
    TORCH_CHECK(n % 4 == 0 && n <= GPU_LONGEST, "rows of ", n);
    const int threads = static_cast<int>((n / 4 + 31) / 32 * 32);
    start_with(GpuKernel::AddRows, branch, x.numel() / n, threads, x.data_ptr(), branch.data_ptr(), static_cast<int>(n), static_cast<float>(eps),
               sum.data_ptr(), low.defined() ? low.data_ptr() : nullptr, sigma.defined() ? sigma.data_ptr() : nullptr);
}

void meet_on_gpu(const at::Tensor &onto, const at::Tensor &arrived, const at::Tensor &total, const at::Tensor &low) {
    constexpr int THREADS = 256;
    const int64_t n = onto.numel();
    start_with(GpuKernel::MeetRows, arrived, (n / 4 + THREADS - 1) / THREADS, THREADS, onto.data_ptr(), arrived.data_ptr(), static_cast<long long>(n),
               total.data_ptr(), low.defined() ? low.data_ptr() : nullptr);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Residual : torch::autograd::Function<Residual> {
    static constexpr int INPUTS = 8;

    // The sum, then what the next reader reads and the sum's sigma, if these are wanted.
    static variable_list forward(AutogradContext *context, const at::Tensor &input, const at::Tensor &added, std::optional<at::Tensor> weight,
                                 std::optional<at::Tensor> bias, std::optional<at::Tensor> std, bool bfloat16, bool observe, double eps) {
        const bool on_gpu = input.is_cuda();
        const at::Tensor x = on_gpu ? aligned(input) : input.contiguous(), branch = on_gpu ? aligned(added) : added.contiguous();
        const int64_t n = x.size(-1);
        const bool normed = weight.has_value();
        at::Tensor sum = at::empty_like(x), read, sigma, w, b;
        Norm norm;
        if (normed) {
            w = wide(*weight);
            b = wide(*bias);
            norm = {w.const_data_ptr<float>(), b.const_data_ptr<float>(), divisor(*std).inverse(0)};
        }
        variable_list out{sum};
        if (normed || bfloat16) out.push_back(read = at::empty(x.sizes(), x.options().dtype(bfloat16 ? at::kBFloat16 : at::kFloat)));
        if (observe) {
            out.push_back(sigma = at::empty(x.sizes().slice(0, x.dim() - 1), x.options()));
            context->mark_non_differentiable({sigma});
        }
        context->set_materialize_grads(false);
        if (normed) context->save_for_backward({sum, *weight, *std});
        context->saved_data["reads"] = read.defined();
        context->saved_data["low branch"] = !is_float32(branch);
        if (on_gpu) {
            TORCH_CHECK(!normed, "a fake LN of a sum is computed on a CPU alone");
            add_on_gpu(x, branch, eps, sum, read, sigma);
            return out;
        }
        float *seen = observe ? sigma.data_ptr<float>() : nullptr;
        void *to = read.defined() ? read.data_ptr() : nullptr;
        const float *from = x.const_data_ptr<float>();
        typed(branch, branch.const_data_ptr(), [&](auto *more, const auto &of) {
            parallel(x.numel() / n, [&](int64_t begin, int64_t end) {
                float *total = sum.data_ptr<float>();
                const auto e = static_cast<float>(eps);
                if (bfloat16) of.add_rows_low(from, more, begin, end, n, norm, e, Outputs<uint16_t>{total, static_cast<uint16_t *>(to), seen});
                else of.add_rows(from, more, begin, end, n, norm, e, Outputs<float>{total, static_cast<float *>(to), seen});
            });
        });
        return out;
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const bool low_branch = context->saved_data["low branch"].toBool();
        const at::Tensor read = context->saved_data["reads"].toBool() ? grads[1] : at::Tensor();
        variable_list out(INPUTS);
        if (!read.defined()) {
            if (grads[0].defined()) out[1] = grads[0].to(low_branch ? at::kBFloat16 : at::kFloat);
            out[0] = grads[0];
            return out;
        }
        const bool on_gpu = read.is_cuda();
        const at::Tensor arrived = on_gpu ? aligned(read) : read.contiguous();
        const at::Tensor more = grads[0].defined() ? (on_gpu ? aligned(grads[0]) : grads[0].contiguous()) : at::zeros(read.sizes(), read.options().dtype(at::kFloat));
        const int64_t n = more.size(-1);
        out[0] = at::empty_like(more);
        out[1] = low_branch ? at::empty(more.sizes(), more.options().dtype(at::kBFloat16)) : out[0];
        if (on_gpu) {
            meet_on_gpu(more, arrived, out[0], low_branch ? out[1] : at::Tensor());
            return out;
        }
        const at::Tensor w = saved.empty() ? at::Tensor() : wide(saved[1]);
        Norm norm;
        if (w.defined()) norm = {w.const_data_ptr<float>(), nullptr, divisor(saved[2]).inverse(0)};
        const float *x = w.defined() ? saved[0].const_data_ptr<float>() : more.const_data_ptr<float>(), *onto = more.const_data_ptr<float>();
        float *total = out[0].data_ptr<float>();
        auto *low = low_branch ? static_cast<uint16_t *>(out[1].data_ptr()) : nullptr;
        const RowSums sums(more.numel() / n, n, more.options());
        typed(arrived, arrived.const_data_ptr(), [&](auto *from, const auto &of) {
            sums.by_parts([&](int64_t begin, int64_t end, float *part) { of.meet_rows(x, onto, from, begin, end, n, norm, total, low, part); });
        });
        if (w.defined()) {
            const at::Tensor found = sums.total(saved[1].scalar_type());
            out[2] = found.select(0, 0);
            out[3] = found.select(0, 1);
        }
        return out;
    }
};

std::optional<at::Tensor> or_none(const at::Tensor *x) { return x ? std::optional(*x) : std::nullopt; }

} // namespace

// x float32 [.., n] + branch, float32 or bfloat16 of the same shape, both on the CPU, or on a GPU that has
// our kernels, where n is a multiple of 4 and at most 4096. `weight`, `bias` [n] and `std` float32, one
// number, are the fake LN that reads the sum, or null. `out` takes the sum, what is read of it (its fake LN,
// or itself in bfloat16) and its sigma [..], which is not differentiable; null where not wanted. Returns 0 if
// it worked.
extern "C" int lnfree_residual(const at::Tensor *x, const at::Tensor *branch, const at::Tensor *weight, const at::Tensor *bias,
                               const at::Tensor *std, bool bfloat16, bool observe, double eps, at::Tensor **out) {
    return guarded([&] {
        const auto found = Residual::apply(*x, *branch, or_none(weight), or_none(bias), or_none(std), bfloat16, observe, eps);
        size_t i = 0;
        out[0] = new at::Tensor(found[i++]);
        out[1] = weight || bfloat16 ? new at::Tensor(found[i++]) : nullptr;
        out[2] = observe ? new at::Tensor(found[i++]) : nullptr;
    });
}
