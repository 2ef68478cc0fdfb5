// J^T Lambda J on tangents of a ProtoNet's embeddings. For every distance the logits f_mc of query z_m and prototype
// c_c have
//
//     df_mc/dz_m = alpha_mc z_m + beta_mc c_c        df_mc/dc_c = beta_mc z_m + gamma_mc c_c
//
// so one kernel serves all. The coefficients and p = softmax(f) are a task's; a tangent costs two sweeps:
//
//     df_mc = alpha_mc <z_m, dz_m> + beta_mc (<c_c, dz_m> + <z_m, dc_c>) + gamma_mc <c_c, dc_c>,      w = Lambda df
//     gz_m  = (sum_c alpha_mc w_mc) z_m + sum_c beta_mc w_mc c_c
//     gc_c  = (sum_m gamma_mc w_mc) c_c + sum_m beta_mc w_mc z_m
//
// One work item is one (task, tangent), and its sums run in an order that only n, S, C and D decide: results do not
// depend on threads, nor on how tasks and tangents are batched.
#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "ops.h"
#include "parallel.h"
#include "softmax.h"

namespace tlx {
namespace {

constexpr int64_t kBlock = 5;   // vectors taken together in the inner loops; 5-way is the commonest task
constexpr int64_t kTile = 256;  // of D: the prototypes' tiles stay in the first-level cache while queries pass by

template <class Real>
struct Problem {
    const Real *support, *query;
    const int64_t* labels;
    const Real *dsupport, *dquery;
    Real *gsupport, *gquery;
    int64_t K, S, n, C, D;
    Distance distance;
    Real scale;
};

template <class Real>
TLX_INLINE Real dot(const Real* __restrict__ a, const Real* __restrict__ b, int64_t size) {
    Real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < size; ++d) sum += a[d] * b[d];
    return sum;
}

template <class Real>
TLX_INLINE Real squared_distance(const Real* __restrict__ a, const Real* __restrict__ b, int64_t size) {
    Real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < size; ++d) sum += (a[d] - b[d]) * (a[d] - b[d]);
    return sum;
}

template <class Real>
TLX_INLINE void add(const Real* __restrict__ x, int64_t size, Real* __restrict__ out) {
    for (int64_t d = 0; d < size; ++d) out[d] += x[d];
}

// out_a[c] += <dza, c_c> + <za, dc_c> and out_b[c] likewise of zb, dzb, over `classes` <= kBlock rows of c and dc.
// Two queries at once, so that each load of c and dc serves twice. omp simd reorders sums, by `size` alone.
template <int classes, class Real>
TLX_INLINE void cross_block(const Real* __restrict__ za, const Real* __restrict__ dza, const Real* __restrict__ zb,
                            const Real* __restrict__ dzb, const Real* __restrict__ c, const Real* __restrict__ dc,
                            int64_t D, int64_t size, Real* out_a, Real* out_b) {
    Real a0 = 0, a1 = 0, a2 = 0, a3 = 0, a4 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0, b4 = 0;
#pragma omp simd reduction(+ : a0, a1, a2, a3, a4, b0, b1, b2, b3, b4)
    for (int64_t d = 0; d < size; ++d) {
        const auto both = [&](int64_t row, Real& a, Real& b) TLX_LAMBDA_INLINE {
            const Real x = c[row * D + d], dx = dc[row * D + d];
            a += dza[d] * x, a += za[d] * dx;
            b += dzb[d] * x, b += zb[d] * dx;
        };
        both(0, a0, b0);
        if constexpr (classes > 1) both(1, a1, b1);
        if constexpr (classes > 2) both(2, a2, b2);
        if constexpr (classes > 3) both(3, a3, b3);
        if constexpr (classes > 4) both(4, a4, b4);
    }
    const Real a[] = {a0, a1, a2, a3, a4}, b[] = {b0, b1, b2, b3, b4};
    for (int i = 0; i < classes; ++i) out_a[i] += a[i];
    for (int i = 0; i < classes; ++i) out_b[i] += b[i];
}

// out += sum_i w[i * stride] row_i over `count` <= kBlock rows of length D, of which `size` elements are taken.
template <int count, class Real>
TLX_INLINE void combine_block(const Real* w, int64_t stride, const Real* __restrict__ rows, int64_t D, int64_t size,
                              Real* __restrict__ out) {
    Real v[kBlock] = {};
    for (int i = 0; i < count; ++i) v[i] = w[i * stride];
    for (int64_t d = 0; d < size; ++d) {
        Real sum = out[d] + v[0] * rows[d];
        if constexpr (count > 1) sum += v[1] * rows[D + d];
        if constexpr (count > 2) sum += v[2] * rows[2 * D + d];
        if constexpr (count > 3) sum += v[3] * rows[3 * D + d];
        if constexpr (count > 4) sum += v[4] * rows[4 * D + d];
        out[d] = sum;
    }
}

// Calls body(first, integral_constant<count>) on blocks of at most kBlock that cover 0..size-1.
template <class Body>
TLX_INLINE void for_blocks(int64_t size, const Body& body) {
    int64_t first = 0;
    for (; first + kBlock <= size; first += kBlock) body(first, std::integral_constant<int, kBlock>());
    if (size - first == 4) body(first, std::integral_constant<int, 4>());
    if (size - first == 3) body(first, std::integral_constant<int, 3>());
    if (size - first == 2) body(first, std::integral_constant<int, 2>());
    if (size - first == 1) body(first, std::integral_constant<int, 1>());
}

// out[c] = mean of the rows of x [S, D] that have label c.
template <class Real>
TLX_INLINE void class_means(const Real* x, const int64_t* labels, const Real* inverse_count, int64_t S, int64_t C,
                            int64_t D, Real* __restrict__ out) {
    std::fill(out, out + C * D, Real(0));
    for (int64_t s = 0; s < S; ++s) add(x + s * D, D, out + labels[s] * D);
    for (int64_t c = 0; c < C; ++c)
        for (int64_t d = 0; d < D; ++d) out[c * D + d] *= inverse_count[c];
}

// What the tangents of one task share: its embeddings, prototypes, probabilities and coefficients.
template <class Real>
struct Shared {
    Buffer<Real> inverse_count, centre, z, c, c_squared, logits, p, alpha, beta, gamma;

    explicit Shared(const Problem<Real>& q)
        : inverse_count(q.C), centre(q.D), z(q.n * q.D), c(q.C * q.D), c_squared(q.C), logits(q.n * q.C),
          p(q.n * q.C), alpha(q.n * q.C), beta(q.n * q.C), gamma(q.n * q.C) {}
};

// What one tangent needs while it is worked on.
template <class Real>
struct Scratch {
    Buffer<Real> dc, gc, c_dc, z_dz, df, w, z_weight, c_weight;

    explicit Scratch(const Problem<Real>& q)
        : dc(q.C * q.D), gc(q.C * q.D), c_dc(q.C), z_dz(q.n), df(q.n * q.C), w(q.n * q.C), z_weight(q.n),
          c_weight(q.C) {}
};

template <class Real>
TLX_INLINE void prepare(const Problem<Real>& q, int64_t t, const Shared<Real>& task) {
    const int64_t S = q.S, n = q.n, C = q.C, D = q.D;
    const int64_t* labels = q.labels + t * S;
    Real *inverse_count = task.inverse_count, *centre = task.centre, *z = task.z, *c = task.c;
    Real *logits = task.logits, *alpha = task.alpha, *beta = task.beta, *gamma = task.gamma;

    std::fill(inverse_count, inverse_count + C, Real(0));
    for (int64_t s = 0; s < S; ++s) inverse_count[labels[s]] += 1;
    for (int64_t k = 0; k < C; ++k) inverse_count[k] = 1 / inverse_count[k];
    class_means(q.support + t * S * D, labels, inverse_count, S, C, D, c);
    std::copy_n(q.query + t * n * D, n * D, z);

    if (q.distance != Distance::cosine) {
        // Only differences of embeddings count, yet alpha z + beta c cancels what z and c have in common: take it off.
        std::fill(centre, centre + D, Real(0));
        for (int64_t k = 0; k < C; ++k) add(c + k * D, D, centre);
        for (int64_t d = 0; d < D; ++d) centre[d] /= -Real(C);
        for (int64_t k = 0; k < C; ++k) add(centre, D, c + k * D);
        for (int64_t m = 0; m < n; ++m) add(centre, D, z + m * D);
    }

    constexpr Real offset = Real(1e-12);
    const Real scale = q.scale;
    for (int64_t k = 0; k < C; ++k) task.c_squared[k] = dot(c + k * D, c + k * D, D) + offset;
    for (int64_t m = 0; m < n; ++m) {
        const Real* z_m = z + m * D;
        const Real z_squared = dot(z_m, z_m, D) + offset;
        for (int64_t k = 0, i = m * C; k < C; ++k, ++i) {
            if (q.distance == Distance::cosine) {
                beta[i] = scale / (std::sqrt(z_squared) * std::sqrt(task.c_squared[k]));
                logits[i] = beta[i] * dot(z_m, c + k * D, D);
                alpha[i] = -logits[i] / z_squared;
                gamma[i] = -logits[i] / task.c_squared[k];
                continue;
            }
            const Real squared = squared_distance(z_m, c + k * D, D);
            if (q.distance == Distance::sqeuclidean) {
                logits[i] = -scale * squared;
                beta[i] = 2 * scale;
            } else {
                const Real distance = std::sqrt(squared + offset);
                logits[i] = -scale * distance;
                beta[i] = scale / distance;
            }
            alpha[i] = gamma[i] = -beta[i];
        }
    }
    softmax_rows<Real>(logits, task.p, n, C);
}

template <class Real>
TLX_INLINE void one_tangent(const Problem<Real>& q, int64_t item, const Shared<Real>& task,
                            const Scratch<Real>& work) {
    const int64_t S = q.S, n = q.n, C = q.C, D = q.D;
    const int64_t* labels = q.labels + item / q.K * S;
    const Real *z = task.z, *c = task.c, *inverse_count = task.inverse_count;
    const Real *alpha = task.alpha, *beta = task.beta, *gamma = task.gamma;
    Real *dc = work.dc, *gc = work.gc, *c_dc = work.c_dc, *z_dz = work.z_dz, *df = work.df, *w = work.w;
    Real *z_weight = work.z_weight, *c_weight = work.c_weight;
    const Real* dz = q.dquery + item * n * D;
    Real* gz = q.gquery + item * n * D;

    class_means(q.dsupport + item * S * D, labels, inverse_count, S, C, D, dc);
    for (int64_t k = 0; k < C; ++k) c_dc[k] = dot(c + k * D, dc + k * D, D);

    std::fill(z_dz, z_dz + n, Real(0));
    std::fill(df, df + n * C, Real(0));
    for (int64_t d = 0; d < D; d += kTile) {
        const int64_t size = std::min(kTile, D - d);
        for (int64_t m = 0; m < n; m += 2) {
            const int64_t a = m * D + d, b = m + 1 < n ? a + D : a;
            Real spare[kBlock] = {};  // where the second of an odd last pair goes
            z_dz[m] += dot(z + a, dz + a, size);
            if (b != a) z_dz[m + 1] += dot(z + b, dz + b, size);
            for_blocks(C, [&](int64_t k, auto classes) TLX_LAMBDA_INLINE {
                cross_block<classes>(z + a, dz + a, z + b, dz + b, c + k * D + d, dc + k * D + d, D, size,
                                     df + m * C + k, b != a ? df + (m + 1) * C + k : spare);
            });
        }
    }
    for (int64_t m = 0; m < n; ++m)
        for (int64_t k = 0, i = m * C; k < C; ++k, ++i)
            df[i] = alpha[i] * z_dz[m] + beta[i] * df[i] + gamma[i] * c_dc[k];

    softmax_gn_rows<Real>(task.p, df, w, n, C);

    std::fill(z_weight, z_weight + n, Real(0));
    std::fill(c_weight, c_weight + C, Real(0));
    for (int64_t m = 0; m < n; ++m) {
        for (int64_t k = 0, i = m * C; k < C; ++k, ++i) {
            z_weight[m] += alpha[i] * w[i];
            c_weight[k] += gamma[i] * w[i];
            w[i] *= beta[i];
        }
    }

    for (int64_t d = 0; d < D; d += kTile) {
        const int64_t size = std::min(kTile, D - d);
        for (int64_t m = 0; m < n; ++m) {
            for (int64_t e = m * D + d; e < m * D + d + size; ++e) gz[e] = z_weight[m] * z[e];
            for_blocks(C, [&](int64_t k, auto count) TLX_LAMBDA_INLINE {
                combine_block<count>(w + m * C + k, 1, c + k * D + d, D, size, gz + m * D + d);
            });
        }
        for (int64_t k = 0; k < C; ++k)
            for (int64_t e = k * D + d; e < k * D + d + size; ++e) gc[e] = c_weight[k] * c[e];
        for_blocks(n, [&](int64_t m, auto count) TLX_LAMBDA_INLINE {
            for (int64_t k = 0; k < C; ++k)
                combine_block<count>(w + m * C + k, C, z + m * D + d, D, size, gc + k * D + d);
        });
    }
    for (int64_t k = 0; k < C; ++k)
        for (int64_t d = 0; d < D; ++d) gc[k * D + d] *= inverse_count[k];
    for (int64_t s = 0; s < S; ++s) std::copy_n(gc + labels[s] * D, D, q.gsupport + (item * S + s) * D);
}

template <class Real>
TLX_CLONES void range(const Problem<Real>& q, int64_t begin, int64_t end) {
    const Shared<Real> task(q);
    const Scratch<Real> work(q);
    for (int64_t item = begin; item < end; ++item) {
        if (item == begin || item % q.K == 0) prepare(q, item / q.K, task);
        one_tangent(q, item, task, work);
    }
}

}  // namespace

template <class Real>
void proto_gn(const Real* support, const Real* query, const int64_t* labels, const Real* dsupport, const Real* dquery,
              Real* gsupport, Real* gquery, int64_t T, int64_t K, int64_t S, int64_t n, int64_t C, int64_t D,
              Distance distance, double scale) {
    const Problem<Real> problem{support, query, labels, dsupport, dquery, gsupport, gquery,   K,
                                S,       n,     C,      D,        distance, Real(scale)};
    parallel_for(T * K, grain_for(8 * n * C * D),
                 [&](int64_t begin, int64_t end) { range(problem, begin, end); });
}

template void proto_gn(const float*, const float*, const int64_t*, const float*, const float*, float*, float*, int64_t,
                       int64_t, int64_t, int64_t, int64_t, int64_t, Distance, double);
template void proto_gn(const double*, const double*, const int64_t*, const double*, const double*, double*, double*,
                       int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Distance, double);

}  // namespace tlx
