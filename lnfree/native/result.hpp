// No exception leaves the functions that Rust calls: it would end the program.
#pragma once
#include <ATen/core/Tensor.h>

#include <exception>
#include <string>

namespace lnfree {

// What went wrong last on this thread.
inline std::string &last_error() {
    thread_local std::string text;
    return text;
}

// Runs work; 0 if nothing was thrown, else 1 with the message kept.
template <typename F> int guarded(F &&work) {
    try {
        work();
        return 0;
    } catch (const std::exception &error) {
        last_error() = error.what();
    } catch (...) {
        last_error() = "an unknown failure";
    }
    return 1;
}

// A tensor for Rust, which frees it; null if something was thrown.
template <typename F> at::Tensor *guarded_tensor(F &&work) {
    at::Tensor *out = nullptr;
    guarded([&] { out = new at::Tensor(work()); });
    return out;
}

} // namespace lnfree
