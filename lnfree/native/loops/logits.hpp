// Cross-entropy of rows of logits: with its gradient in the logits' place, or with what an evaluation wants
// to know.
//
// A NaN or infinity in a row shows in its sum of exponentials, and from there everywhere that it does in the
// formula.
#pragma once
#include "../loops.hpp"
#include "lanes.hpp"

namespace lnfree::LNFREE_LEVEL {
namespace {

// e^((x - top) cold), cold being one over a temperature.
INLINE Floats exponential(Floats x, float top, float cold = 1.0f) { return exp_in_range(at_least(LOWEST, (x - top) * cold)); }

// Sum of these.
template <typename T> INLINE double total_of(const T *row, int64_t n, float top, float cold = 1.0f) {
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = least(n, begin + BLOCK);
        Floats first{}, second{};
        int64_t i = begin;
        for (; i + 2 * LANES <= end; i += 2 * LANES) {
            first += exponential(load(row + i), top, cold);
            second += exponential(load(row + i + LANES), top, cold);
        }
        total += sum(first) + sum(second);
        for (; i < end; i += LANES) total += sum(exponential(load_some(row + i, least(LANES, end - i), NONE), top, cold));
    }
    return total;
}

// The first n of each row of logits become the gradient of coefficient * sum of losses. A negative target
// counts for nothing: its row becomes zeros, or NaN where its probabilities are.
template <typename T>
void logits_to_gradient(T *logits, int64_t stride, int64_t n_rows, int64_t n, const int64_t *targets, float coefficient, float *losses) {
    for (int64_t r = 0; r < n_rows; r++) {
        T *row = logits + r * stride;
        const bool counts = targets[r] >= 0;
        const float top = largest(row, n), target = counts ? to_float(row[targets[r]]) : 0.0f;
        const double total = total_of(row, n, top);
        const float scale = (counts ? coefficient : 0.0f) / static_cast<float>(total);
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) store(row + i, scale * exponential(load(row + i), top));
        if (i < n) store_some(row + i, scale * exponential(load_some(row + i, n - i, top), top), n - i);
        losses[r] = 0.0f;
        if (!counts) continue;
        const float p = __builtin_expf(target - top) / static_cast<float>(total);
        store(row + targets[r], coefficient * (p - 1.0f));
        losses[r] = static_cast<float>(__builtin_log(total) - (static_cast<double>(target) - top));
    }
}

// Sum of e^u (u - v), u = (teacher - best) cold and v = (x - top) cold.
template <typename T> INLINE double distances_of(const T *row, float top, const T *teacher, float best, int64_t n, float cold) {
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = least(n, begin + BLOCK);
        Floats sums{};
        for (int64_t i = begin; i < end; i += LANES) {
            const bool whole = i + LANES <= end;
            const Floats u = at_least(LOWEST, ((whole ? load(teacher + i) : load_some(teacher + i, end - i, NONE)) - best) * cold);
            const Floats v = ((whole ? load(row + i) : load_some(row + i, end - i, top)) - top) * cold;
            // Where there is no token the exponential is nearly nothing, and so is what it weighs.
            sums += exp_in_range(u) * (u - v);
        }
        total += sum(sums);
    }
    return total;
}

// The first n of each row of logits become the gradient of coefficient * sum of
// of_targets * cross-entropy + of_teacher / cold * KL(teacher || row), the KL of softmax(cold * logits).
// Cross-entropy and KL of each row are written. Negative targets as above.
template <typename T>
void distilled_gradient(T *logits, int64_t stride, const T *teacher, int64_t teacher_stride, int64_t n_rows, int64_t n, const int64_t *targets,
                        Mixture mixture, float coefficient, float *losses) {
    const float cold = mixture.cold;
    for (int64_t r = 0; r < n_rows; r++) {
        T *row = logits + r * stride;
        const T *taught = teacher + r * teacher_stride;
        const bool counts = targets[r] >= 0;
        const float top = largest(row, n), best = largest(taught, n);
        const float target = counts ? to_float(row[targets[r]]) : 0.0f;
        const double total = total_of(row, n, top);
        const double softened = cold == 1.0f ? total : total_of(row, n, top, cold);
        const double of_taught = total_of(taught, n, best, cold);
        const double distances = distances_of(row, top, taught, best, n, cold);
        const float scale = counts ? coefficient : 0.0f;
        const float hard = scale * mixture.of_targets / static_cast<float>(total);
        const float soft = scale * mixture.of_teacher / static_cast<float>(softened);
        const float right = scale * mixture.of_teacher / static_cast<float>(of_taught);
        for (int64_t i = 0; i < n; i += LANES) {
            const bool whole = i + LANES <= n;
            const Floats x = whole ? load(row + i) : load_some(row + i, n - i, top);
            const Floats t = whole ? load(taught + i) : load_some(taught + i, n - i, best);
            Floats gradient = soft * exponential(x, top, cold) - right * exponential(t, best, cold);
            if (mixture.of_targets != 0.0f) gradient += hard * exponential(x, top);
            if (whole) store(row + i, gradient);
            else store_some(row + i, gradient, n - i);
        }
        losses[2 * r] = losses[2 * r + 1] = 0.0f;
        if (!counts) continue;
        // 1 is taken from the probability itself.
        const float p = __builtin_expf(target - top) / static_cast<float>(total);
        const float softened_p = __builtin_expf((target - top) * cold) / static_cast<float>(softened);
        const float q = __builtin_expf((to_float(taught[targets[r]]) - best) * cold) / static_cast<float>(of_taught);
        store(row + targets[r], scale * (mixture.of_targets * (p - 1.0f) + mixture.of_teacher * (softened_p - q)));
        losses[2 * r] = static_cast<float>(__builtin_log(total) - (static_cast<double>(target) - top));
        losses[2 * r + 1] = static_cast<float>(distances / of_taught - __builtin_log(of_taught) + __builtin_log(softened));
    }
}

// Sums of e^(x-top) and of (x-top) e^(x-top).
template <typename T> INLINE void row_sums(const T *row, int64_t n, float top, double &total, double &weighted) {
    total = weighted = 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = least(n, begin + BLOCK);
        Floats sums{}, products{};
        for (int64_t i = begin; i < end; i += LANES) {
            const bool whole = i + LANES <= end;
            const Floats x = at_least(LOWEST, (whole ? load(row + i) : load_some(row + i, end - i, NONE)) - top);
            const Floats e = exp_in_range(x);
            sums += e;
            products += x * e;
        }
        total += sum(sums);
        weighted += sum(products);
    }
}

// The first place of `value`, or of a NaN if that is wanted; n without any.
template <typename T> INLINE int64_t first_of(const T *row, int64_t n, float value, bool nan) {
    int64_t at = 0;
    while (at < n && !(nan ? to_float(row[at]) != to_float(row[at]) : to_float(row[at]) == value)) at++;
    return at;
}

// Adds logits [n_rows, n_cols] of the tokens from `first` on to the sums of as many positions.
template <typename T>
void add_logits(const T *logits, int64_t n_rows, int64_t n_cols, int64_t stride, int64_t first, const int64_t *targets, TokenSums *sums) {
    for (int64_t r = 0; r < n_rows; r++) {
        const T *row = logits + r * stride;
        TokenSums &found = sums[r];
        const int64_t target = targets[r] - first;
        if (target >= 0 && target < n_cols) found.target = to_float(row[target]);
        // A NaN was there: it is the most likely token, as in argmax, and nothing is known of the others.
        if (found.top != found.top) continue;
        const float top = largest(row, n_cols);
        if (!(top <= found.top)) {
            // What was added so far becomes relative to the new largest logit.
            const double below = static_cast<double>(found.top) - top;
            const double scale = found.total != 0.0 ? __builtin_exp(below) : 0.0;
            found.weighted = found.total != 0.0 ? scale * (found.weighted + below * found.total) : 0.0;
            found.total *= scale;
            found.top = top;
            // Of equal logits the first counts as the most likely one, as in argmax; they are common in
            // bfloat16.
            found.best = first + first_of(row, n_cols, top, false);
        }
        // Logits of -infinity alone are nothing; what comes later may be more.
        double total = 0.0, weighted = 0.0;
        if (found.top != NONE) row_sums(row, n_cols, found.top, total, weighted);
        found.total += total;
        found.weighted += weighted;
        if (total == total && found.top != NONE) continue;
        const int64_t at = first_of(row, n_cols, 0.0f, true);
        if (at == n_cols) continue;
        found.best = first + at;
        found.total = found.top = __builtin_nanf("");
    }
}

} // namespace
} // namespace lnfree::LNFREE_LEVEL
