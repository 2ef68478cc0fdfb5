// The arguments of the op sjlt (ops.h), as they travel to the level that runs it.
#pragma once

#include <cstdint>

namespace tlx {

template <class Real>
struct Sjlt {
    const Real* x;
    Real* out;
    int64_t m, q, d, s;
};

}  // namespace tlx
