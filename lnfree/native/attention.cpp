// Causal attention, z = softmax(q k^T / sqrt(d)) v, by tiles of queries and keys, so that no [pos, pos]
// matrix is ever in memory; its gradients come from the same tiles made again, and the logarithm of each
// query's sum of exponentials, as in FlashAttention-2 (arXiv 2307.08691, algorithms 1 and 2). libtorch has
// the same on a CPU, with products by a library that takes longer to begin one of this size than to do it.
#include "dispatch.hpp"
#include "loops.hpp"
#include "matmul.hpp"
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

struct Sizes {
    int64_t batch, heads, pos, d;

    explicit Sizes(const at::Tensor &q) : batch(q.size(0)), heads(q.size(1)), pos(q.size(2)), d(q.size(3)) {}
    int64_t tiles() const { return (pos + TILE - 1) / TILE; }
    float scale() const { return 1.0f / std::sqrt(static_cast<float>(d)); }
};

// T: what q, k, v and z are stored as; U: what tiles are multiplied in.
template <typename T, typename U>
void forward_head(const LoopTable &table, Sizes size, Head<const T> q, Head<const T> k, Head<const T> v, Head<T> z, float *lse) {
    const int64_t n = size.tiles(), d = size.d, part = TILE * d;
    const Tiles<U> tiles(table, d);
    std::vector<U> keys(n * part), values(n * part), p(AREA), rows(part);
    std::vector<float> scores(n * AREA), out(part);
    float top[TILE], total[TILE], factors[TILE];
    for (int64_t j = 0; j < n; j++) {
        tiles.pack_transposed(k.tile(j, size.pos, d), keys.data() + j * part);
        tiles.pack(v.tile(j, size.pos, d), values.data() + j * part);
    }
    for (int64_t i = 0; i < n; i++) {
        Queries queries;
        std::fill(queries.top, queries.top + TILE * STEP, -std::numeric_limits<float>::infinity());
        std::fill(queries.total, queries.total + TILE * STEP, 0.0f);
        const int64_t count = std::min(TILE, size.pos - i * TILE);
        tiles.copy(q.tile(i, size.pos, d), rows.data());
        for (int64_t j = 0; j <= i; j++) {
            tiles.multiply(TILE, TILE, d, false, rows.data(), keys.data() + j * part, scores.data() + j * AREA);
            table.raise_tops(scores.data() + j * AREA, i == j, queries);
        }
        table.finish_tops(queries, size.scale(), top);
        for (int64_t j = 0; j <= i; j++) {
            table.of<U>().exponentials(scores.data() + j * AREA, top, size.scale(), i == j, queries, p.data());
            tiles.multiply(TILE, d, TILE, j > 0, p.data(), values.data() + j * part, out.data());
        }
        table.finish_totals(queries, total);
        for (int64_t r = 0; r < count; r++) {
            lse[i * TILE + r] = top[r] + std::log(total[r]);
            factors[r] = 1.0f / total[r];
        }
        table.of<T>().write_rows(out.data(), factors, count, d, z.first + i * TILE * z.stride, z.stride);
    }
}

template <typename T> struct Gradients {
    Head<T> q, k, v;
};

template <typename T, typename U>
void backward_head(const LoopTable &table, Sizes size, Head<const T> q, Head<const T> k, Head<const T> v, Head<const T> z, Head<const T> dz,
                   const float *lse, Gradients<T> grads) {
    const int64_t n = size.tiles(), pos = size.pos, d = size.d, part = TILE * d;
    const Tiles<U> tiles(table, d);
    // Queries and gradients of outputs, as factors of what is transposed and of what is not.
    std::vector<U> q_across(n * part), q_down(n * part), dz_across(n * part), dz_down(n * part);
    std::vector<U> keys(part), values(part), keys_across(part), p(AREA), ds(AREA), packed(AREA);
    std::vector<float> scores(AREA), dp(AREA), dk(part), dv(part), dq(n * part), sums(n * TILE), inner(n * TILE), back(part);
    for (int64_t i = 0; i < n; i++) {
        const auto queries = q.tile(i, pos, d), above = dz.tile(i, pos, d), outputs = z.tile(i, pos, d);
        tiles.pack_transposed(queries, q_across.data() + i * part);
        tiles.pack(queries, q_down.data() + i * part);
        tiles.pack_transposed(above, dz_across.data() + i * part);
        tiles.pack(above, dz_down.data() + i * part);
        table.of<T>().inner_products(above, outputs, inner.data() + i * TILE);
        std::copy_n(lse + i * TILE, queries.count, sums.data() + i * TILE);
    }
    float factors[TILE];
    for (int64_t j = 0; j < n; j++) {
        const auto rows = k.tile(j, pos, d);
        tiles.copy(rows, keys.data());
        tiles.transpose(rows, keys_across.data());
        tiles.copy(v.tile(j, pos, d), values.data());
        for (int64_t i = j; i < n; i++) {
            tiles.multiply(TILE, TILE, d, false, keys.data(), q_across.data() + i * part, scores.data());
            tiles.multiply(TILE, TILE, d, false, values.data(), dz_across.data() + i * part, dp.data());
            const U *packed_ds = table.of<U>().gradients(scores.data(), dp.data(), sums.data() + i * TILE, inner.data() + i * TILE,
                                                         size.scale(), i == j, p.data(), ds.data(), packed.data());
            tiles.multiply(TILE, d, TILE, i > j, p.data(), dz_down.data() + i * part, dv.data());
            tiles.multiply(TILE, d, TILE, i > j, ds.data(), q_down.data() + i * part, dk.data());
            tiles.multiply(d, TILE, TILE, j > 0, keys_across.data(), packed_ds, dq.data() + i * part);
        }
        std::fill(factors, factors + TILE, 1.0f);
        table.of<T>().write_rows(dv.data(), factors, rows.count, d, grads.v.first + j * TILE * grads.v.stride, grads.v.stride);
        std::fill(factors, factors + TILE, size.scale());
        table.of<T>().write_rows(dk.data(), factors, rows.count, d, grads.k.first + j * TILE * grads.k.stride, grads.k.stride);
    }
    for (int64_t i = 0; i < n; i++) {
        transpose(table, dq.data() + i * part, d, TILE, back.data());
        const int64_t count = std::min(TILE, pos - i * TILE);
        table.of<T>().write_rows(back.data(), factors, count, d, grads.q.first + i * TILE * grads.q.stride, grads.q.stride);
    }
}

// Calls work(sequence, head) for all of them; tiles are multiplied in U.
template <typename U, typename F> void by_head(Sizes size, F &&work) {
    parallel(size.batch * size.heads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) work(i / size.heads, i % size.heads);
        Tiles<U>::release();
    });
}

// Two bfloat16 of a row are read as one word.
at::Tensor dense(const at::Tensor &x) { return x.stride(3) == 1 && x.stride(2) % 2 == 0 ? x : x.contiguous(); }

// [batch, head, pos, d] in memory as [batch, pos, head, d], so that heads are side by side for what reads
// them next.
at::Tensor heads_aside(Sizes size, const at::TensorOptions &options) {
    return at::empty({size.batch, size.pos, size.heads, size.d}, options).transpose(1, 2);
}

template <typename T, typename U> void forward_all(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &z, float *lse) {
    const Sizes size(q);
    const LoopTable &table = loops();
    by_head<U>(size, [&](int64_t b, int64_t h) {
        forward_head<T, U>(table, size, head<const T>(q, b, h), head<const T>(k, b, h), head<const T>(v, b, h), head<T>(z, b, h),
                        lse + (b * size.heads + h) * size.pos);
    });
}

template <typename T, typename U> void backward_all(const std::vector<at::Tensor> &saved, const at::Tensor &dz, const std::vector<at::Tensor> &grads) {
    const Sizes size(saved[0]);
    const float *lse = saved[4].const_data_ptr<float>();
    const LoopTable &table = loops();
    by_head<U>(size, [&](int64_t b, int64_t h) {
        const auto in = [&](int i) { return head<const T>(saved[i], b, h); };
        const auto out = [&](int i) { return head<T>(grads[i], b, h); };
        backward_head<T, U>(table, size, in(0), in(1), in(2), in(3), head<const T>(dz, b, h), lse + (b * size.heads + h) * size.pos,
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
        float *sums = lse.data_ptr<float>();
        if (q.scalar_type() == at::kFloat) forward_all<float, float>(q, k, v, z, sums);
        else if (bfloat16_pays()) forward_all<uint16_t, uint16_t>(q, k, v, z, sums);
        else forward_all<uint16_t, float>(q, k, v, z, sums);
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
        if (dz.scalar_type() == at::kFloat) backward_all<float, float>(saved, dz, out);
        else if (bfloat16_pays()) backward_all<uint16_t, uint16_t>(saved, dz, out);
        else backward_all<uint16_t, float>(saved, dz, out);
        return {out[0], out[1], out[2]};
    }
};

// Whether it is ours to do: where vectors are wide enough that it was measured to be faster than libtorch's,
// or where a test wants it.
bool is_ours(const at::Tensor &q) {
    if (!for_cpu_kernels(q) || q.size(3) % STEP != 0 || q.numel() == 0) return false;
    const bool known = q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16;
    return known && (usable_kernels() >= Kernels::Avx512 || kernels() != Kernels::Auto);
}

} // namespace

// q, k and v [batch, head, pos, d] of one type; z likewise.
extern "C" at::Tensor *lnfree_causal_attention(const at::Tensor *q, const at::Tensor *k, const at::Tensor *v) {
    return guarded_tensor([&] {
        if (is_ours(*q)) return Attention::apply(*q, *k, *v);
        return at::scaled_dot_product_attention(*q, *k, *v, std::nullopt, 0.0, true);
    });
}
