// The arguments of the op stacked_mm (ops.h), as they travel to the level that runs it.
#pragma once

#include <cstdint>

namespace tlx {

constexpr int64_t kPanel = 5;  // vectors of columns that are multiplied together

template <class Real>
struct StackedMm {
    const Real *a, *b;
    Real* out;
    int64_t m, k, n, a_batch, a_m, a_k, b_batch, b_k, b_n, out_batch, out_m;
    bool add;
};

}  // namespace tlx
