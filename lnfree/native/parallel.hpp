// Work on libtorch's own threads. Threads of ours would share the cores with these, which spin for a while after every operation.
#pragma once
#include <cstdint>
#include <functional>

// Several instruction sets for one function; the one that runs is chosen when the program is loaded. Whole levels of the architecture: AVX-512
// alone would be used with half of its width and without fused multiplication and addition.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define CLONES
#endif

// What a function with clones is made of: out of line it would be compiled for the plainest instruction set.
#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif

namespace lnfree {

// Calls work(begin, end) for parts of 0..n.
void parallel(int64_t n, const std::function<void(int64_t, int64_t)> &work);

} // namespace lnfree
