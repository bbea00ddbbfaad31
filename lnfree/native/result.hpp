// No exception leaves the functions that Rust calls: it would end the program.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

namespace lnfree {

// What went wrong last on a thread.
struct Failure {
    std::string text;
    // Whether it was lack of memory, by the exception's type: a device's or a CPU's allocator has one for
    // each.
    bool memory = false;
};

inline Failure &last_failure() {
    thread_local Failure failure;
    return failure;
}

// Runs work; 0 if nothing was thrown, else 1 with the failure kept.
template <typename F> int guarded(F &&work) {
    try {
        work();
        return 0;
    } catch (const c10::OutOfMemoryError &error) {
        last_failure() = {error.what_without_backtrace(), true};
    } catch (const std::bad_alloc &error) {
        last_failure() = {error.what(), true};
    } catch (const c10::Error &error) {
        last_failure() = {error.what_without_backtrace(), false};
    } catch (const std::exception &error) {
        last_failure() = {error.what(), false};
    } catch (...) {
        last_failure() = {"an unknown failure", false};
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
