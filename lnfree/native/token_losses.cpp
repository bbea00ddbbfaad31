// Loss, entropy and confidence of tokens, from logits that come a block of the vocabulary at a time and are
// read while they are in the cache. libtorch's operations would each read and write all logits again, which
// on a CPU costs as much as a seventh of the forward.
#include "loops.hpp"
#include "parallel.hpp"
#include "result.hpp"

using namespace lnfree;

// Adds logits [n, tokens], float32 or bfloat16 on the CPU, rows of neighbours, of the tokens from `first` on
// to the sums of n positions, which begin as {top -inf, best -1, rest 0}. A NaN among the logits ends up in
// `total`. Returns 0 if it worked.
extern "C" int lnfree_add_logits(const at::Tensor *logits, int64_t first, const int64_t *targets, TokenSums *sums) {
    return guarded([&] {
        const int64_t n_cols = logits->size(1), stride = logits->stride(0);
        const void *numbers = logits->const_data_ptr();
        const bool wide = logits->scalar_type() == at::kFloat;
        const LoopTable &table = loops();
        parallel(logits->size(0), [&](int64_t begin, int64_t end) {
            const auto rows = [&](const auto *x, const auto &of) {
                of.add_logits(x + begin * stride, end - begin, n_cols, stride, first, targets + begin, sums + begin);
            };
            if (wide) rows(static_cast<const float *>(numbers), table.float32);
            else rows(static_cast<const uint16_t *>(numbers), table.bfloat16);
        });
    });
}
