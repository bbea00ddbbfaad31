// Watches a thread, and the backwards that it starts, for what makes the host wait for a device: numbers read
// back, and shapes that depend on numbers. On a CPU, where nothing is copied, operations count by their names
// and arguments, so that the path of a GPU can be tested without one.
#include "result.hpp"

#include <ATen/record_function.h>

#include <cstring>
#include <mutex>
#include <vector>

namespace {

// Operations that read numbers wherever these are.
constexpr const char *READERS[] = {"aten::_local_scalar_dense", "aten::is_nonzero",  "aten::nonzero",          "aten::equal",
                                   "aten::allclose",            "aten::masked_select", "aten::repeat_interleave", "aten::bincount",
                                   "aten::_unique2",            "aten::unique_dim",  "aten::unique_consecutive"};
// On a CPU its kernel reads the number of the step; on a GPU it does not.
constexpr const char *ADAMW = "aten::_fused_adamw_";

std::mutex mutex;
std::vector<std::string> seen;
// Operations in progress whose own calls do not count.
thread_local int within = 0;
thread_local at::CallbackHandle handle = at::INVALID_CALLBACK_HANDLE;

struct Within : at::ObserverContext {};

bool is_cpu(const c10::IValue &device) { return device.isDevice() && device.toDevice().is_cpu(); }

// Whether tensor `from` goes to the host: from a device, or, where all is on a CPU, by a call that names
// nothing but that.
bool reads_back(const at::Tensor &from, bool to_cpu, bool names_nothing_else) {
    return to_cpu && (!from.is_cpu() || names_nothing_else);
}

bool reads(const at::RecordFunction &call) {
    const char *name = call.name();
    for (const char *reader : READERS) {
        if (std::strcmp(name, reader) == 0) return true;
    }
    const auto inputs = call.inputs();
    if (inputs.size() < 4 || !inputs[0].isTensor()) return false;
    const at::Tensor self = inputs[0].toTensor();
    if (std::strcmp(name, "aten::to") == 0) {
        const char *overload = call.overload_name();
        if (std::strcmp(overload, "device") == 0) return reads_back(self, is_cpu(inputs[1]), false);
        if (std::strcmp(overload, "dtype_layout") == 0) return reads_back(self, is_cpu(inputs[3]), inputs[1].isNone());
    }
    return false;
}

// A copy from a device, or to one that the host waits for.
bool copies_and_waits(const at::RecordFunction &call) {
    if (std::strcmp(call.name(), "aten::copy_") != 0) return false;
    const auto inputs = call.inputs();
    if (inputs.size() < 3 || !inputs[0].isTensor() || !inputs[1].isTensor()) return false;
    const bool from = !inputs[1].toTensor().is_cpu(), to = !inputs[0].toTensor().is_cpu();
    return from != to && (from || !inputs[2].toBool());
}

std::unique_ptr<at::ObserverContext> begins(const at::RecordFunction &call) {
    if (within > 0) return nullptr;
    const bool counts = reads(call) || copies_and_waits(call);
    if (!counts && std::strcmp(call.name(), ADAMW) != 0) return nullptr;
    if (counts) {
        const std::lock_guard<std::mutex> lock(mutex);
        seen.emplace_back(call.name());
    }
    within++;
    return std::make_unique<Within>();
}

void ends(const at::RecordFunction &, at::ObserverContext *context) {
    if (context != nullptr) within--;
}

} // namespace

// Begins to watch this thread, or ends it. One thread at a time. Returns 0 if it worked.
extern "C" int lnfree_watch_reads(bool on) {
    return lnfree::guarded([&] {
        if (handle != at::INVALID_CALLBACK_HANDLE) at::removeCallback(handle);
        handle = at::INVALID_CALLBACK_HANDLE;
        if (!on) return;
        {
            const std::lock_guard<std::mutex> lock(mutex);
            seen.clear();
        }
        handle = at::addThreadLocalCallback(
            at::RecordFunctionCallback(begins, ends).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
    });
}

// How often the host had to wait since the watch began.
extern "C" int64_t lnfree_reads_seen() {
    const std::lock_guard<std::mutex> lock(mutex);
    return static_cast<int64_t>(seen.size());
}

// The operation that made it wait the i-th time; valid until the next watch begins.
extern "C" const char *lnfree_read_seen(int64_t i) {
    const std::lock_guard<std::mutex> lock(mutex);
    return i >= 0 && i < static_cast<int64_t>(seen.size()) ? seen[static_cast<size_t>(i)].c_str() : "";
}
