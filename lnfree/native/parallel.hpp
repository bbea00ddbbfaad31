// Work on libtorch's own threads. Threads of ours would share the cores with these, which spin for a while after every operation.
#pragma once
#include <cstdint>
#include <functional>

// Several instruction sets for one function; the one that runs is chosen when the program is loaded.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define CLONES
#endif

namespace lnfree {

// Calls work(begin, end) for parts of 0..n.
void parallel(int64_t n, const std::function<void(int64_t, int64_t)> &work);

} // namespace lnfree
