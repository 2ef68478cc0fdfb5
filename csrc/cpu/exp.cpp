// out = exp(x), and the level at which this and every other kernel runs.
#include "ops.h"
#include "parallel.h"
#include "simd.h"

namespace tlx {
namespace {

template <class Real>
TLX_CLONES void range(const Real* __restrict__ x, Real* __restrict__ out, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = exp_one(x[i]);
}

#ifdef TLX_HAVE_CLONES  // resolved by the rule that picks among TLX_CLONES
__attribute__((target("arch=x86-64-v4"))) int64_t bytes() { return 64; }
__attribute__((target("arch=x86-64-v3"))) int64_t bytes() { return 32; }
__attribute__((target("default"))) int64_t bytes() { return 16; }
#else
int64_t bytes() { return 16; }
#endif

}  // namespace

template <class Real>
void exp(const Real* x, Real* out, int64_t size) {
    parallel_for(size, grain_for(32), [&](int64_t begin, int64_t end) { range(x, out, begin, end); });
}

template void exp(const float*, float*, int64_t);
template void exp(const double*, double*, int64_t);

int64_t simd_bytes() { return bytes(); }

const char* simd_level() { return bytes() == 64 ? "x86-64-v4" : bytes() == 32 ? "x86-64-v3" : "baseline"; }

}  // namespace tlx
