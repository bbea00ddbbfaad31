// What attention does with tiles of scores, and how tiles are laid out.
#pragma once
#include "../loops.hpp"
#include "lanes.hpp"

namespace lnfree::LNFREE_LEVEL {
namespace {

static_assert(LANES == STEP, "a register of keys");

// Keys of a tile that query r sees, in a register that begins with key c: those before it, where the tile is
// on the diagonal.
INLINE Ints seen(int64_t r, int64_t c, bool diagonal) {
    const int32_t last = diagonal ? static_cast<int32_t>(r - c) : static_cast<int32_t>(LANES);
    return places() <= last;
}

// A NaN is passed over here; it shows in the exponentials.
void raise_tops(const float *scores, bool diagonal, Queries &queries) {
    for (int64_t r = 0; r < TILE; r++) {
        Floats top = load(queries.top + r * LANES);
        for (int64_t c = 0; c < TILE; c += LANES) {
            const Floats x = load(scores + r * TILE + c);
            top = larger(seen(r, c, diagonal) ? x : top, top);
        }
        store(queries.top + r * LANES, top);
    }
}

void finish_tops(const Queries &queries, float scale, float *top) {
    for (int64_t r = 0; r < TILE; r++) top[r] = scale * largest(load(queries.top + r * LANES));
}

void finish_totals(const Queries &queries, float *total) {
    for (int64_t r = 0; r < TILE; r++) total[r] = sum(load(queries.total + r * LANES));
}

// Scores become p = e^(scale * score - top), and are added up.
template <typename T> void exponentials(const float *scores, const float *top, float scale, bool diagonal, Queries &queries, T *p) {
    for (int64_t r = 0; r < TILE; r++) {
        Floats total = load(queries.total + r * LANES);
        for (int64_t c = 0; c < TILE; c += LANES) {
            const Floats x = load(scores + r * TILE + c) * scale - top[r];
            const Floats e = seen(r, c, diagonal) ? exp_in_range(at_least(LOWEST, x)) : Floats{};
            total += e;
            store(p + r * TILE + c, e);
        }
        store(queries.total + r * LANES, total);
    }
}

// A tile of keys by queries made again: p = e^(scale * score - lse) and ds = p (dp - inner), where dp is the
// gradient of p and `inner` the product of a query's output with its gradient. What a query does not see is
// zero, whatever its gradient.
INLINE void again(const float *scores, const float *dp, int64_t r, int64_t c, const float *lse, const float *inner, float scale, bool diagonal,
                  Floats &p, Floats &ds) {
    const Floats x = load(scores + r * TILE + c) * scale - load(lse + c);
    const Floats e = exp_in_range(at_most(-LOWEST, at_least(LOWEST, x)));
    const Ints by = places() >= (diagonal ? static_cast<int32_t>(r - c) : 0);
    p = by ? e : Floats{};
    ds = by ? e * (load(dp + r * TILE + c) - load(inner + c)) : Floats{};
}

const float *gradients(const float *scores, const float *dp, const float *lse, const float *inner, float scale, bool diagonal, float *p,
                       float *ds, float *) {
    for (int64_t i = 0; i < TILE * TILE; i += LANES) {
        Floats x, y;
        again(scores, dp, i / TILE, i % TILE, lse, inner, scale, diagonal, x, y);
        store(p + i, x);
        store(ds + i, y);
    }
    return ds;
}

const uint16_t *gradients(const float *scores, const float *dp, const float *lse, const float *inner, float scale, bool diagonal, uint16_t *p,
                          uint16_t *ds, uint16_t *packed) {
    for (int64_t r = 0; r < TILE; r += 2) {
        for (int64_t c = 0; c < TILE; c += LANES) {
            Words pair{};
            for (int64_t k = 0; k < 2; k++) {
                Floats x, y;
                again(scores, dp, r + k, c, lse, inner, scale, diagonal, x, y);
                store(p + (r + k) * TILE + c, x);
                store(ds + (r + k) * TILE + c, y);
                pair |= rounded(y) << (16 * static_cast<uint32_t>(k));
            }
            std::memcpy(packed + r * TILE + 2 * c, &pair, sizeof pair);
        }
    }
    return packed;
}

// Row by row products of a and b.
template <typename T> void inner_products(Rows<T> a, Rows<T> b, float *to) {
    for (int64_t r = 0; r < a.count; r++) {
        Floats products{};
        for (int64_t c = 0; c < a.d; c += LANES) products += load(a.first + r * a.stride + c) * load(b.first + r * b.stride + c);
        to[r] = sum(products);
    }
}

// To [TILE, d], row by row.
void widen(Rows<uint16_t> x, float *to) {
    for (int64_t r = 0; r < TILE; r++) {
        for (int64_t c = 0; c < x.d; c += LANES) store(to + r * x.d + c, r < x.count ? load(x.first + r * x.stride + c) : Floats{});
    }
}

// The first rows of x [TILE, d] times a factor each to rows `stride` apart.
template <typename T> void write_rows(const float *x, const float *factors, int64_t count, int64_t d, T *to, int64_t stride) {
    for (int64_t r = 0; r < count; r++) {
        for (int64_t c = 0; c < d; c += LANES) store(to + r * stride + c, load(x + r * d + c) * factors[r]);
    }
}

#if defined(__clang__) || __GNUC__ >= 12
#define LNFREE_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LNFREE_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

// Places 0 to 15 of a and 16 to 31 of b, by a formula of the place k.
#define LNFREE_PLACES(f)                                                                                                                     \
    f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)

// Exchanges row i's second half of every 2s numbers with the first half of row i + s.
template <int s> INLINE void exchange(Words &a, Words &b) {
#define LNFREE_FIRST(k) ((k) & s ? 16 + (k) - s : (k))
#define LNFREE_SECOND(k) ((k) & s ? 16 + (k) : (k) + s)
    const Words first = LNFREE_SHUFFLE(a, b, LNFREE_PLACES(LNFREE_FIRST));
    b = LNFREE_SHUFFLE(a, b, LNFREE_PLACES(LNFREE_SECOND));
    a = first;
#undef LNFREE_FIRST
#undef LNFREE_SECOND
}

template <int s> INLINE void exchange_all(Words *rows) {
    for (int i = 0; i < LANES; i++) {
        if ((i & s) == 0) exchange<s>(rows[i], rows[i + s]);
    }
}

void transpose_words(const uint32_t *from, int64_t stride, int64_t count, int64_t padded, int64_t width, uint32_t *to) {
    for (int64_t r = 0; r < padded; r += LANES) {
        int64_t c = 0;
        for (; c + LANES <= width; c += LANES) {
            Words rows[LANES];
            for (int64_t i = 0; i < LANES; i++) {
                rows[i] = Words{};
                if (r + i < count) std::memcpy(&rows[i], from + (r + i) * stride + c, sizeof rows[i]);
            }
            exchange_all<1>(rows);
            exchange_all<2>(rows);
            exchange_all<4>(rows);
            exchange_all<8>(rows);
            for (int64_t i = 0; i < LANES; i++) std::memcpy(to + (c + i) * padded + r, &rows[i], sizeof rows[i]);
        }
        for (; c < width; c++) {
            for (int64_t i = r; i < r + LANES; i++) to[c * padded + i] = i < count ? from[i * stride + c] : 0;
        }
    }
}

void pack_pairs(Rows<uint16_t> x, uint16_t *to) {
    for (int64_t r = 0; r < TILE; r += 2) {
        for (int64_t c = 0; c < x.d; c += LANES) {
            Shorts rows[2]{};
            for (int64_t i = 0; i < 2; i++) {
                if (r + i < x.count) std::memcpy(&rows[i], x.first + (r + i) * x.stride + c, sizeof rows[i]);
            }
            const Words pairs = __builtin_convertvector(rows[0], Words) | __builtin_convertvector(rows[1], Words) << 16;
            std::memcpy(to + r * x.d + 2 * c, &pairs, sizeof pairs);
        }
    }
}

} // namespace
} // namespace lnfree::LNFREE_LEVEL
