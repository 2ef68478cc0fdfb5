// out = x P^T with dense signs +-1/sqrt(d) that are bits of Philox. Of four columns there are only 16 signed sums: they
// are made once for many rows of P, each of which adds the one that its bits name (Arlazarov, Dinic, Kronrod and
// Faradzhev's "four Russians", 1970). One load and one addition stand for four multiplications.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "buffer.h"
#include "parallel.h"
#include "philox.h"
#include "rademacher.h"

#define TLX_BODY "rademacher_lanes.h"
#include "each_level.h"

namespace tlx {

template <class Real>
void rademacher(const Real* x, Real* out, int64_t m, int64_t q, int64_t d, int64_t seed) {
    const Rademacher<Real> job{x, out, m, q, d, uint64_t(seed)};
    const int64_t rows = kSharedGroups * simd_bytes() / int64_t(sizeof(Real));
    const int64_t parts = (d + kSharedOutputs - 1) / kSharedOutputs;
    parallel_for((m + rows - 1) / rows * parts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            TLX_AT_LEVEL(project_groups(job, i / parts * rows, i % parts * kSharedOutputs));
    });
}

template void rademacher(const float*, float*, int64_t, int64_t, int64_t, int64_t);
template void rademacher(const double*, double*, int64_t, int64_t, int64_t, int64_t);

}  // namespace tlx
