#include "matmul.hpp"

#include "dispatch.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cstring>

// result = beta * result + alpha * a b in oneDNN; libtorch has it for its own bfloat16 products and declares it in no public header.
namespace at::native {
TORCH_API void mkldnn_matmul(const Tensor &a, const Tensor &b, const Tensor &result, float beta, float alpha);
}

namespace lnfree {
namespace {

// Products of fewer operations are not worth oneDNN's set-up.
constexpr int64_t SMALLEST = 1 << 20;

// libtorch gives float32 products to MKL, which on an AMD EPYC with AVX-512 reaches half of what oneDNN does, which is in libtorch too. Decided by the processor alone, so that results do not change from run to run.
bool onednn_is_faster() {
#if defined(__x86_64__) && defined(__GNUC__)
    static const bool faster = __builtin_cpu_supports("avx512f") && !__builtin_cpu_is("intel");
    return faster;
#else
    return false;
#endif
}

bool by_onednn(const at::Tensor &a, int64_t m, int64_t k, int64_t n) {
    const bool known = a.scalar_type() == at::kFloat || a.scalar_type() == at::kBFloat16;
    return onednn_is_faster() && known && for_cpu_kernels(a) && m > 1 && m * k * n >= SMALLEST;
}

// oneDNN may refuse a product, and does where memory is short, before it has written anything: then libtorch does it, or says what is wrong.
template <typename F> bool worked(F &&work) {
    try {
        work();
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

using Affine = at::Tensor(const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &, std::string_view,
                          c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

// oneDNN's product adds the bias while it has the result in registers.
const auto &onednn_affine() {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                               .typed<Affine>();
    return op;
}

CLONES void add_bfloat16(float *into, const uint16_t *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
        float x;
        std::memcpy(&x, &bits, sizeof x);
        into[i] += x;
    }
}

// libtorch would first make a float32 copy of `from`.
void add(at::Tensor into, const at::Tensor &from) {
    const bool widens = into.scalar_type() == at::kFloat && from.scalar_type() == at::kBFloat16 && for_cpu_kernels(into);
    if (!widens || !into.is_contiguous() || !from.is_contiguous()) {
        into.add_(from);
        return;
    }
    auto *to = into.data_ptr<float>();
    const auto *source = static_cast<const uint16_t *>(from.const_data_ptr());
    constexpr int64_t BLOCK = 1 << 15;
    const int64_t n = into.numel();
    parallel((n + BLOCK - 1) / BLOCK, [&](int64_t begin, int64_t end) {
        add_bfloat16(to + begin * BLOCK, source + begin * BLOCK, std::min(n, end * BLOCK) - begin * BLOCK);
    });
}

} // namespace

at::Tensor affine(const at::Tensor &x, const at::Tensor &weight, const std::optional<at::Tensor> &bias) {
    at::Tensor y;
    // Some columns of a wider matrix are not a layout that oneDNN has fast code for here: it would take a thousand times as long.
    const bool dense = weight.is_contiguous() || weight.t().is_contiguous();
    const auto fast = [&] { y = onednn_affine().call(x, (dense ? weight : weight.contiguous()).t(), bias, "none", c10::List<std::optional<at::Scalar>>(), ""); };
    if (by_onednn(x, x.size(0), x.size(1), weight.size(1)) && worked(fast)) return y;
    return bias.has_value() ? at::addmm(*bias, x, weight) : at::mm(x, weight);
}

at::Tensor product(const at::Tensor &a, const at::Tensor &b) {
    if (!by_onednn(a, a.size(0), a.size(1), b.size(1))) return at::mm(a, b);
    at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
    if (!worked([&] { at::native::mkldnn_matmul(a, b, out, 0.0f, 1.0f); })) at::mm_out(out, a, b);
    return out;
}

void add_product(at::Tensor into, const at::Tensor &a, const at::Tensor &b) {
    const int64_t m = into.size(0);
    if (into.scalar_type() != a.scalar_type()) {
        add(into, product(a, b).narrow(0, 0, m));
        return;
    }
    const at::Tensor rows = a.narrow(0, 0, m);
    const auto fast = [&] { at::native::mkldnn_matmul(rows, b, into, 1.0f, 1.0f); };
    if (!by_onednn(rows, m, rows.size(1), b.size(1)) || !worked(fast)) into.addmm_(rows, b);
}

} // namespace lnfree

extern "C" at::Tensor *lnfree_product(const at::Tensor *a, const at::Tensor *b) {
    return lnfree::guarded_tensor([&] { return lnfree::product(*a, *b); });
}

extern "C" int lnfree_add_product(at::Tensor *into, const at::Tensor *a, const at::Tensor *b) {
    return lnfree::guarded([&] { lnfree::add_product(*into, *a, *b); });
}
