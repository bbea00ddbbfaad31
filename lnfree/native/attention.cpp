// Causal attention, z = softmax(q k^T / sqrt(d)) v, by tiles of queries and keys, so that no [pos, pos] matrix is ever in memory; its gradients
// come from the same tiles made again, and the logarithm of each query's sum of exponentials, as in FlashAttention-2 (arXiv 2307.08691, algorithms 1 and 2).
// libtorch has the same on a CPU, but multiplies its tiles in float32 whatever the type, by a library that is slow on some processors.
#include "dispatch.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "result.hpp"
#include "tiles.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

using namespace lnfree;

namespace {

constexpr int64_t AREA = TILE * TILE;

// One head of one sequence: rows of d numbers, `stride` apart.
template <typename T> struct Head {
    T *first;
    int64_t stride;

    Rows<std::remove_const_t<T>> tile(int64_t i, int64_t pos, int64_t d) const {
        return {first + i * TILE * stride, stride, std::min(TILE, pos - i * TILE), d};
    }
};

template <typename T> Head<T> head(const at::Tensor &x, int64_t b, int64_t h) {
    auto *first = static_cast<T *>(x.data_ptr()) + b * x.stride(0) + h * x.stride(1);
    return {first, x.stride(2)};
}

// What is known of a tile of queries after some keys, by query, sixteen of its keys side by side.
struct Queries {
    Floats top[TILE], total[TILE];
};

// Keys of a tile that query r sees, in a register that begins with key c: those before it, where the tile is on the diagonal.
INLINE Ints seen(int64_t r, int64_t c, bool diagonal) {
    const int32_t last = diagonal ? static_cast<int32_t>(r - c) : LANES;
    return places() <= last;
}

INLINE void raise_top(const float *scores, bool diagonal, Queries &queries) {
    for (int64_t r = 0; r < TILE; r++) {
        Floats top = queries.top[r];
        for (int64_t c = 0; c < TILE; c += LANES) {
            const Floats x = load(scores + r * TILE + c);
            top = larger(seen(r, c, diagonal) ? x : top, top);
        }
        queries.top[r] = top;
    }
}

// Scores become p = e^(scale * score - top), and are added up.
template <typename T>
INLINE void exponentials(const float *scores, const float *top, float scale, bool diagonal, Queries &queries, T *p) {
    for (int64_t r = 0; r < TILE; r++) {
        Floats total = queries.total[r];
        for (int64_t c = 0; c < TILE; c += LANES) {
            const Floats x = load(scores + r * TILE + c) * scale - top[r];
            const Floats e = seen(r, c, diagonal) ? exp_in_range(larger(x, all(LOWEST))) : Floats{};
            total += e;
            store(p + r * TILE + c, e);
        }
        queries.total[r] = total;
    }
}

// A tile of keys by queries made again: p = e^(scale * score - lse) and ds = p (dp - inner), where dp is the gradient of p and `inner` the
// product of a query's output with its gradient.
INLINE void gradients(const float *scores, const float *dp, int64_t r, int64_t c, const float *lse, const float *inner, float scale,
                      bool diagonal, Floats &p, Floats &ds) {
    const Floats x = load(scores + r * TILE + c) * scale - load(lse + c);
    const Floats e = exp_in_range(smaller(larger(x, all(LOWEST)), all(-LOWEST)));
    const int32_t first = diagonal ? static_cast<int32_t>(r - c) : 0;
    p = places() >= first ? e : Floats{};
    ds = p * (load(dp + r * TILE + c) - load(inner + c));
}

CLONES void raise_tops(const float *scores, bool diagonal, Queries &queries) { raise_top(scores, diagonal, queries); }

CLONES void exponentials_of(const float *scores, const float *top, float scale, bool diagonal, Queries &queries, float *p) {
    exponentials(scores, top, scale, diagonal, queries, p);
}
CLONES void exponentials_of(const float *scores, const float *top, float scale, bool diagonal, Queries &queries, uint16_t *p) {
    exponentials(scores, top, scale, diagonal, queries, p);
}

// p and ds, and ds packed: returned, because where packed is no other layout it is ds.
CLONES const float *gradients_of(const float *scores, const float *dp, const float *lse, const float *inner, float scale, bool diagonal,
                                 float *p, float *ds, float *) {
    for (int64_t i = 0; i < AREA; i += LANES) {
        Floats x, y;
        gradients(scores, dp, i / TILE, i % TILE, lse, inner, scale, diagonal, x, y);
        store(p + i, x);
        store(ds + i, y);
    }
    return ds;
}
CLONES const uint16_t *gradients_of(const float *scores, const float *dp, const float *lse, const float *inner, float scale,
                                    bool diagonal, uint16_t *p, uint16_t *ds, uint16_t *packed) {
    for (int64_t r = 0; r < TILE; r += 2) {
        for (int64_t c = 0; c < TILE; c += LANES) {
            Words pair{};
            for (int64_t k = 0; k < 2; k++) {
                Floats x, y;
                gradients(scores, dp, r + k, c, lse, inner, scale, diagonal, x, y);
                store(p + (r + k) * TILE + c, x);
                store(ds + (r + k) * TILE + c, y);
                pair |= rounded(y) << (16 * static_cast<uint32_t>(k));
            }
            std::memcpy(packed + r * TILE + 2 * c, &pair, sizeof pair);
        }
    }
    return packed;
}

struct Sizes {
    int64_t batch, heads, pos, d;

    explicit Sizes(const at::Tensor &q) : batch(q.size(0)), heads(q.size(1)), pos(q.size(2)), d(q.size(3)) {}
    int64_t tiles() const { return (pos + TILE - 1) / TILE; }
    float scale() const { return 1.0f / std::sqrt(static_cast<float>(d)); }
};

template <typename T> void forward_head(Sizes size, Head<const T> q, Head<const T> k, Head<const T> v, Head<T> z, float *lse) {
    const int64_t n = size.tiles(), d = size.d, part = TILE * d;
    std::vector<T> keys(n * part), values(n * part), p(AREA), rows(part);
    std::vector<float> scores(n * AREA), out(part);
    float top[TILE], factors[TILE];
    for (int64_t j = 0; j < n; j++) {
        pack_transposed(k.tile(j, size.pos, d), keys.data() + j * part);
        pack_rows(v.tile(j, size.pos, d), values.data() + j * part);
    }
    for (int64_t i = 0; i < n; i++) {
        Queries queries;
        for (Floats &top : queries.top) top = all(NONE);
        for (Floats &total : queries.total) total = Floats{};
        const int64_t count = std::min(TILE, size.pos - i * TILE);
        copy_rows(q.tile(i, size.pos, d), rows.data());
        for (int64_t j = 0; j <= i; j++) {
            multiply(TILE, TILE, d, false, rows.data(), keys.data() + j * part, scores.data() + j * AREA);
            raise_tops(scores.data() + j * AREA, i == j, queries);
        }
        for (int64_t r = 0; r < TILE; r++) top[r] = size.scale() * largest(queries.top[r]);
        for (int64_t j = 0; j <= i; j++) {
            exponentials_of(scores.data() + j * AREA, top, size.scale(), i == j, queries, p.data());
            multiply(TILE, d, TILE, j > 0, p.data(), values.data() + j * part, out.data());
        }
        for (int64_t r = 0; r < count; r++) {
            const float total = sum(queries.total[r]);
            lse[i * TILE + r] = top[r] + std::log(total);
            factors[r] = 1.0f / total;
        }
        write_rows(out.data(), factors, count, d, z.first + i * TILE * z.stride, z.stride);
    }
}

template <typename T> struct Gradients {
    Head<T> q, k, v;
};

template <typename T>
void backward_head(Sizes size, Head<const T> q, Head<const T> k, Head<const T> v, Head<const T> z, Head<const T> dz, const float *lse,
                   Gradients<T> grads) {
    const int64_t n = size.tiles(), pos = size.pos, d = size.d, part = TILE * d;
    // Queries and gradients of outputs, as factors of what is transposed and of what is not.
    std::vector<T> q_across(n * part), q_down(n * part), dz_across(n * part), dz_down(n * part);
    std::vector<T> keys(part), values(part), keys_across(part), p(AREA), ds(AREA), packed(AREA);
    std::vector<float> scores(AREA), dp(AREA), dk(part), dv(part), dq(n * part), sums(n * TILE), inner(n * TILE), back(part);
    for (int64_t i = 0; i < n; i++) {
        const auto queries = q.tile(i, pos, d), above = dz.tile(i, pos, d), outputs = z.tile(i, pos, d);
        pack_transposed(queries, q_across.data() + i * part);
        pack_rows(queries, q_down.data() + i * part);
        pack_transposed(above, dz_across.data() + i * part);
        pack_rows(above, dz_down.data() + i * part);
        for (int64_t r = 0; r < queries.count; r++) {
            Floats products{};
            for (int64_t c = 0; c < d; c += LANES) products += load(above.first + r * above.stride + c) * load(outputs.first + r * outputs.stride + c);
            inner[i * TILE + r] = sum(products);
            sums[i * TILE + r] = lse[i * TILE + r];
        }
    }
    float factors[TILE];
    for (int64_t j = 0; j < n; j++) {
        const auto rows = k.tile(j, pos, d);
        copy_rows(rows, keys.data());
        transpose_rows(rows, keys_across.data());
        copy_rows(v.tile(j, pos, d), values.data());
        for (int64_t i = j; i < n; i++) {
            multiply(TILE, TILE, d, false, keys.data(), q_across.data() + i * part, scores.data());
            multiply(TILE, TILE, d, false, values.data(), dz_across.data() + i * part, dp.data());
            const T *packed_ds = gradients_of(scores.data(), dp.data(), sums.data() + i * TILE, inner.data() + i * TILE, size.scale(),
                                              i == j, p.data(), ds.data(), packed.data());
            multiply(TILE, d, TILE, i > j, p.data(), dz_down.data() + i * part, dv.data());
            multiply(TILE, d, TILE, i > j, ds.data(), q_down.data() + i * part, dk.data());
            multiply(d, TILE, TILE, j > 0, keys_across.data(), packed_ds, dq.data() + i * part);
        }
        std::fill(factors, factors + TILE, 1.0f);
        write_rows(dv.data(), factors, rows.count, d, grads.v.first + j * TILE * grads.v.stride, grads.v.stride);
        std::fill(factors, factors + TILE, size.scale());
        write_rows(dk.data(), factors, rows.count, d, grads.k.first + j * TILE * grads.k.stride, grads.k.stride);
    }
    for (int64_t i = 0; i < n; i++) {
        transpose(dq.data() + i * part, d, TILE, back.data());
        const int64_t count = std::min(TILE, pos - i * TILE);
        write_rows(back.data(), factors, count, d, grads.q.first + i * TILE * grads.q.stride, grads.q.stride);
    }
}

// Calls work(sequence, head) for all of them.
template <typename F> void by_head(Sizes size, F &&work) {
    parallel(size.batch * size.heads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) work(i / size.heads, i % size.heads);
    });
}

// Two bfloat16 of a row are read as one word.
at::Tensor dense(const at::Tensor &x) { return x.stride(3) == 1 && x.stride(2) % 2 == 0 ? x : x.contiguous(); }

// [batch, head, pos, d] in memory as [batch, pos, head, d], so that heads are side by side for what reads them next.
at::Tensor heads_aside(Sizes size, const at::TensorOptions &options) {
    return at::empty({size.batch, size.pos, size.heads, size.d}, options).transpose(1, 2);
}

template <typename T> void forward_all(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &z, float *lse) {
    const Sizes size(q);
    by_head(size, [&](int64_t b, int64_t h) {
        forward_head<T>(size, head<const T>(q, b, h), head<const T>(k, b, h), head<const T>(v, b, h), head<T>(z, b, h),
                        lse + (b * size.heads + h) * size.pos);
    });
}

template <typename T> void backward_all(const std::vector<at::Tensor> &saved, const at::Tensor &dz, const std::vector<at::Tensor> &grads) {
    const Sizes size(saved[0]);
    const float *lse = saved[4].const_data_ptr<float>();
    by_head(size, [&](int64_t b, int64_t h) {
        const auto in = [&](int i) { return head<const T>(saved[i], b, h); };
        const auto out = [&](int i) { return head<T>(grads[i], b, h); };
        backward_head<T>(size, in(0), in(1), in(2), in(3), head<const T>(dz, b, h), lse + (b * size.heads + h) * size.pos,
                         {out(0), out(1), out(2)});
    });
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Attention : torch::autograd::Function<Attention> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &queries, const at::Tensor &keys, const at::Tensor &values) {
        const at::Tensor q = dense(queries), k = dense(keys), v = dense(values);
        const Sizes size(q);
        at::Tensor z = heads_aside(size, q.options());
        at::Tensor lse = at::empty({size.batch, size.heads, size.pos}, q.options().dtype(at::kFloat));
        if (q.scalar_type() == at::kFloat) forward_all<float>(q, k, v, z, lse.data_ptr<float>());
        else forward_all<uint16_t>(q, k, v, z, lse.data_ptr<float>());
        context->save_for_backward({q, k, v, z, lse});
        return z;
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const Sizes size(saved[0]);
        const at::Tensor dz = dense(grads[0]);
        // Side by side as queries, keys and values are.
        const auto all = at::empty({size.batch, size.pos, 3, size.heads, size.d}, saved[0].options()).permute({2, 0, 3, 1, 4});
        const std::vector<at::Tensor> out = {all[0], all[1], all[2]};
        if (dz.scalar_type() == at::kFloat) backward_all<float>(saved, dz, out);
        else backward_all<uint16_t>(saved, dz, out);
        return {out[0], out[1], out[2]};
    }
};

// oneDNN multiplies bfloat16 tiles where the processor can.
bool is_fast(const at::Tensor &q) {
#if defined(__x86_64__) && defined(__GNUC__)
    static const bool avx512 = __builtin_cpu_supports("avx512f"), bf16 = __builtin_cpu_supports("avx512bf16");
    if (!for_cpu_kernels(q) || q.size(3) % STEP != 0 || q.numel() == 0) return false;
    return (q.scalar_type() == at::kFloat && avx512) || (q.scalar_type() == at::kBFloat16 && bf16);
#else
    return false;
#endif
}

} // namespace

// q, k and v [batch, head, pos, d] of one type; z likewise.
extern "C" at::Tensor *lnfree_causal_attention(const at::Tensor *q, const at::Tensor *k, const at::Tensor *v) {
    return guarded_tensor([&] {
        if (is_fast(*q)) return Attention::apply(*q, *k, *v);
        return at::scaled_dot_product_attention(*q, *k, *v, std::nullopt, 0.0, true);
    });
}
