// All loops for one instruction set; build.rs compiles this file once for each. Nothing here may call or
// define a function that other files could call: the linker would be free to take the one for the newer
// processor. So: no headers of libtorch, no templates of std, all of it inline.
#include "attention.hpp"
#include "fake_norm.hpp"
#include "fold.hpp"
#include "gelu.hpp"
#include "logits.hpp"
#include "multiply.hpp"
#include "sigma.hpp"

namespace lnfree::LNFREE_LEVEL {

extern const LoopTable TABLE;

template <typename T> constexpr TypedLoops<T> typed() {
    return {
        gelu<T>,
        gelu_backward<T>,
        logits_to_gradient<T>,
        distilled_gradient<T>,
        add_logits<T>,
        fake_norm<T>,
        fake_norm_backward<T>,
        add_rows<T, float>,
        add_rows<T, uint16_t>,
        meet_rows<T>,
        fold<T, float>,
        fold<T, uint16_t>,
        unfold<T>,
        exponentials<T>,
        gradients,
        inner_products<T>,
        write_rows<T>,
    };
}

const LoopTable TABLE = {
    typed<float>(), typed<uint16_t>(), add,         widen,         sigma,           sigma_backward,
    raise_tops,     finish_tops,       finish_totals, transpose_words, pack_pairs, multiply,
};

} // namespace lnfree::LNFREE_LEVEL
