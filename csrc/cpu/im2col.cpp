// Patches of images as rows of a matrix, and the adjoint that adds rows back into images. A run of C channels of one
// tangent is what is copied; all K tangents of a position follow each other, so that rows are (n, i, j, k).
#include <algorithm>

#include "ops.h"
#include "parallel.h"
#include "simd.h"

namespace tlx {
namespace {

struct Shape {
    int64_t H, W, K, C, Ho, Wo, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
};

// Calls body(first, last, pixel, patch) for every tap and row of outputs: columns first to last - 1 lie inside the image,
// and column j's channels begin at pixel + j * step of the image, its place among the rows at patch + j * row.
template <class Body>
TLX_INLINE void for_taps(const Shape& s, int64_t begin, int64_t end, const Body& body) {
    const int64_t taps = s.kernel_h * s.kernel_w, row = s.K * taps * s.C;
    for (int64_t n = begin; n < end; ++n)
        for (int64_t i = 0; i < s.Ho; ++i)
            for (int64_t tap = 0; tap < taps; ++tap) {
                const int64_t y = i * s.stride_h - s.padding_h + tap / s.kernel_w;
                const int64_t x = tap % s.kernel_w - s.padding_w;  // of column 0
                int64_t first = 0, last = 0;
                if (y >= 0 && y < s.H) {
                    first = x < 0 ? (-x + s.stride_w - 1) / s.stride_w : 0;
                    last = x < s.W ? (s.W - 1 - x) / s.stride_w + 1 : 0;
                    last = std::min(last, s.Wo), first = std::min(first, last);
                }
                body(first, last, ((n * s.H + y) * s.W + x) * s.K * s.C, (n * s.Ho + i) * s.Wo * row + tap * s.C);
            }
}

// For every column and tangent: body(channels of the image, channels of the patch).
template <class Body>
TLX_INLINE void for_columns(const Shape& s, int64_t first, int64_t last, int64_t pixel, int64_t patch,
                            const Body& body) {
    const int64_t step = s.stride_w * s.K * s.C, taps = s.kernel_h * s.kernel_w * s.C, row = s.K * taps;
    for (int64_t j = first; j < last; ++j)
        for (int64_t k = 0; k < s.K; ++k) body(pixel + j * step + k * s.C, patch + j * row + k * taps);
}

template <class Real>
TLX_INLINE void gather(const Shape& s, const Real* __restrict__ x, Real* __restrict__ patches, int64_t begin,
                       int64_t end, int64_t C) {
    for_taps(s, begin, end, [&](int64_t first, int64_t last, int64_t pixel, int64_t patch) TLX_LAMBDA_INLINE {
        const auto clear = [&](int64_t, int64_t to) TLX_LAMBDA_INLINE {
            for (int64_t c = 0; c < C; ++c) patches[to + c] = 0;
        };
        for_columns(s, 0, first, 0, patch, clear);
        for_columns(s, first, last, pixel, patch, [&](int64_t from, int64_t to) TLX_LAMBDA_INLINE {
            for (int64_t c = 0; c < C; ++c) patches[to + c] = x[from + c];
        });
        for_columns(s, last, s.Wo, 0, patch, clear);
    });
}

// Grey images under 3 x 3 kernels at stride 1, where a run of channels is a single number: three taps at once.
template <class Real>
TLX_INLINE void gather_grey(const Shape& s, const Real* __restrict__ x, Real* __restrict__ patches, int64_t begin,
                            int64_t end) {
    for (int64_t n = begin; n < end; ++n)
        for (int64_t i = 0; i < s.Ho; ++i) {
            Real* row = patches + (n * s.Ho + i) * s.Wo * 9;
            for (int64_t tap = 0; tap < 3; ++tap, row += 3) {
                const int64_t y = i - s.padding_h + tap;
                const Real* from = x + (n * s.H + y) * s.W - s.padding_w;
                for (int64_t j = 0; j < s.Wo; ++j)
                    for (int64_t t = 0; t < 3; ++t) {
                        const int64_t column = j + t - s.padding_w;
                        const bool inside = y >= 0 && y < s.H && column >= 0 && column < s.W;
                        row[j * 9 + t] = inside ? from[j + t] : Real(0);
                    }
            }
        }
}

// With a constant C the innermost loop is gone: images come in with one channel, or three.
template <class Real>
TLX_CLONES void gather_range(const Shape& s, const Real* x, Real* patches, int64_t begin, int64_t end) {
    const bool square = s.kernel_h == 3 && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1;
    if (s.K * s.C == 1 && square) return gather_grey(s, x, patches, begin, end);
    switch (s.C) {
        case 1: return gather(s, x, patches, begin, end, 1);
        case 3: return gather(s, x, patches, begin, end, 3);
        default: return gather(s, x, patches, begin, end, s.C);
    }
}

template <class Real>
TLX_CLONES void add_range(const Shape& s, const Real* __restrict__ patches, Real* __restrict__ x, int64_t begin,
                          int64_t end) {
    const int64_t image = s.H * s.W * s.K * s.C;
    std::fill(x + begin * image, x + end * image, Real(0));
    for_taps(s, begin, end, [&](int64_t first, int64_t last, int64_t pixel, int64_t patch) TLX_LAMBDA_INLINE {
        for_columns(s, first, last, pixel, patch, [&](int64_t to, int64_t from) TLX_LAMBDA_INLINE {
            for (int64_t c = 0; c < s.C; ++c) x[to + c] += patches[from + c];
        });
    });
}

int64_t grain(const Shape& s) { return grain_for(2 * s.Ho * s.Wo * s.K * s.kernel_h * s.kernel_w * s.C); }

}  // namespace

template <class Real>
void im2col(const Real* x, Real* patches, int64_t N, int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo,
            int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h,
            int64_t padding_w) {
    const Shape s{H, W, K, C, Ho, Wo, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w};
    parallel_for(N, grain(s), [&](int64_t begin, int64_t end) { gather_range(s, x, patches, begin, end); });
}

template <class Real>
void col2im(const Real* patches, Real* x, int64_t N, int64_t H, int64_t W, int64_t K, int64_t C, int64_t Ho, int64_t Wo,
            int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h,
            int64_t padding_w) {
    const Shape s{H, W, K, C, Ho, Wo, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w};
    parallel_for(N, grain(s), [&](int64_t begin, int64_t end) { add_range(s, patches, x, begin, end); });
}

#define TLX_INSTANTIATE(Real)                                                                                        \
    template void im2col(const Real*, Real*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, \
                         int64_t, int64_t, int64_t, int64_t, int64_t);                                               \
    template void col2im(const Real*, Real*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, \
                         int64_t, int64_t, int64_t, int64_t, int64_t);
TLX_INSTANTIATE(float)
TLX_INSTANTIATE(double)

}  // namespace tlx
