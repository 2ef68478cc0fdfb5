// Normalisation, activation and max pool of a layer's output x [T, N, H, W, C] in one sweep, with the JVP, the VJP and
// the JVP of the VJP for K tangents. What runs over all positions is apart from what sums need: a caller may make x's
// tangents, and use its cotangents, a few images at a time, and never hold all of them. Per task and channel, at the winner of every pool window,
//
//     x_hat = (x - mean) rstd      z = gamma x_hat + beta      y = act(z)      slope = act'(z)      curve = act''(z)
//
// With a = <x_hat dx>, means over the M positions of the batch (both 0, and 1/M = 0, where statistics are constants):
//
//     dx_hat  = rstd (dx - <dx> - x_hat a)
//     dy      = slope (gamma dx_hat + dgamma x_hat + dbeta)
//     s       = slope gy         gbeta = sum s         ggamma = sum s x_hat
//     gx      = rstd (gamma s - gamma gbeta/M - x_hat gamma ggamma/M)
//     ds      = slope dgy + curve (dy/slope) gy        dgbeta = sum ds        dggamma = sum (ds x_hat + s dx_hat)
//     dgx     = rstd (gamma ds + dgamma s) - rstd a gx
//               - rstd/M (gamma (dgbeta + x_hat dggamma + dx_hat ggamma) + dgamma (gbeta + x_hat ggamma))
//
// Sums run over blocks of kImages images, each in order, then over blocks in order: threads do not change them.
#include <algorithm>

#include "buffer.h"
#include "ops.h"
#include "parallel.h"
#include "simd.h"

namespace tlx {
namespace {

constexpr int64_t kImages = 4;

struct Shape {
    int64_t T, N, H, W, K, C, Ho, Wo, kernel, stride, padding;
    int64_t blocks() const { return (N + kImages - 1) / kImages; }
    int64_t KC() const { return K * C; }
    int64_t work() const { return 4 * H * W * K * C; }
};

// What all kernels read of the primal, moved to a task.
template <class Real>
struct Primal {
    const Real *x, *mean, *rstd, *gamma, *x_hat, *slope;
    const int32_t* winner;

    TLX_INLINE Primal of(const Shape& s, int64_t t) const {
        const int64_t in = t * s.N * s.H * s.W * s.C, out = t * s.N * s.Ho * s.Wo * s.C;
        return {x + in, mean + t * s.C, rstd + t * s.C, gamma + t * s.C, x_hat + out, slope + out, winner + out};
    }
};

// Calls body(tap, pixel) on the places of window (i, j) that lie inside image n; pixel counts positions.
template <class Body>
TLX_INLINE void for_window(const Shape& s, int64_t n, int64_t i, int64_t j, const Body& body) {
    for (int64_t a = 0; a < s.kernel; ++a) {
        const int64_t y = i * s.stride - s.padding + a;
        if (y < 0 || y >= s.H) continue;
        for (int64_t b = 0; b < s.kernel; ++b) {
            const int64_t x = j * s.stride - s.padding + b;
            if (x < 0 || x >= s.W) continue;
            body(int32_t(a * s.kernel + b), (n * s.H + y) * s.W + x);
        }
    }
}

// out[k, c] = values[pixel of the winner of c, k, c]
template <class Real>
TLX_INLINE void at_winners(const Shape& s, int64_t n, int64_t i, int64_t j, const int32_t* __restrict__ winner,
                           const Real* values, int64_t K, Real* __restrict__ out) {
    for_window(s, n, i, j, [&](int32_t tap, int64_t pixel) TLX_LAMBDA_INLINE {
        const Real* __restrict__ row = values + pixel * K * s.C;
        for (int64_t k = 0; k < K; ++k) {
            const Real* __restrict__ in = row + k * s.C;
            Real* __restrict__ o = out + k * s.C;
            for (int64_t c = 0; c < s.C; ++c) o[c] = winner[c] == tap ? in[c] : o[c];
        }
    });
}

template <class Real>
TLX_INLINE void normalise(const Real* x, const Real* __restrict__ mean, const Real* __restrict__ rstd,
                          int64_t C, Real* x_hat) {  // x_hat may be x
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) x_hat[c] = (x[c] - mean[c]) * rstd[c];
}

// Partial sums of blocks, zero to begin with.
class Sums {
    const Buffer<double> memory;

public:
    explicit Sums(int64_t size) : memory(size) { std::fill_n(static_cast<double*>(memory), size, 0.0); }
    operator double*() const { return memory; }
};

// Adds the sums that an image left in `part` to those of its block, in double, and clears it.
template <class Real>
TLX_INLINE void flush(Real* __restrict__ part, int64_t size, double* __restrict__ block) {
    for (int64_t i = 0; i < size; ++i) block[i] += double(part[i]), part[i] = 0;
}

// out[t] = scale * the sum of the blocks' sums, in order; `size` numbers each.
template <class Real>
void combine(const double* partial, int64_t T, int64_t blocks, int64_t size, double scale, Real* out) {
    for (int64_t t = 0; t < T; ++t, out += size)
        for (int64_t i = 0; i < size; ++i) {
            double sum = 0;
            for (int64_t b = 0; b < blocks; ++b) sum += partial[(t * blocks + b) * size + i];
            out[i] = Real(scale * sum);
        }
}

// Calls run(t, first image, last image + 1, number of the block) for every block of images, on whatever threads.
template <class Run>
void over_blocks(const Shape& s, const Run& run) {
    const int64_t blocks = s.blocks();
    parallel_for(s.T * blocks, grain_for(s.work() * kImages), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t first = item % blocks * kImages;
            run(item / blocks, first, std::min(s.N, first + kImages), item);
        }
    });
}

// ---- forward ------------------------------------------------------------------------------------------------

template <class Real>
TLX_CLONES void sum_positions(const Real* x, const Real* mean, int64_t C, int64_t begin, int64_t end, double* out) {
    // the sum of x, or of (x - mean)^2; 256 positions at a time in Real
    const Buffer<Real> part(C);
    Real* __restrict__ p = part;
    std::fill_n(p, C, Real(0));
    for (int64_t i = begin; i < end; ++i) {
        const Real* __restrict__ row = x + i * C;
        if (mean)
            for (int64_t c = 0; c < C; ++c) p[c] += (row[c] - mean[c]) * (row[c] - mean[c]);
        else
            for (int64_t c = 0; c < C; ++c) p[c] += row[c];
        if ((i - begin) % 256 == 255 || i + 1 == end) flush(p, C, out);
    }
}

template <class Real>
TLX_CLONES void forward_images(const Shape& s, const Primal<Real>& p, const Real* beta, Real leak, int64_t begin,
                               int64_t end, Real* y, Real* x_hat, Real* slope, int32_t* winner) {
    const Buffer<Real> buffer(2 * s.C);
    Real *__restrict__ h = buffer, *__restrict__ z = buffer + s.C;
    for (int64_t n = begin; n < end; ++n)
        for (int64_t i = 0; i < s.Ho; ++i)
            for (int64_t j = 0; j < s.Wo; ++j) {
                const int64_t at = ((n * s.Ho + i) * s.Wo + j) * s.C;
                Real* __restrict__ best = y + at;
                Real *__restrict__ d = slope + at, *__restrict__ hat = x_hat + at;
                int32_t* __restrict__ w = winner + at;
                bool first = true;
                for_window(s, n, i, j, [&](int32_t tap, int64_t pixel) TLX_LAMBDA_INLINE {
                    normalise(p.x + pixel * s.C, p.mean, p.rstd, s.C, h);
                    for (int64_t c = 0; c < s.C; ++c) {
                        const Real value = p.gamma[c] * h[c] + beta[c];
                        z[c] = value > 0 ? value : leak * value;
                    }
                    if (first)
                        for (int64_t c = 0; c < s.C; ++c) best[c] = z[c], hat[c] = h[c], w[c] = tap;
                    else  // a NaN wins, as in torch
                        for (int64_t c = 0; c < s.C; ++c) {
                            const bool better = !(z[c] <= best[c]);
                            w[c] = better ? tap : w[c];
                            hat[c] = better ? h[c] : hat[c];
                            best[c] = better ? z[c] : best[c];
                        }
                    first = false;
                });
                for (int64_t c = 0; c < s.C; ++c) d[c] = best[c] > 0 ? Real(1) : leak;
            }
}

// ---- tangents and cotangents --------------------------------------------------------------------------------

// The winners' tangents, and the sums of dx and of x_hat dx over all positions. Rows are summed just before the first
// window that reaches them, while they are in the cache.
template <class Real>
TLX_CLONES void gather_images(const Shape& s, const Primal<Real>& p, const Real* dx, bool sums_too, int64_t begin,
                              int64_t end, Real* chosen, double* out) {
    const int64_t KC = s.KC();
    const Buffer<Real> part(2 * KC + s.C);
    Real *sums = part, *__restrict__ x_hat = sums + 2 * KC;
    std::fill_n(sums, 2 * KC, Real(0));
    for (int64_t n = begin; n < end; ++n) {
        int64_t summed = sums_too ? 0 : s.H;
        const auto sum_to = [&](int64_t row) TLX_LAMBDA_INLINE {
            for (; summed < std::min(row, s.H); ++summed)
                for (int64_t pixel = (n * s.H + summed) * s.W; pixel < (n * s.H + summed + 1) * s.W; ++pixel) {
                    normalise(p.x + pixel * s.C, p.mean, p.rstd, s.C, x_hat);
                    for (int64_t k = 0; k < s.K; ++k) {
                        const Real* __restrict__ d = dx + pixel * KC + k * s.C;
                        Real *__restrict__ first = sums + k * s.C, *__restrict__ second = sums + KC + k * s.C;
                        for (int64_t c = 0; c < s.C; ++c) first[c] += d[c], second[c] += x_hat[c] * d[c];
                    }
                }
        };
        for (int64_t i = 0; i < s.Ho; ++i) {
            sum_to(i * s.stride - s.padding + s.kernel);
            for (int64_t j = 0; j < s.Wo; ++j) {
                const int64_t at = (n * s.Ho + i) * s.Wo + j;
                at_winners(s, n, i, j, p.winner + at * s.C, dx, s.K, chosen + at * KC);
            }
        }
        sum_to(s.H);
        if (sums_too) flush(sums, 2 * KC, out);
    }
}

// dx_hat = rstd dx + from_one + from_x_hat x_hat
template <class Real>
TLX_INLINE void tangent_of_x_hat(const Shape& s, const Primal<Real>& p, const Real* moments, Real* from_one,
                                 Real* from_x_hat) {
    for (int64_t k = 0, i = 0; k < s.K; ++k)
        for (int64_t c = 0; c < s.C; ++c, ++i) {
            from_one[i] = -p.rstd[c] * moments[i];
            from_x_hat[i] = -p.rstd[c] * moments[s.KC() + i];
        }
}

template <class Real>
TLX_CLONES void jvp_images(const Shape& s, const Primal<Real>& p, const Real* chosen, const Real* dgamma,
                           const Real* dbeta, const Real* moments, int64_t begin, int64_t end, Real* dy) {
    const int64_t KC = s.KC();
    const Buffer<Real> buffer(2 * KC);
    Real *one = buffer, *hat = one + KC;
    tangent_of_x_hat(s, p, moments, one, hat);
    for (int64_t i = 0; i < KC; ++i) {  // dz = gamma rstd dx + one + hat x_hat
        one[i] = p.gamma[i % s.C] * one[i] + (dbeta ? dbeta[i] : Real(0));
        hat[i] = p.gamma[i % s.C] * hat[i] + (dgamma ? dgamma[i] : Real(0));
    }
    for (int64_t at = begin * s.Ho * s.Wo; at < end * s.Ho * s.Wo; ++at)
        for (int64_t k = 0; k < s.K; ++k) {
            const Real *__restrict__ slope = p.slope + at * s.C, *__restrict__ x_hat = p.x_hat + at * s.C;
            const Real *d = chosen + at * KC + k * s.C, *__restrict__ h = hat + k * s.C;
            const Real* __restrict__ o = one + k * s.C;
            Real* out = dy + at * KC + k * s.C;
#pragma omp simd  // out may be d
            for (int64_t c = 0; c < s.C; ++c)
                out[c] = slope[c] * (p.gamma[c] * p.rstd[c] * d[c] + o[c] + h[c] * x_hat[c]);
        }
}

template <class Real>
TLX_CLONES void affine_cotangents(const Shape& s, const Primal<Real>& p, const Real* gy, int64_t begin, int64_t end,
                                  double* out) {
    const int64_t KC = s.KC();
    const Buffer<Real> buffer(2 * KC);
    Real* sums = buffer;
    std::fill_n(sums, 2 * KC, Real(0));
    for (int64_t n = begin; n < end; ++n) {
        for (int64_t at = n * s.Ho * s.Wo; at < (n + 1) * s.Ho * s.Wo; ++at)
            for (int64_t k = 0; k < s.K; ++k) {
                const Real *__restrict__ g = gy + at * KC + k * s.C, *__restrict__ slope = p.slope + at * s.C;
                const Real* __restrict__ x_hat = p.x_hat + at * s.C;
                Real *__restrict__ first = sums + k * s.C, *__restrict__ second = sums + KC + k * s.C;
                for (int64_t c = 0; c < s.C; ++c) {
                    const Real value = slope[c] * g[c];
                    first[c] += value, second[c] += x_hat[c] * value;
                }
            }
        flush(sums, 2 * KC, out);
    }
}

// gx = scattered + one + hat x_hat + given dx + kept gx_primal at every position: rows of the image are filled just
// before the first window that reaches them adds its winners', while they are in the cache.
template <class Real, class Scattered>
TLX_INLINE void scatter_images(const Shape& s, const Primal<Real>& p, const Real* one, const Real* hat,
                               const Real* given, const Real* dx, const Real* kept, const Real* gx_primal,
                               int64_t begin, int64_t end, Real* gx, Real* x_hat, Real* value,
                               const Scattered& scattered) {
    const int64_t KC = s.KC();
    for (int64_t n = begin; n < end; ++n) {
        int64_t filled = 0;
        const auto fill_to = [&](int64_t row) TLX_LAMBDA_INLINE {
            for (; filled < std::min(row, s.H); ++filled)
                for (int64_t pixel = (n * s.H + filled) * s.W; pixel < (n * s.H + filled + 1) * s.W; ++pixel) {
                    normalise(p.x + pixel * s.C, p.mean, p.rstd, s.C, x_hat);
                    for (int64_t k = 0; k < s.K; ++k) {
                        Real* __restrict__ out = gx + pixel * KC + k * s.C;
                        const Real *__restrict__ o = one + k * s.C, *__restrict__ h = hat + k * s.C;
                        const Real* __restrict__ xh = x_hat;
                        if (!dx) {
                            for (int64_t c = 0; c < s.C; ++c) out[c] = o[c] + h[c] * xh[c];
                            continue;
                        }
                        const Real *__restrict__ d = dx + pixel * KC + k * s.C, *__restrict__ m = kept + k * s.C;
                        const Real* __restrict__ primal = gx_primal + pixel * s.C;
                        for (int64_t c = 0; c < s.C; ++c)
                            out[c] = o[c] + h[c] * xh[c] + given[c] * d[c] + m[c] * primal[c];
                    }
                }
        };
        for (int64_t i = 0; i < s.Ho; ++i) {
            fill_to(i * s.stride - s.padding + s.kernel);
            for (int64_t j = 0; j < s.Wo; ++j) {
                const int64_t at = (n * s.Ho + i) * s.Wo + j;
                const int32_t* __restrict__ winner = p.winner + at * s.C;
                scattered(at, value);
                for_window(s, n, i, j, [&](int32_t tap, int64_t pixel) TLX_LAMBDA_INLINE {
                    for (int64_t k = 0; k < s.K; ++k) {
                        Real* __restrict__ out = gx + pixel * KC + k * s.C;
                        const Real* __restrict__ v = value + k * s.C;
                        for (int64_t c = 0; c < s.C; ++c) out[c] += winner[c] == tap ? v[c] : Real(0);
                    }
                });
            }
        }
        fill_to(s.H);
    }
}

template <class Real>
TLX_CLONES void vjp_images(const Shape& s, const Primal<Real>& p, const Real* gy, const Real* gaffine,
                           Real inverse_count, int64_t begin, int64_t end, Real* gx) {
    const int64_t KC = s.KC();
    const Buffer<Real> buffer(3 * KC + s.C);
    Real *one = buffer, *hat = one + KC, *value = hat + KC, *x_hat = value + KC;
    for (int64_t i = 0; i < KC; ++i) {
        const Real factor = -p.gamma[i % s.C] * p.rstd[i % s.C] * inverse_count;
        one[i] = factor * gaffine[i], hat[i] = factor * gaffine[KC + i];
    }
    scatter_images<Real>(s, p, one, hat, nullptr, nullptr, nullptr, nullptr, begin, end, gx, x_hat, value,
                         [&](int64_t at, Real* __restrict__ out) TLX_LAMBDA_INLINE {
                             const Real* __restrict__ slope = p.slope + at * s.C;
                             for (int64_t k = 0; k < s.K; ++k) {
                                 const Real* __restrict__ g = gy + at * KC + k * s.C;
                                 for (int64_t c = 0; c < s.C; ++c)
                                     out[k * s.C + c] = p.gamma[c] * p.rstd[c] * slope[c] * g[c];
                             }
                         });
}

template <class Real>
struct Second {  // what only the JVP of the VJP reads, moved to a task
    const Real *gy, *gx, *gaffine, *dgy, *dx, *chosen, *dgamma, *dbeta, *moments, *curve;

    TLX_INLINE Second of(const Shape& s, int64_t t) const {
        const int64_t in = t * s.N * s.H * s.W * s.C, out = t * s.N * s.Ho * s.Wo * s.C, affine = t * s.KC();
        return {gy + out,
                gx + in,
                gaffine + 2 * t * s.C,
                dgy + out * s.K,
                dx + in * s.K,
                chosen + out * s.K,
                dgamma ? dgamma + affine : nullptr,
                dbeta ? dbeta + affine : nullptr,
                moments + 2 * affine,
                curve ? curve + out : nullptr};
    }
};

// ds and s dx_hat at one output: what the sums and the scattered values are made of. `one` and `hat` give dx_hat.
template <class Real, class Use>
TLX_INLINE void second_order_at(const Shape& s, const Primal<Real>& p, const Second<Real>& q, int64_t at,
                                const Real* one, const Real* hat, const Use& use) {
    for (int64_t k = 0; k < s.K; ++k) {
        const int64_t row = k * s.C;
        for (int64_t c = 0; c < s.C; ++c) {
            const Real xh = p.x_hat[at * s.C + c], slope = p.slope[at * s.C + c], gy = q.gy[at * s.C + c];
            const Real dx_hat = p.rstd[c] * q.chosen[at * s.KC() + row + c] + one[row + c] + hat[row + c] * xh;
            Real ds = slope * q.dgy[at * s.KC() + row + c];
            if (q.curve) {
                const Real dz = p.gamma[c] * dx_hat + (q.dgamma ? q.dgamma[row + c] * xh : Real(0)) +
                                (q.dbeta ? q.dbeta[row + c] : Real(0));
                ds += q.curve[at * s.C + c] * dz * gy;
            }
            use(row + c, c, ds, slope * gy, dx_hat, xh);
        }
    }
}

template <class Real>
TLX_CLONES void affine_second(const Shape& s, const Primal<Real>& p, const Second<Real>& q, int64_t begin, int64_t end,
                              double* out) {
    const int64_t KC = s.KC();
    const Buffer<Real> buffer(4 * KC);
    Real *sums = buffer, *one = sums + 2 * KC, *hat = one + KC;
    std::fill_n(sums, 2 * KC, Real(0));
    tangent_of_x_hat(s, p, q.moments, one, hat);
    for (int64_t n = begin; n < end; ++n) {
        for (int64_t at = n * s.Ho * s.Wo; at < (n + 1) * s.Ho * s.Wo; ++at)
            second_order_at(s, p, q, at, one, hat,
                            [&](int64_t kc, int64_t, Real ds, Real sv, Real dx_hat, Real xh) TLX_LAMBDA_INLINE {
                                sums[kc] += ds, sums[KC + kc] += ds * xh + sv * dx_hat;
                            });
        flush(sums, 2 * KC, out);
    }
}

template <class Real>
TLX_CLONES void second_images(const Shape& s, const Primal<Real>& p, const Second<Real>& q, const Real* dgaffine,
                              Real inverse_count, int64_t begin, int64_t end, Real* dgx) {
    const int64_t KC = s.KC();
    const Buffer<Real> buffer(6 * KC + 2 * s.C);
    Real *one = buffer, *hat = one + KC, *dense_one = hat + KC, *dense_hat = dense_one + KC, *kept = dense_hat + KC;
    Real *value = kept + KC, *given = value + KC, *x_hat = given + s.C;
    tangent_of_x_hat(s, p, q.moments, one, hat);
    for (int64_t i = 0; i < KC; ++i) {
        const int64_t c = i % s.C;
        const Real r = p.rstd[c], gamma = p.gamma[c], dgamma = q.dgamma ? q.dgamma[i] : Real(0);
        const Real gbeta = q.gaffine[c], ggamma = q.gaffine[s.C + c], share = -r * inverse_count;
        dense_one[i] = share * (gamma * (dgaffine[i] + one[i] * ggamma) + dgamma * gbeta);
        dense_hat[i] = share * (gamma * (dgaffine[KC + i] + hat[i] * ggamma) + dgamma * ggamma);
        given[c] = share * gamma * r * ggamma;
        kept[i] = -r * q.moments[KC + i];
    }
    scatter_images<Real>(
        s, p, dense_one, dense_hat, given, q.dx, kept, q.gx, begin, end, dgx, x_hat, value,
        [&](int64_t at, Real* __restrict__ out) TLX_LAMBDA_INLINE {
            second_order_at(s, p, q, at, one, hat,
                            [&](int64_t kc, int64_t c, Real ds, Real sv, Real, Real) TLX_LAMBDA_INLINE {
                                const Real dgamma = q.dgamma ? q.dgamma[kc] : Real(0);
                                out[kc] = p.rstd[c] * (p.gamma[c] * ds + dgamma * sv);
                            });
        });
}

}  // namespace

template <class Real>
void channel_moments(const Real* x, Real* mean, Real* var, int64_t T, int64_t P, int64_t C) {
    constexpr int64_t step = 2048;
    const int64_t blocks = (P + step - 1) / step;
    const auto sweep = [&](const Real* centre, Real* out) {
        const Sums sums(T * blocks * C);
        parallel_for(T * blocks, grain_for(2 * step * C), [&](int64_t begin, int64_t end) {
            for (int64_t item = begin; item < end; ++item) {
                const int64_t t = item / blocks, first = item % blocks * step;
                sum_positions(x + t * P * C, centre ? centre + t * C : nullptr, C, first, std::min(P, first + step),
                              sums + item * C);
            }
        });
        combine<Real>(sums, T, blocks, C, 1.0 / double(P), out);
    };
    sweep(nullptr, mean);
    sweep(mean, var);
}

template <class Real>
void norm_act_pool(const Real* x, const Real* mean, const Real* rstd, const Real* gamma, const Real* beta, Real* y,
                   Real* x_hat, Real* slope, int32_t* winner, int64_t T, int64_t N, int64_t H, int64_t W, int64_t C,
                   int64_t Ho, int64_t Wo, int64_t kernel, int64_t stride, int64_t padding, double leak) {
    const Shape s{T, N, H, W, 1, C, Ho, Wo, kernel, stride, padding};
    const Primal<Real> p{x, mean, rstd, gamma, x_hat, slope, winner};
    over_blocks(s, [&](int64_t t, int64_t begin, int64_t end, int64_t) {
        const int64_t out = t * N * Ho * Wo * C;
        forward_images(s, p.of(s, t), beta + t * C, Real(leak), begin, end, y + out, x_hat + out, slope + out,
                       winner + out);
    });
}

template <class Real>
void norm_act_pool_gather(const Real* dx, const Real* x, const Real* mean, const Real* rstd, const int32_t* winner,
                          Real* chosen, Real* moments, int64_t T, int64_t N, int64_t H, int64_t W, int64_t K, int64_t C,
                          int64_t Ho, int64_t Wo, int64_t kernel, int64_t stride, int64_t padding,
                          double inverse_count) {
    const Shape s{T, N, H, W, K, C, Ho, Wo, kernel, stride, padding};
    const Primal<Real> p{x, mean, rstd, nullptr, nullptr, nullptr, winner};
    const Sums partial(moments ? T * s.blocks() * 2 * s.KC() : 0);
    over_blocks(s, [&](int64_t t, int64_t begin, int64_t end, int64_t block) {
        gather_images(s, p.of(s, t), dx + t * N * H * W * s.KC(), moments != nullptr, begin, end,
                      chosen + t * N * Ho * Wo * s.KC(), partial + block * 2 * s.KC());
    });
    if (moments) combine<Real>(partial, T, s.blocks(), 2 * s.KC(), inverse_count, moments);
}

template <class Real>
void norm_act_pool_jvp(const Real* chosen, const Real* moments, const Real* dgamma, const Real* dbeta, const Real* rstd,
                       const Real* gamma, const Real* x_hat, const Real* slope, Real* dy, int64_t T, int64_t N,
                       int64_t K, int64_t C, int64_t Ho, int64_t Wo) {
    const Shape s{T, N, 0, 0, K, C, Ho, Wo, 1, 1, 0};
    const Primal<Real> p{nullptr, nullptr, rstd, gamma, x_hat, slope, nullptr};
    const int64_t KC = s.KC(), out = N * Ho * Wo * KC;
    over_blocks(s, [&](int64_t t, int64_t begin, int64_t end, int64_t) {
        jvp_images(s, p.of(s, t), chosen + t * out, dgamma ? dgamma + t * KC : nullptr,
                   dbeta ? dbeta + t * KC : nullptr, moments + t * 2 * KC, begin, end, dy + t * out);
    });
}

template <class Real>
void norm_act_pool_affine(const Real* gy, const Real* x_hat, const Real* slope, Real* gaffine, int64_t T, int64_t N,
                          int64_t K, int64_t C, int64_t Ho, int64_t Wo) {
    const Shape s{T, N, 0, 0, K, C, Ho, Wo, 1, 1, 0};
    const Primal<Real> p{nullptr, nullptr, nullptr, nullptr, x_hat, slope, nullptr};
    const Sums partial(T * s.blocks() * 2 * s.KC());
    over_blocks(s, [&](int64_t t, int64_t begin, int64_t end, int64_t block) {
        affine_cotangents(s, p.of(s, t), gy + t * N * Ho * Wo * s.KC(), begin, end, partial + block * 2 * s.KC());
    });
    combine<Real>(partial, T, s.blocks(), 2 * s.KC(), 1.0, gaffine);
}

template <class Real>
void norm_act_pool_vjp(const Real* gy, const Real* gaffine, const Real* x, const Real* mean, const Real* rstd,
                       const Real* gamma, const Real* slope, const int32_t* winner, Real* gx, int64_t T, int64_t N,
                       int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo, int64_t kernel,
                       int64_t stride, int64_t padding, double inverse_count) {
    const Shape s{T, N, H, W, K, C, Ho, Wo, kernel, stride, padding};
    const Primal<Real> p{x, mean, rstd, gamma, nullptr, slope, winner};
    const int64_t KC = s.KC();
    over_blocks(s, [&](int64_t t, int64_t begin, int64_t end, int64_t) {
        vjp_images(s, p.of(s, t), gy + t * N * Ho * Wo * KC, gaffine + t * 2 * KC, Real(inverse_count), begin, end,
                   gx + t * N * H * W * KC);
    });
}

template <class Real>
void norm_act_pool_hvp(const Real* gy, const Real* gx, const Real* gaffine, const Real* dgy, const Real* dx,
                       const Real* chosen, const Real* dgamma, const Real* dbeta, const Real* moments, const Real* x,
                       const Real* mean, const Real* rstd, const Real* gamma, const Real* x_hat, const Real* slope,
                       const Real* curve, const int32_t* winner, Real* dgx, Real* dgaffine, int64_t T, int64_t N,
                       int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo, int64_t kernel,
                       int64_t stride, int64_t padding, double inverse_count) {
    const Shape s{T, N, H, W, K, C, Ho, Wo, kernel, stride, padding};
    const Primal<Real> p{x, mean, rstd, gamma, x_hat, slope, winner};
    const Second<Real> q{gy, gx, gaffine, dgy, dx, chosen, dgamma, dbeta, moments, curve};
    const int64_t KC = s.KC();
    const Sums partial(T * s.blocks() * 2 * KC);
    over_blocks(s, [&](int64_t t, int64_t begin, int64_t end, int64_t block) {
        affine_second(s, p.of(s, t), q.of(s, t), begin, end, partial + block * 2 * KC);
    });
    combine<Real>(partial, T, s.blocks(), 2 * KC, 1.0, dgaffine);
    over_blocks(s, [&](int64_t t, int64_t begin, int64_t end, int64_t) {
        second_images(s, p.of(s, t), q.of(s, t), dgaffine + t * 2 * KC, Real(inverse_count), begin, end,
                      dgx + t * N * H * W * KC);
    });
}

#define TLX_INSTANTIATE(Real)                                                                                          \
    template void channel_moments(const Real*, Real*, Real*, int64_t, int64_t, int64_t);                               \
    template void norm_act_pool(const Real*, const Real*, const Real*, const Real*, const Real*, Real*, Real*, Real*,  \
                                int32_t*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,      \
                                int64_t, int64_t, double);                                                             \
    template void norm_act_pool_gather(const Real*, const Real*, const Real*, const Real*, const int32_t*, Real*,      \
                                       Real*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,  \
                                       int64_t, int64_t, int64_t, double);                                             \
    template void norm_act_pool_jvp(const Real*, const Real*, const Real*, const Real*, const Real*, const Real*,      \
                                    const Real*, const Real*, Real*, int64_t, int64_t, int64_t, int64_t, int64_t,      \
                                    int64_t);                                                                          \
    template void norm_act_pool_affine(const Real*, const Real*, const Real*, Real*, int64_t, int64_t, int64_t,        \
                                       int64_t, int64_t, int64_t);                                                     \
    template void norm_act_pool_vjp(const Real*, const Real*, const Real*, const Real*, const Real*, const Real*,      \
                                    const Real*, const int32_t*, Real*, int64_t, int64_t, int64_t, int64_t, int64_t,   \
                                    int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, double);                     \
    template void norm_act_pool_hvp(const Real*, const Real*, const Real*, const Real*, const Real*, const Real*,      \
                                    const Real*, const Real*, const Real*, const Real*, const Real*, const Real*,      \
                                    const Real*, const Real*, const Real*, const Real*, const int32_t*, Real*, Real*,  \
                                    int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,   \
                                    int64_t, int64_t, double);
TLX_INSTANTIATE(float)
TLX_INSTANTIATE(double)

}  // namespace tlx
