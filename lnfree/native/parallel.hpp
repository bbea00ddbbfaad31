// Work on libtorch's own threads. Threads of ours would share the cores with these, which spin for a while
// after every operation.
#pragma once
#include <cstdint>
#include <functional>

namespace lnfree {

// Calls work(begin, end) for parts of 0..n.
void parallel(int64_t n, const std::function<void(int64_t, int64_t)> &work);

} // namespace lnfree
