#include "matmul.hpp"

#include "dispatch.hpp"
#include "loops.hpp"
#include "parallel.hpp"
#include "result.hpp"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <c10/core/GradMode.h>

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>

namespace lnfree {
namespace {

// Products of fewer operations are not worth oneDNN's set-up.
constexpr int64_t SMALLEST = 1 << 20;

// result = beta * result + alpha * a b in oneDNN. libtorch has it for its own bfloat16 products and declares
// it in no public header, so it is looked up when the program runs; null where this libtorch has none.
using Matmul = void(const at::Tensor &a, const at::Tensor &b, const at::Tensor &result, float beta, float alpha);

Matmul *onednn_matmul() {
    static auto *const found = reinterpret_cast<Matmul *>(dlsym(RTLD_DEFAULT, "_ZN2at6native13mkldnn_matmulERKNS_6TensorES3_S3_ff"));
    return found;
}

// What was measured on this machine, see src/device/products.rs.
std::atomic<bool> onednn_chosen{false}, bfloat16_chosen{false};

bool by_onednn(const at::Tensor &a, int64_t m, int64_t k, int64_t n) {
    const bool known = a.scalar_type() == at::kFloat || a.scalar_type() == at::kBFloat16;
    return onednn_chosen && known && for_cpu_kernels(a) && m > 1 && m * k * n >= SMALLEST && onednn_matmul();
}

// oneDNN may refuse a product, and does where memory is short, before it has written anything: then libtorch
// does it, or says what is wrong.
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

// libtorch would first make a float32 copy of `from`.
void add_to(at::Tensor into, const at::Tensor &from) {
    const bool widens = into.scalar_type() == at::kFloat && from.scalar_type() == at::kBFloat16 && for_cpu_kernels(into);
    if (!widens || !into.is_contiguous() || !from.is_contiguous()) {
        into.add_(from);
        return;
    }
    auto *to = into.data_ptr<float>();
    const auto *source = static_cast<const uint16_t *>(from.const_data_ptr());
    constexpr int64_t BLOCK = 1 << 15;
    const LoopTable &table = loops();
    const int64_t n = into.numel();
    parallel((n + BLOCK - 1) / BLOCK, [&](int64_t begin, int64_t end) {
        table.add(to + begin * BLOCK, source + begin * BLOCK, std::min(n, end * BLOCK) - begin * BLOCK);
    });
}

} // namespace

bool bfloat16_pays() { return bfloat16_chosen || kernels() == Kernels::Bf16; }

at::Tensor affine(const at::Tensor &x, const at::Tensor &weight, const std::optional<at::Tensor> &bias) {
    at::Tensor y;
    // Some columns of a wider matrix are not a layout that oneDNN has fast code for here: it would take a
    // thousand times as long.
    const bool dense = weight.is_contiguous() || weight.t().is_contiguous();
    const auto fast = [&] { y = onednn_affine().call(x, (dense ? weight : weight.contiguous()).t(), bias, "none", c10::List<std::optional<at::Scalar>>(), ""); };
    if (by_onednn(x, x.size(0), x.size(1), weight.size(1)) && worked(fast)) return y;
    return bias.has_value() ? at::addmm(*bias, x, weight) : at::mm(x, weight);
}

at::Tensor product(const at::Tensor &a, const at::Tensor &b) {
    if (!by_onednn(a, a.size(0), a.size(1), b.size(1))) return at::mm(a, b);
    at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
    if (!worked([&] { onednn_matmul()(a, b, out, 0.0f, 1.0f); })) at::mm_out(out, a, b);
    return out;
}

void add_product(at::Tensor into, const at::Tensor &a, const at::Tensor &b) {
    const int64_t m = into.size(0);
    if (into.scalar_type() != a.scalar_type()) {
        add_to(into, product(a, b).narrow(0, 0, m));
        return;
    }
    const at::Tensor rows = a.narrow(0, 0, m);
    const auto fast = [&] { onednn_matmul()(rows, b, into, 1.0f, 1.0f); };
    if (!by_onednn(rows, m, rows.size(1), b.size(1)) || !worked(fast)) into.addmm_(rows, b);
}

} // namespace lnfree

extern "C" at::Tensor *lnfree_product(const at::Tensor *a, const at::Tensor *b) {
    return lnfree::guarded_tensor([&] { return lnfree::product(*a, *b); });
}

extern "C" int lnfree_add_product(at::Tensor *into, const at::Tensor *a, const at::Tensor *b) {
    return lnfree::guarded([&] { lnfree::add_product(*into, *a, *b); });
}

// Seconds that float32 products of m x k by k x n matrices take by libtorch's own choice, by oneDNN (infinite
// where it cannot be called), and in bfloat16 by the faster of both: the best of several, in turn. Returns 0
// if it worked.
extern "C" int lnfree_time_products(int64_t m, int64_t k, int64_t n, double *seconds) {
    return lnfree::guarded([&] {
        const c10::AutoGradMode off(false);
        const at::Tensor a = at::ones({m, k}), b = at::ones({k, n}), low_a = a.to(at::kBFloat16), low_b = b.to(at::kBFloat16);
        at::Tensor out = at::empty({m, n}), low_out = at::empty({m, n}, low_a.options());
        const auto time = [](double &best, const auto &work) {
            const auto begin = std::chrono::steady_clock::now();
            if (lnfree::worked(work)) best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
        };
        std::fill(seconds, seconds + 3, std::numeric_limits<double>::infinity());
        auto *onednn = lnfree::onednn_matmul();
        for (int round = 0; round < 4; round++) {
            time(seconds[0], [&] { at::mm_out(out, a, b); });
            time(seconds[2], [&] { at::mm_out(low_out, low_a, low_b); });
            if (!onednn) continue;
            time(seconds[1], [&] { onednn(a, b, out, 0.0f, 1.0f); });
            time(seconds[2], [&] { onednn(low_a, low_b, low_out, 0.0f, 1.0f); });
        }
    });
}

// Which library multiplies on the CPU, and whether bfloat16 is multiplied faster than float32.
extern "C" void lnfree_choose_products(bool onednn, bool bfloat16) {
    lnfree::onednn_chosen = onednn;
    lnfree::bfloat16_chosen = bfloat16;
}
