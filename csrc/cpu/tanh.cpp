// out = tanh(x).
#include "ops.h"
#include "parallel.h"
#include "simd.h"

namespace tlx {
namespace {

template <class Real>
TLX_CLONES void range(const Real* __restrict__ x, Real* __restrict__ out, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = tanh_one(x[i]);
}

}  // namespace

template <class Real>
void tanh(const Real* x, Real* out, int64_t size) {
    parallel_for(size, grain_for(32), [&](int64_t begin, int64_t end) { range(x, out, begin, end); });
}

template void tanh(const float*, float*, int64_t);
template void tanh(const double*, double*, int64_t);

}  // namespace tlx
