// Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, arXiv:1509.09308), around a product over channels that
// is somebody else's GEMM: y = A^T [ (G w G^T) (B^T d B) ] A for each 4 x 4 window d of the input, 2 x 2 of the output.
//
// All four transforms are sums and differences, elementwise over channels, and each has its adjoint here, since the
// derivatives of a convolution are made of the same two products between adjoint transforms.
#include <algorithm>

#include "buffer.h"
#include "ops.h"
#include "parallel.h"
#include "simd.h"

namespace tlx {
namespace {

struct Grid {
    int64_t H, W, C, padding, th, tw;
};

constexpr int64_t kChannels = 64;  // at a time: what lies between the two sides of a transform stays in L1

// Either side of a transform is four short sums over channels. Loops of four inputs and four outputs vectorise; a loop
// over all sixteen of a window does not.

// B^T along one side of a window.
template <class Real>
TLX_INLINE void analyse(const Real* __restrict__ a, const Real* __restrict__ b, const Real* __restrict__ c,
                        const Real* __restrict__ d, Real* __restrict__ w, Real* __restrict__ x, Real* __restrict__ y,
                        Real* __restrict__ z, int64_t size) {
    for (int64_t i = 0; i < size; ++i)
        w[i] = a[i] - c[i], x[i] = b[i] + c[i], y[i] = c[i] - b[i], z[i] = b[i] - d[i];
}

// B along one side, stored or added to where four outputs are.
template <bool add, class Real>
TLX_INLINE void analyse_t(const Real* __restrict__ in, int64_t stride, Real* __restrict__ a, Real* __restrict__ b,
                          Real* __restrict__ c, Real* __restrict__ d, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
        const Real w = in[i], x = in[stride + i], y = in[2 * stride + i], z = in[3 * stride + i];
        if constexpr (add)
            a[i] += w, b[i] += x - y + z, c[i] += x + y - w, d[i] -= z;
        else
            a[i] = w, b[i] = x - y + z, c[i] = x + y - w, d[i] = -z;
    }
}

// Calls body(window, y, x) with the tile's number within all N images and the place of its first input.
template <class Body>
TLX_INLINE void for_windows(const Grid& g, int64_t begin, int64_t end, const Body& body) {
    for (int64_t n = begin; n < end; ++n)
        for (int64_t i = 0; i < g.th; ++i)
            for (int64_t j = 0; j < g.tw; ++j) body(n, (n * g.th + i) * g.tw + j, 2 * i - g.padding, 2 * j - g.padding);
}

template <class Real>
TLX_CLONES void data_range(const Grid& g, const Real* x, Real* v, int64_t tiles, int64_t begin, int64_t end) {
    const Buffer<Real> outside(g.C);
    std::fill_n(static_cast<Real*>(outside), g.C, Real(0));
    for_windows(g, begin, end, [&](int64_t n, int64_t tile, int64_t y, int64_t z) TLX_LAMBDA_INLINE {
        const Real* d[16];
        for (int64_t i = 0; i < 16; ++i) {
            const int64_t row = y + i / 4, column = z + i % 4;
            const bool inside = row >= 0 && row < g.H && column >= 0 && column < g.W;
            d[i] = inside ? x + ((n * g.H + row) * g.W + column) * g.C : static_cast<const Real*>(outside);
        }
        Real* out = v + tile * g.C;
        const int64_t plane = tiles * g.C;
        for (int64_t c = 0; c < g.C; c += kChannels) {
            const int64_t size = std::min(kChannels, g.C - c);
            Real half[16 * kChannels];
            for (int j = 0; j < 4; ++j) {
                Real* h = half + j * kChannels;
                analyse(d[j] + c, d[4 + j] + c, d[8 + j] + c, d[12 + j] + c, h, h + 4 * kChannels, h + 8 * kChannels,
                        h + 12 * kChannels, size);
            }
            for (int i = 0; i < 4; ++i) {
                const Real* h = half + 4 * i * kChannels;
                Real* o = out + 4 * i * plane + c;
                analyse(h, h + kChannels, h + 2 * kChannels, h + 3 * kChannels, o, o + plane, o + 2 * plane,
                        o + 3 * plane, size);
            }
        }
    });
}

template <class Real>
TLX_CLONES void data_t_range(const Grid& g, const Real* v, Real* x, int64_t tiles, int64_t begin, int64_t end) {
    const Buffer<Real> outside(16 * g.C);
    std::fill_n(static_cast<Real*>(outside), 16 * g.C, Real(0));
    std::fill(x + begin * g.H * g.W * g.C, x + end * g.H * g.W * g.C, Real(0));
    for_windows(g, begin, end, [&](int64_t n, int64_t tile, int64_t y, int64_t z) TLX_LAMBDA_INLINE {
        Real* d[16];
        for (int64_t i = 0; i < 16; ++i) {
            const int64_t row = y + i / 4, column = z + i % 4;
            const bool inside = row >= 0 && row < g.H && column >= 0 && column < g.W;
            d[i] = inside ? x + ((n * g.H + row) * g.W + column) * g.C : outside + i * g.C;
        }
        const Real* in = v + tile * g.C;
        const int64_t plane = tiles * g.C;
        for (int64_t c = 0; c < g.C; c += kChannels) {
            const int64_t size = std::min(kChannels, g.C - c);
            Real half[16 * kChannels];
            for (int i = 0; i < 4; ++i) {
                Real* row = half + 4 * i * kChannels;
                analyse_t<false>(in + 4 * i * plane + c, plane, row, row + kChannels, row + 2 * kChannels,
                                 row + 3 * kChannels, size);
            }
            for (int j = 0; j < 4; ++j)
                analyse_t<true>(half + j * kChannels, 4 * kChannels, d[j] + c, d[4 + j] + c, d[8 + j] + c,
                                d[12 + j] + c, size);
        }
    });
}

// The four outputs of a tile that lie inside the image; the others go to, or come from, `outside`.
template <class Real>
TLX_INLINE void tile_outputs(const Grid& g, int64_t n, int64_t y, int64_t x, Real* base, Real* outside, Real** out) {
    for (int64_t i = 0; i < 4; ++i) {
        const int64_t row = y + i / 2, column = x + i % 2;
        out[i] = row < g.H && column < g.W ? base + ((n * g.H + row) * g.W + column) * g.C : outside + i * g.C;
    }
}

template <class Real>
TLX_CLONES void output_range(const Grid& g, const Real* m, Real* y, int64_t tiles, int64_t begin, int64_t end) {
    const Buffer<Real> outside(4 * g.C);
    for_windows(g, begin, end, [&](int64_t n, int64_t tile, int64_t row, int64_t column) TLX_LAMBDA_INLINE {
        Real* out[4];
        tile_outputs<Real>(g, n, row, column, y, outside, out);
        const Real* in = m + tile * g.C;
        const int64_t plane = tiles * g.C;
#pragma omp simd
        for (int64_t c = 0; c < g.C; ++c) {
            Real top[4], bottom[4];
            for (int j = 0; j < 4; ++j) {
                const Real a = in[j * plane + c], b = in[(4 + j) * plane + c], e = in[(8 + j) * plane + c],
                           f = in[(12 + j) * plane + c];
                top[j] = a + b + e, bottom[j] = b - e - f;
            }
            out[0][c] = top[0] + top[1] + top[2], out[1][c] = top[1] - top[2] - top[3];
            out[2][c] = bottom[0] + bottom[1] + bottom[2], out[3][c] = bottom[1] - bottom[2] - bottom[3];
        }
    });
}

template <class Real>
TLX_CLONES void output_t_range(const Grid& g, const Real* y, Real* m, int64_t tiles, int64_t begin, int64_t end) {
    const Buffer<Real> outside(4 * g.C);
    std::fill_n(static_cast<Real*>(outside), 4 * g.C, Real(0));
    for_windows(g, begin, end, [&](int64_t n, int64_t tile, int64_t row, int64_t column) TLX_LAMBDA_INLINE {
        const Real* in[4];
        tile_outputs<const Real>(g, n, row, column, y, static_cast<const Real*>(outside), in);
        Real* out = m + tile * g.C;
        const int64_t plane = tiles * g.C;
#pragma omp simd
        for (int64_t c = 0; c < g.C; ++c) {
            Real side[8];  // A y, 4 x 2
            for (int j = 0; j < 2; ++j) {
                const Real a = in[j][c], b = in[2 + j][c];
                side[j] = a, side[2 + j] = a + b, side[4 + j] = a - b, side[6 + j] = -b;
            }
            for (int i = 0; i < 4; ++i) {
                const Real a = side[2 * i], b = side[2 * i + 1];
                out[(4 * i) * plane + c] = a, out[(4 * i + 1) * plane + c] = a + b;
                out[(4 * i + 2) * plane + c] = a - b, out[(4 * i + 3) * plane + c] = -b;
            }
        }
    });
}

Grid input_grid(int64_t H, int64_t W, int64_t C, int64_t padding) {
    return {H, W, C, padding, (H + 2 * padding - 1) / 2, (W + 2 * padding - 1) / 2};
}

Grid output_grid(int64_t Ho, int64_t Wo, int64_t C) { return {Ho, Wo, C, 0, (Ho + 1) / 2, (Wo + 1) / 2}; }

template <class Run>
void over_images(const Grid& g, int64_t N, const Run& run) {
    parallel_for(N, grain_for(64 * g.th * g.tw * g.C),
                 [&](int64_t begin, int64_t end) { run(N * g.th * g.tw, begin, end); });
}

}  // namespace

template <class Real>
void winograd_data(const Real* x, Real* v, int64_t N, int64_t H, int64_t W, int64_t C, int64_t padding) {
    const Grid g = input_grid(H, W, C, padding);
    over_images(g, N, [&](int64_t tiles, int64_t b, int64_t e) { data_range(g, x, v, tiles, b, e); });
}

template <class Real>
void winograd_data_t(const Real* v, Real* x, int64_t N, int64_t H, int64_t W, int64_t C, int64_t padding) {
    const Grid g = input_grid(H, W, C, padding);
    over_images(g, N, [&](int64_t tiles, int64_t b, int64_t e) { data_t_range(g, v, x, tiles, b, e); });
}

template <class Real>
void winograd_output(const Real* m, Real* y, int64_t N, int64_t Ho, int64_t Wo, int64_t C) {
    const Grid g = output_grid(Ho, Wo, C);
    over_images(g, N, [&](int64_t tiles, int64_t b, int64_t e) { output_range(g, m, y, tiles, b, e); });
}

template <class Real>
void winograd_output_t(const Real* y, Real* m, int64_t N, int64_t Ho, int64_t Wo, int64_t C) {
    const Grid g = output_grid(Ho, Wo, C);
    over_images(g, N, [&](int64_t tiles, int64_t b, int64_t e) { output_t_range(g, y, m, tiles, b, e); });
}

#define TLX_INSTANTIATE(Real)                                                                    \
    template void winograd_data(const Real*, Real*, int64_t, int64_t, int64_t, int64_t, int64_t); \
    template void winograd_data_t(const Real*, Real*, int64_t, int64_t, int64_t, int64_t, int64_t); \
    template void winograd_output(const Real*, Real*, int64_t, int64_t, int64_t, int64_t);        \
    template void winograd_output_t(const Real*, Real*, int64_t, int64_t, int64_t, int64_t);
TLX_INSTANTIATE(float)
TLX_INSTANTIATE(double)

}  // namespace tlx
