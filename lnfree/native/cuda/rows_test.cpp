// Tries rows.cu on the CPU against plain formulas in float64: every kind of row, alignment, padding, and
// numbers that are not finite.
#include "emulated.hpp"
#include "rows.cu"
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>

namespace {

constexpr double INF = std::numeric_limits<double>::infinity();
int failures = 0, comparisons = 0;

// Whether x is y within a share of `size`; what is no number has to be none.
void compare(const char *what, int row, double x, double y, double tolerance, double size = 1) {
    comparisons++;
    const bool same = std::isnan(y) ? std::isnan(x) : (std::isinf(y) ? x == y : std::fabs(x - y) <= tolerance * std::fmax(size, std::fabs(y)));
    if (same) return;
    if (failures++ < 20) std::printf("FAILED: %s, row %d: %.9g instead of %.9g\n", what, row, x, y);
}

float wide(float x) { return x; }
float wide(unsigned short x) { return number(x); }

template <typename T> T narrow(float x) {
    T y;
    put(y, x);
    return y;
}

struct Plain {
    std::vector<double> p;
    double log_total = 0, entropy = 0, confidence = 0;
    int best = 0;
};

Plain plain(const std::vector<double> &row) {
    double top = -INF, total = 0, weighted = 0;
    Plain out;
    for (size_t i = 0; i < row.size(); i++) {
        if (row[i] > top) top = row[i], out.best = static_cast<int>(i);
    }
    for (double x : row) total += std::exp(x - top);
    for (double x : row) weighted += (x - top) * std::exp(x - top);
    for (double x : row) out.p.push_back(std::exp(x - top) / total);
    out.log_total = std::log(total) + top;
    out.entropy = std::log(total) - weighted / total;
    out.confidence = 1 / total;
    return out;
}

template <typename T> void logits(int n, int stride, int rows, int threads, int seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    std::normal_distribution<float> normal;
    // One more in front: rows that are aligned nowhere.
    std::vector<T> memory(static_cast<size_t>(rows * stride + 1));
    T *first = memory.data() + 1;
    std::vector<long long> targets;
    std::vector<float> weights, losses(static_cast<size_t>(rows), -1), stats(static_cast<size_t>(4 * rows), -1);
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < stride; i++) first[r * stride + i] = narrow<T>(i < n ? normal(random) * 5 : 77);
        targets.push_back(r % 5 == 2 ? -100 : static_cast<long long>(random() % static_cast<unsigned>(n)));
        weights.push_back(r % 5 == 2 ? 0 : 0.25f);
    }
    const auto set = [&](int row, int i, double x) { first[row * stride + i % n] = narrow<T>(static_cast<float>(x)); };
    const double large = std::numeric_limits<float>::max() * 0.9;
    if (rows > 11) {
        set(5, n / 2, NAN);
        set(6, n - 1, INF);
        set(8, 0, -INF);
        set(9, n / 3, large);
        // Two that are equal and the largest, as is a target that is certain.
        set(10, n / 4, 40), set(10, n / 4 + 1, 40);
        set(11, static_cast<int>(targets[11]), 60);
    }
    std::vector<T> before(first, first + rows * stride);
    launch(rows, threads, [&] { token_stats(first, n, stride, targets.data(), stats.data()); });
    launch(rows, threads, [&] { logits_to_gradient(first, n, stride, targets.data(), weights.data(), losses.data()); });
    const double unit = sizeof(T) == 4 ? 2e-6 : 5e-3;
    for (int r = 0; r < rows; r++) {
        std::vector<double> row;
        for (int i = 0; i < n; i++) row.push_back(wide(before[r * stride + i]));
        const Plain right = plain(row);
        const long long target = targets[r];
        const double loss = target < 0 ? NAN : right.log_total - row[target];
        compare("loss", r, losses[r], target < 0 ? 0 : loss, 3e-6);
        compare("loss of stats", r, stats[4 * r], loss, 3e-6);
        compare("entropy", r, stats[4 * r + 1], right.entropy, 3e-6);
        // Where there is no distribution, nobody reads these.
        if (std::isfinite(right.log_total)) {
            compare("confidence", r, stats[4 * r + 2], right.confidence, 3e-6, 0);
            compare("correct", r, stats[4 * r + 3], right.best == target, 0);
        }
        for (int i = 0; i < stride; i++) {
            const double p = i < n ? (right.p[i] - (i == target)) * weights[r] : 0;
            compare("gradient", r, wide(first[r * stride + i]), p, unit, i == target ? weights[r] : 1e-6);
        }
    }
    if (wide(memory[0]) != 0) failures++, std::printf("FAILED: written before the first row\n");
}

template <typename T> void sums(int n, int rows) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    const int all = n * rows;
    std::vector<Four<float>> x(all / 4), sum(all / 4);
    std::vector<Four<T>> branch(all / 4);
    std::vector<Four<unsigned short>> low(all / 4);
    std::vector<float> sigma(rows, -1);
    for (int i = 0; i < all; i++) {
        x[i / 4].x[i % 4] = normal(random) + 3;
        branch[i / 4].x[i % 4] = narrow<T>(normal(random));
    }
    const auto *from = reinterpret_cast<const float *>(x.data());
    const auto *more = reinterpret_cast<const T *>(branch.data());
    auto *to = reinterpret_cast<float *>(sum.data());
    auto *rounded = reinterpret_cast<unsigned short *>(low.data());
    const auto check = [&](const char *what) {
        for (int i = 0; i < all; i++) {
            const float right = from[i] + wide(more[i]);
            compare(what, i / n, to[i], right, 0);
            compare(what, i / n, wide(rounded[i]), wide(narrow<unsigned short>(right)), 0);
            to[i] = -1, rounded[i] = 0;
        }
    };
    launch(rows, (n / 4 + 31) / 32 * 32, [&] { add_rows(from, more, n, 0.5f, to, rounded, sigma.data()); });
    for (int r = 0; r < rows; r++) {
        double mean = 0, squares = 0;
        for (int i = 0; i < n; i++) mean += static_cast<double>(to[r * n + i]) / n;
        for (int i = 0; i < n; i++) squares += (to[r * n + i] - mean) * (to[r * n + i] - mean);
        compare("sigma", r, sigma[r], std::sqrt(squares / n + 0.5), 2e-6);
    }
    check("sum");
    launch(rows, (n / 4 + 31) / 32 * 32, [&] { add_rows(from, more, n, 0.5f, to, rounded, static_cast<float *>(nullptr)); });
    check("sum without sigma");
    launch((all / 4 + 63) / 64, 64, [&] { meet_rows(from, more, static_cast<long long>(all), to, rounded); });
    check("meeting");
}

void rounding() {
    for (double x : {0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3.4e38, 1e-40, INF, -INF, static_cast<double>(NAN)}) {
        const double y = number(bfloat16(static_cast<float>(x)));
        compare("bfloat16", 0, y, x > 3.39e38 ? INF : x, 4e-3, 1e-38);
    }
    // Halfway between two: to the even one.
    compare("tie", 0, number(bfloat16(1.00390625f)), 1.0, 0);
    compare("tie", 1, number(bfloat16(1.01171875f)), 1.015625, 0);
}

} // namespace

int main() {
    rounding();
    int seed = 0;
    for (int n : {1, 7, 8, 9, 31, 1003}) {
        for (int padding : {0, 1, 21}) {
            logits<float>(n, n + padding, 12, 64, seed);
            logits<unsigned short>(n, n + padding, 12, 64, seed++);
        }
    }
    logits<float>(5003, 5056, 12, 32, 99);
    for (int n : {4, 128, 260}) sums<float>(n, 9), sums<unsigned short>(n, 9);
    std::printf("%d of %d comparisons failed\n", failures, comparisons);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
