// Kernels for NVIDIA GPUs, a block of threads for a row. NVRTC compiles them where they run, so this file
// includes nothing. Sums are in float32; bfloat16 comes and goes as its 16 bits.

constexpr float LOWEST = -3.402823466e38f, LOG2_E = 1.44269504088896341f;
constexpr int WARP = 32;

// 16 bytes of T, read and written at once.
template <typename T> struct alignas(16) Wide {
    static constexpr int N = 16 / sizeof(T);
    T x[N];
};

__device__ float number(float x) { return x; }
__device__ float number(unsigned short x) { return __uint_as_float(static_cast<unsigned>(x) << 16); }

// To the nearest, ties to even; NaN stays NaN.
__device__ unsigned short bfloat16(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<unsigned short>((bits >> 16) | 0x40u);
    return static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
__device__ void put(float &to, float x) { to = x; }
__device__ void put(unsigned short &to, float x) { to = bfloat16(x); }

// e^x; products of differences keep their digits better in base 2 than logits would.
__device__ float power(float x) { return exp2f(x * LOG2_E); }

// Calls single(i) for the elements of a row before and after what is aligned, and wide(i) for the first of
// each 16 aligned bytes.
template <typename T, typename F, typename G> __device__ void over_row(const T *row, int n, F single, G wide) {
    const int across = static_cast<int>(reinterpret_cast<unsigned long long>(row) % 16 / sizeof(T));
    const int before = min(n, across == 0 ? 0 : Wide<T>::N - across);
    const int middle = (n - before) / Wide<T>::N * Wide<T>::N, after = before + middle;
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    if (thread < before) single(thread);
    for (int i = before + thread * Wide<T>::N; i < after; i += threads * Wide<T>::N) wide(i);
    if (after + thread < n) single(after + thread);
}

// What the threads of a block have, put together by `both` in an order that is always the same; every thread
// gets it.
template <typename S, typename F> __device__ S of_block(S mine, F both) {
    __shared__ S by_warp[WARP];
    const int lane = static_cast<int>(threadIdx.x) % WARP, warp = static_cast<int>(threadIdx.x) / WARP;
    const int warps = static_cast<int>(blockDim.x) / WARP;
    for (int step = WARP / 2; step > 0; step /= 2) mine = both(mine, mine.from_lane(lane ^ step));
    // Whoever still reads what was there before.
    __syncthreads();
    if (lane == 0) by_warp[warp] = mine;
    __syncthreads();
    S all = by_warp[0];
    for (int i = 1; i < warps; i++) all = both(all, by_warp[i]);
    return all;
}

__device__ float lane_of(float x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
__device__ int lane_of(int x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }

// The largest logit so far and the sum of e^(x - top). NaN and infinity are never the largest, but make the
// sum NaN.
struct Sums {
    float top = LOWEST, total = 0;

    __device__ Sums from_lane(int lane) const { return {lane_of(top, lane), lane_of(total, lane)}; }
    __device__ void raise(float x) {
        if (x > top) {
            total *= power(top - x);
            top = x;
        }
    }
    __device__ void add(float x) { total += power(x - top); }
    __device__ static Sums both(const Sums &a, const Sums &b) {
        const float top = fmaxf(a.top, b.top);
        return {top, a.total * power(a.top - top) + b.total * power(b.top - top)};
    }
};

template <typename T> __device__ Sums sums_of(const T *row, int n) {
    Sums sums;
    over_row(
        row, n,
        [&](int i) {
            const float x = number(row[i]);
            sums.raise(x);
            sums.add(x);
        },
        [&](int i) {
            const auto some = *reinterpret_cast<const Wide<T> *>(row + i);
            float top = number(some.x[0]);
            for (int j = 1; j < Wide<T>::N; j++) top = fmaxf(top, number(some.x[j]));
            sums.raise(top);
            for (int j = 0; j < Wide<T>::N; j++) sums.add(number(some.x[j]));
        });
    return of_block(sums, Sums::both);
}

// The first n of each `stride` logits become weight * (p - onehot(target)), the others zeros; `losses` takes
// the cross-entropy. A negative target counts for nothing.
template <typename T>
__device__ void logits_to_gradient(T *logits, int n, long long stride, const long long *targets, const float *weights, float *losses) {
    const long long at = blockIdx.x;
    T *row = logits + at * stride;
    const long long target = targets[at];
    const bool counts = target >= 0 && target < n;
    const float weight = weights[at], of_target = counts ? number(row[target]) : 0;
    const Sums sums = sums_of(row, n);
    const float top = sums.top, scale = weight / sums.total;
    const auto gradient = [&](float x) { return power(x - top) * scale; };
    over_row(
        row, static_cast<int>(stride), [&](int i) { put(row[i], i < n ? gradient(number(row[i])) : 0.0f); },
        [&](int i) {
            auto some = *reinterpret_cast<const Wide<T> *>(row + i);
            for (int j = 0; j < Wide<T>::N; j++) put(some.x[j], i + j < n ? gradient(number(some.x[j])) : 0.0f);
            *reinterpret_cast<Wide<T> *>(row + i) = some;
        });
    __syncthreads();
    if (threadIdx.x != 0) return;
    // p - 1 before it is rounded to T.
    if (counts) put(row[target], (power(of_target - top) / sums.total - 1.0f) * weight);
    losses[at] = counts ? logf(sums.total) - (of_target - top) : 0.0f;
}

// Besides Sums, the sum of (x - top) e^(x - top), and which logit is the largest, the first of equal ones.
struct Distribution {
    float top = LOWEST, total = 0, weighted = 0;
    int best = 0x7fffffff;

    __device__ Distribution from_lane(int lane) const {
        return {lane_of(top, lane), lane_of(total, lane), lane_of(weighted, lane), lane_of(best, lane)};
    }
    // `weighted` below a top that is larger by -by, where factor is e^by. Without a logit yet, by may be
    // infinite.
    __device__ float moved(float by, float factor) const {
        const float more = total > 0 ? by * factor * total : 0.0f;
        return weighted * factor + more;
    }
    __device__ void add(float x, int i) {
        if (x > top) {
            const float factor = power(top - x);
            weighted = moved(top - x, factor);
            total *= factor;
            top = x;
            best = i;
        }
        const float below = x - top, p = power(below);
        total += p;
        weighted += below * p;
    }
    __device__ static Distribution both(const Distribution &a, const Distribution &b) {
        const float top = fmaxf(a.top, b.top), fa = power(a.top - top), fb = power(b.top - top);
        const float weighted = a.moved(a.top - top, fa) + b.moved(b.top - top, fb);
        const bool first = a.top > b.top || (a.top == b.top && a.best < b.best);
        return {top, a.total * fa + b.total * fb, weighted, first ? a.best : b.best};
    }
};

// Cross-entropy of the target, entropy, the largest probability, and whether the target has it (1 or 0), of
// the first n of each `stride` logits.
template <typename T> __device__ void token_stats(const T *logits, int n, long long stride, const long long *targets, float *stats) {
    const long long at = blockIdx.x;
    const T *row = logits + at * stride;
    Distribution mine;
    over_row(
        row, n, [&](int i) { mine.add(number(row[i]), i); },
        [&](int i) {
            const auto some = *reinterpret_cast<const Wide<T> *>(row + i);
            for (int j = 0; j < Wide<T>::N; j++) mine.add(number(some.x[j]), i + j);
        });
    const Distribution all = of_block(mine, Distribution::both);
    if (threadIdx.x != 0) return;
    const long long target = targets[at];
    const bool known = target >= 0 && target < n;
    const float log_total = logf(all.total), not_a_number = __int_as_float(0x7fc00000);
    float *to = stats + 4 * at;
    to[0] = known ? log_total - (number(row[target]) - all.top) : not_a_number;
    to[1] = log_total - all.weighted / all.total;
    to[2] = 1.0f / all.total;
    to[3] = all.best == target ? 1.0f : 0.0f;
}

struct Number {
    float x;
    __device__ Number from_lane(int lane) const { return {lane_of(x, lane)}; }
};

__device__ float sum_of_block(float x) {
    return of_block(Number{x}, [](const Number &a, const Number &b) { return Number{a.x + b.x}; }).x;
}

template <typename T> struct alignas(4 * sizeof(T)) Four {
    T x[4];
};

// x + branch, rows of n, a multiple of 4, one thread for 4 numbers; `low` takes the sum in bfloat16 and
// `sigma` sqrt(var + eps), where these are not null.
template <typename T>
__device__ void add_rows(const float *x, const T *branch, int n, float eps, float *sum, unsigned short *low, float *sigma) {
    const long long first = static_cast<long long>(blockIdx.x) * n + threadIdx.x * 4;
    const bool mine = static_cast<int>(threadIdx.x) * 4 < n;
    Four<float> total = {};
    if (mine) {
        const auto a = *reinterpret_cast<const Four<float> *>(x + first);
        const auto b = *reinterpret_cast<const Four<T> *>(branch + first);
        Four<unsigned short> rounded;
        for (int i = 0; i < 4; i++) rounded.x[i] = bfloat16(total.x[i] = a.x[i] + number(b.x[i]));
        *reinterpret_cast<Four<float> *>(sum + first) = total;
        if (low) *reinterpret_cast<Four<unsigned short> *>(low + first) = rounded;
    }
    if (!sigma) return;
    const float mean = sum_of_block(total.x[0] + total.x[1] + total.x[2] + total.x[3]) / n;
    float squares = 0;
    if (mine) {
        for (int i = 0; i < 4; i++) squares += (total.x[i] - mean) * (total.x[i] - mean);
    }
    squares = sum_of_block(squares);
    if (threadIdx.x == 0) sigma[blockIdx.x] = sqrtf(squares / n + eps);
}

// onto + arrived, in float32 and, where `low` is not null, in bfloat16; one thread for 4 of n numbers.
template <typename T>
__device__ void meet_rows(const float *onto, const T *arrived, long long n, float *total, unsigned short *low) {
    const long long first = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    if (first >= n) return;
    auto sum = *reinterpret_cast<const Four<float> *>(onto + first);
    const auto more = *reinterpret_cast<const Four<T> *>(arrived + first);
    Four<unsigned short> rounded;
    for (int i = 0; i < 4; i++) rounded.x[i] = bfloat16(sum.x[i] += number(more.x[i]));
    *reinterpret_cast<Four<float> *>(total + first) = sum;
    if (low) *reinterpret_cast<Four<unsigned short> *>(low + first) = rounded;
}

#define LNFREE_KERNELS(T, NAME)                                                                                                                 \
    extern "C" __global__ void logits_to_gradient_##NAME(T *logits, int n, long long stride, const long long *targets, const float *weights,   \
                                                         float *losses) {                                                                      \
        logits_to_gradient(logits, n, stride, targets, weights, losses);                                                                       \
    }                                                                                                                                          \
    extern "C" __global__ void token_stats_##NAME(const T *logits, int n, long long stride, const long long *targets, float *stats) {          \
        token_stats(logits, n, stride, targets, stats);                                                                                        \
    }                                                                                                                                          \
    extern "C" __global__ void add_rows_##NAME(const float *x, const T *branch, int n, float eps, float *sum, unsigned short *low,             \
                                               float *sigma) {                                                                                 \
        add_rows(x, branch, n, eps, sum, low, sigma);                                                                                          \
    }                                                                                                                                          \
    extern "C" __global__ void meet_rows_##NAME(const float *onto, const T *arrived, long long n, float *total, unsigned short *low) {         \
        meet_rows(onto, arrived, n, total, low);                                                                                               \
    }

LNFREE_KERNELS(float, float32)
LNFREE_KERNELS(unsigned short, bfloat16)
