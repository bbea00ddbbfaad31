// Processes that work on one thing together: libtorch's process group for CPUs, which is Gloo's, and the
// store that they meet at.
#ifdef __linux__
#include "result.hpp"

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Group {
    c10::intrusive_ptr<c10d::Store> store;
    c10::intrusive_ptr<c10d::Backend> backend;
};

Group &group_of(void *group) { return *static_cast<Group *>(group); }

using Sum = c10::intrusive_ptr<c10d::Work>;

} // namespace

// The store of `size` processes at host:port. `listener` is the socket that this one serves it at, bound and
// listening, -1 where it is another's. `prefix` keeps what is told there apart from earlier tries. Null if it
// failed.
extern "C" void *lnfree_meet(const char *host, int port, int listener, int size, const char *prefix, int64_t timeout_ms) {
    Group *group = nullptr;
    lnfree::guarded([&] {
        const std::chrono::milliseconds timeout(timeout_ms);
        c10d::TCPStoreOptions options;
        options.port = static_cast<std::uint16_t>(port);
        options.isServer = listener >= 0;
        if (listener >= 0) options.masterListenFd = listener;
        options.numWorkers = static_cast<std::size_t>(size);
        options.waitWorkers = false;
        options.timeout = timeout;
        c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(host, options);
        store = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
        group = new Group{store, {}};
    });
    return group;
}

// Makes the process `rank` of `size`, all of which have met: an operation that one of them does not take part
// in fails after the timeout. Returns 0 if it worked.
extern "C" int lnfree_form_group(void *group, int rank, int size, int64_t timeout_ms) {
    return lnfree::guarded([&] {
        auto options = c10d::ProcessGroupGloo::Options::create_default(std::chrono::milliseconds(timeout_ms));
        auto &store = group_of(group).store;
        group_of(group).backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
    });
}

// Leaves a group.
extern "C" void lnfree_leave_group(void *group) {
    lnfree::guarded([&] { delete static_cast<Group *>(group); });
}

// Tells all that meet there `value` under `key`. Returns 0 if it worked.
extern "C" int lnfree_group_tell(void *group, const char *key, const char *value) {
    return lnfree::guarded([&] {
        const std::string text(value);
        group_of(group).store->set(key, std::vector<uint8_t>(text.begin(), text.end()));
    });
}

// What was told under `key`, once it is there, in at most `capacity` bytes with the zero; its length, or -1.
extern "C" int64_t lnfree_group_hear(void *group, const char *key, int64_t timeout_ms, char *into, int64_t capacity) {
    int64_t length = -1;
    lnfree::guarded([&] {
        auto &store = *group_of(group).store;
        // Its own waiting tells every timeout on stderr.
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
        while (!store.check({key})) {
            TORCH_CHECK(std::chrono::steady_clock::now() < end, "nobody has told ", key);
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        const auto bytes = store.get(key);
        const auto kept = std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(capacity) - 1);
        std::copy_n(bytes.begin(), kept, into);
        into[kept] = 0;
        length = static_cast<int64_t>(kept);
    });
    return length;
}

// Begins to add up a tensor over all processes, in place; it goes on beside what the caller does until
// lnfree_end_sum, which frees what this returns. Null if it could not begin.
extern "C" void *lnfree_begin_sum(void *group, const at::Tensor *x) {
    Sum *sum = nullptr;
    lnfree::guarded([&] {
        std::vector<at::Tensor> tensors{x->detach()};
        sum = new Sum(group_of(group).backend->allreduce(tensors));
    });
    return sum;
}

// Waits until a sum is there. Returns 0 if it worked.
extern "C" int lnfree_end_sum(void *sum) {
    auto *work = static_cast<Sum *>(sum);
    const int code = lnfree::guarded([&] { (*work)->wait(); });
    delete work;
    return code;
}
#endif
