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

// The same of weight * temperature^2 * KL(teacher || row) + (1 - weight) * cross-entropy; `losses` float32
// [n_rows, 2]. The teacher's logits are of the same type, their rows dense.
extern "C" int lnfree_distilled_gradient(at::Tensor *logits, const at::Tensor *teacher, int64_t n, const at::Tensor *targets, double weight,
                                         double temperature, float coefficient, at::Tensor *losses) {
    return guarded([&] {
        const int64_t stride = logits->size(1), teacher_stride = teacher->stride(0);
        const int64_t *ids = targets->const_data_ptr<int64_t>();
        float *out = losses->data_ptr<float>();
        const bool wide = logits->scalar_type() == at::kFloat;
        void *first = logits->data_ptr();
        const void *taught = teacher->const_data_ptr();
        const Mixture mixture{static_cast<float>(1.0 - weight), static_cast<float>(weight * temperature), static_cast<float>(1.0 / temperature)};
        const LoopTable &table = loops();
        parallel(logits->size(0), [&](int64_t begin, int64_t end) {
            const auto rows = [&](auto *logits, const auto *teacher, const auto &of) {
                of.distilled_gradient(logits + begin * stride, stride, teacher + begin * teacher_stride, teacher_stride, end - begin, n,
                                      ids + begin, mixture, coefficient, out + 2 * begin);
            };
            if (wide) rows(static_cast<float *>(first), static_cast<const float *>(taught), table.float32);
            else rows(static_cast<uint16_t *>(first), static_cast<const uint16_t *>(taught), table.bfloat16);
        });
    });
}
