// out = x P^T with P = S H D / sqrt(d): random signs D, the Hadamard matrix H of q padded to a power of two, d sampled
// rows S. A group of rows, one a lane, is worked through in blocks of columns: a block is transformed in the cache, and
// of the levels above, only the rows that S asks for are added up.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "buffer.h"
#include "parallel.h"
#include "philox.h"
#include "srht.h"

#define TLX_BODY "srht_lanes.h"
#include "each_level.h"

namespace tlx {

template <class Real>
void srht(const Real* x, const int64_t* rows, Real* out, int64_t m, int64_t q, int64_t d, int64_t seed) {
    const Srht<Real> job{x, rows, out, m, q, d, uint64_t(seed)};
    const int64_t lanes = simd_bytes() / int64_t(sizeof(Real));
    parallel_for((m + lanes - 1) / lanes, 1, [&](int64_t begin, int64_t end) {
        for (int64_t group = begin; group < end; ++group) TLX_AT_LEVEL(project_group(job, group));
    });
}

template void srht(const float*, const int64_t*, float*, int64_t, int64_t, int64_t, int64_t);
template void srht(const double*, const int64_t*, double*, int64_t, int64_t, int64_t, int64_t);

}  // namespace tlx
