// The arguments of the op rademacher (ops.h), as they travel to the level that runs it.
#pragma once

#include <cstdint>

namespace tlx {

constexpr int64_t kSharedGroups = 4;        // groups of rows that share the signs drawn
constexpr int64_t kSharedOutputs = 1024;    // rows of P that share the sums of four columns
constexpr int64_t kPanel = 128;             // columns whose signs are one place of Philox

template <class Real>
struct Rademacher {
    const Real* x;
    Real* out;
    int64_t m, q, d;
    uint64_t seed;
};

}  // namespace tlx
