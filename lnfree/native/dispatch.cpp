#include "dispatch.hpp"

#include <cstdlib>
#include <cstring>

namespace lnfree {
namespace {

constexpr const char *NAMES[] = {"plain", "baseline", "avx2", "avx512", "bf16", "auto"};

// The only place that reads the variable; -1 for a word that is no level.
int from_environment() {
    const char *word = std::getenv("LNFREE_KERNELS");
    if (word == nullptr || *word == '\0') return static_cast<int>(Kernels::Auto);
    for (int i = 0; i <= static_cast<int>(Kernels::Auto); i++) {
        if (std::strcmp(word, NAMES[i]) == 0) return i;
    }
    return -1;
}

int of_the_process() {
    static const int level = from_environment();
    return level;
}

// What this thread was told instead; -1 for nothing. Backwards on a CPU run on the thread that asks for them.
thread_local int of_this_thread = -1;

} // namespace

Kernels kernels() {
    const int level = of_this_thread >= 0 ? of_this_thread : of_the_process();
    return level >= 0 ? static_cast<Kernels>(level) : Kernels::Auto;
}

} // namespace lnfree

// The level in force on this thread; -1 where the variable has a word that is none.
extern "C" int lnfree_kernels() {
    return lnfree::of_this_thread >= 0 ? lnfree::of_this_thread : lnfree::of_the_process();
}

// Sets the level of this thread, -1 for that of the process; returns what it was set to before.
extern "C" int lnfree_set_kernels(int level) {
    const int before = lnfree::of_this_thread;
    lnfree::of_this_thread = level;
    return before;
}
