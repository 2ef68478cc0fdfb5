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

// Calls body(pixel or -1, patch): offsets of a position's first channel in the image, and of its place in the rows.
template <class Body>
TLX_INLINE void for_taps(const Shape& s, int64_t begin, int64_t end, const Body& body) {
    const int64_t taps = s.kernel_h * s.kernel_w;
    for (int64_t n = begin; n < end; ++n)
        for (int64_t i = 0; i < s.Ho; ++i)
            for (int64_t j = 0; j < s.Wo; ++j)
                for (int64_t tap = 0; tap < taps; ++tap) {
                    const int64_t y = i * s.stride_h - s.padding_h + tap / s.kernel_w;
                    const int64_t x = j * s.stride_w - s.padding_w + tap % s.kernel_w;
                    const bool inside = y >= 0 && y < s.H && x >= 0 && x < s.W;
                    const int64_t pixel = inside ? ((n * s.H + y) * s.W + x) * s.K * s.C : -1;
                    body(pixel, (((n * s.Ho + i) * s.Wo + j) * s.K * taps + tap) * s.C, taps * s.C);
                }
}

template <class Real>
TLX_CLONES void gather_range(const Shape& s, const Real* __restrict__ x, Real* __restrict__ patches, int64_t begin,
                             int64_t end) {
    for_taps(s, begin, end, [&](int64_t pixel, int64_t patch, int64_t row) TLX_LAMBDA_INLINE {
        for (int64_t k = 0; k < s.K; ++k)
            for (int64_t c = 0; c < s.C; ++c)
                patches[patch + k * row + c] = pixel < 0 ? Real(0) : x[pixel + k * s.C + c];
    });
}

template <class Real>
TLX_CLONES void add_range(const Shape& s, const Real* __restrict__ patches, Real* __restrict__ x, int64_t begin,
                          int64_t end) {
    const int64_t image = s.H * s.W * s.K * s.C;
    std::fill(x + begin * image, x + end * image, Real(0));
    for_taps(s, begin, end, [&](int64_t pixel, int64_t patch, int64_t row) TLX_LAMBDA_INLINE {
        if (pixel < 0) return;
        for (int64_t k = 0; k < s.K; ++k)
            for (int64_t c = 0; c < s.C; ++c) x[pixel + k * s.C + c] += patches[patch + k * row + c];
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
