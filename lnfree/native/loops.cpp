#include "loops.hpp"

#include "dispatch.hpp"

namespace lnfree {

namespace baseline { extern const LoopTable TABLE; }
#ifdef LNFREE_X86_LEVELS
namespace avx2 { extern const LoopTable TABLE; }
namespace avx512 { extern const LoopTable TABLE; }
#endif

Kernels best_kernels() {
#ifdef LNFREE_X86_LEVELS
    static const Kernels best = [] {
        __builtin_cpu_init();
        const auto has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
        const auto has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        if (has_avx512) return __builtin_cpu_supports("avx512bf16") ? Kernels::Bf16 : Kernels::Avx512;
        return has_avx2 ? Kernels::Avx2 : Kernels::Baseline;
    }();
    return best;
#else
    return Kernels::Baseline;
#endif
}

Kernels usable_kernels() {
    const Kernels wish = kernels(), best = best_kernels();
    return wish < best ? wish : best;
}

const LoopTable &loops() {
#ifdef LNFREE_X86_LEVELS
    if (usable_kernels() >= Kernels::Avx512) return avx512::TABLE;
    if (usable_kernels() == Kernels::Avx2) return avx2::TABLE;
#endif
    return baseline::TABLE;
}

} // namespace lnfree

// The most that this processor has.
extern "C" int lnfree_best_kernels() { return static_cast<int>(lnfree::best_kernels()); }
