// A block of a GPU's threads on threads of the CPU, so that rows.cu can be tried without a GPU.
#pragma once
#include <math.h>
#include <pthread.h>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#define __device__
#define __global__
// One block runs at a time.
#define __shared__ static

struct Index {
    unsigned x = 0;
};
inline int min(int a, int b) { return a < b ? a : b; }

inline thread_local Index threadIdx, blockIdx, blockDim;
inline pthread_barrier_t *barrier;

inline void __syncthreads() { pthread_barrier_wait(barrier); }

inline float __uint_as_float(unsigned x) {
    float y;
    std::memcpy(&y, &x, 4);
    return y;
}
inline float __int_as_float(int x) { return __uint_as_float(static_cast<unsigned>(x)); }
inline unsigned __float_as_uint(float x) {
    unsigned y;
    std::memcpy(&y, &x, 4);
    return y;
}

// All threads of a block come here together, not those of a warp alone.
template <typename T> T __shfl_sync(unsigned, T x, int lane) {
    static T all[1024];
    all[threadIdx.x] = x;
    __syncthreads();
    const T found = all[threadIdx.x / 32 * 32 + static_cast<unsigned>(lane)];
    __syncthreads();
    return found;
}

// Runs `kernel` as blocks of threads.
inline void launch(int blocks, int threads, const std::function<void()> &kernel) {
    pthread_barrier_t all;
    pthread_barrier_init(&all, nullptr, static_cast<unsigned>(threads));
    barrier = &all;
    std::vector<std::thread> running;
    for (int i = 0; i < threads; i++) {
        running.emplace_back([=] {
            threadIdx.x = static_cast<unsigned>(i);
            blockDim.x = static_cast<unsigned>(threads);
            for (int block = 0; block < blocks; block++) {
                blockIdx.x = static_cast<unsigned>(block);
                kernel();
                __syncthreads();
            }
        });
    }
    for (auto &thread : running) thread.join();
    pthread_barrier_destroy(&all);
}
