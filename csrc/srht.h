// The arguments of the op srht (ops.h), as they travel to the level that runs it.
#pragma once

#include <cstdint>

namespace tlx {

template <class Real>
struct Srht {
    const Real* x;
    const int64_t* rows;
    Real* out;
    int64_t m, q, d;
    uint64_t seed;
};

}  // namespace tlx
