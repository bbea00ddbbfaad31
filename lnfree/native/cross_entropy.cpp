// Cross-entropy of logits and its gradient, which takes the logits' place: libtorch's operations would write
// and read tensors of that size some five times.
#include "loops.hpp"
#include "parallel.hpp"
#include "result.hpp"

using namespace lnfree;

// The first n columns of logits, float32 or bfloat16, contiguous on the CPU, become the gradient of
// coefficient * sum of losses; `losses` float32 [n_rows] are written. A negative target counts for nothing:
// its row becomes zeros, or NaN where its probabilities are. Targets are below n.
extern "C" int lnfree_logits_to_gradient(at::Tensor *logits, int64_t n, const at::Tensor *targets, float coefficient, at::Tensor *losses) {
    return guarded([&] {
        const int64_t stride = logits->size(1);
        const int64_t *ids = targets->const_data_ptr<int64_t>();
        float *out = losses->data_ptr<float>();
        const bool wide = logits->scalar_type() == at::kFloat;
        void *first = logits->data_ptr();
        const LoopTable &table = loops();
        parallel(logits->size(0), [&](int64_t begin, int64_t end) {
            const auto rows = [&](auto *logits, const auto &of) {
                of.logits_to_gradient(logits + begin * stride, stride, end - begin, n, ids + begin, coefficient, out + begin);
            };
            if (wide) rows(static_cast<float *>(first), table.float32);
            else rows(static_cast<uint16_t *>(first), table.bfloat16);
        });
    });
}
