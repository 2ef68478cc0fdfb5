// out_i (+)= a_i b_i for a stack of pairs of matrices that stay in the cache. Sums run along k in order, in pieces of a
// fixed depth: the sizes alone decide a result's bits.
#include <algorithm>
#include <cstring>

#include "buffer.h"
#include "parallel.h"
#include "simd.h"
#include "stacked_mm.h"

#define TLX_BODY "stacked_mm_lanes.h"
#include "each_level.h"

namespace tlx {

template <class Real>
void stacked_mm(const Real* a, const Real* b, Real* out, int64_t B, int64_t m, int64_t k, int64_t n, int64_t a_batch,
                int64_t a_m, int64_t a_k, int64_t b_batch, int64_t b_k, int64_t b_n, int64_t out_batch, int64_t out_m,
                int64_t add) {
    const StackedMm<Real> pairs{a,   b,   out,     m,   k,   n,         a_batch, a_m,
                                a_k, b_batch, b_k, b_n, out_batch, out_m,   add != 0};
    const int64_t lanes = simd_bytes() / int64_t(sizeof(Real)), panels = ((n + lanes - 1) / lanes + kPanel - 1) / kPanel;
    parallel_for(B * panels, grain_for(2 * m * k * n / panels), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) TLX_AT_LEVEL(multiply(pairs, i / panels, i % panels, panels));
    });
}

template void stacked_mm(const float*, const float*, float*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                         int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
template void stacked_mm(const double*, const double*, double*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                         int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

}  // namespace tlx
