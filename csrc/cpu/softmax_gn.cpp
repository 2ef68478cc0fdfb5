// (Lambda u)_m = p_m * (u_m - <p_m, u_m>) / n with p = softmax(logits): the Gauss-Newton factor of the mean
// cross-entropy. One work item is one (task, tangent); a range computes p anew only where it enters a task.
#include "buffer.h"
#include "ops.h"
#include "parallel.h"
#include "softmax.h"

namespace tlx {
namespace {

template <class Real>
TLX_CLONES void range(const Real* logits, const Real* u, Real* out, int64_t K, int64_t n, int64_t C, int64_t begin,
                      int64_t end) {
    const int64_t size = n * C;
    const Buffer<Real> p(size);
    for (int64_t item = begin; item < end; ++item) {
        if (item == begin || item % K == 0) softmax_rows(logits + item / K * size, static_cast<Real*>(p), n, C);
        softmax_gn_rows(static_cast<Real*>(p), u + item * size, out + item * size, n, C);
    }
}

}  // namespace

template <class Real>
void softmax_gn(const Real* logits, const Real* u, Real* out, int64_t T, int64_t K, int64_t n, int64_t C) {
    parallel_for(T * K, grain_for(8 * n * C),
                 [&](int64_t begin, int64_t end) { range(logits, u, out, K, n, C, begin, end); });
}

template void softmax_gn(const float*, const float*, float*, int64_t, int64_t, int64_t, int64_t);
template void softmax_gn(const double*, const double*, double*, int64_t, int64_t, int64_t, int64_t);

}  // namespace tlx
