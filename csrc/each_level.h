// Compiles the file TLX_BODY once a SIMD level, in a namespace of its own, with TLX_LANE_BYTES the width of its vectors;
// TLX_AT_LEVEL calls this processor's. For kernels that choose how many registers they use: where plain
// loops do, TLX_CLONES is simpler. TLX_BODY includes nothing; whatever it needs is included before.
#include "ops.h"

#if defined(TLX_HAVE_CLONES) && !defined(__clang__)  // clang has no #pragma GCC target
#define TLX_EACH_LEVEL

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define TLX_LANE_BYTES 64
namespace tlx::v4 {
#include TLX_BODY
}
#undef TLX_LANE_BYTES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define TLX_LANE_BYTES 32
namespace tlx::v3 {
#include TLX_BODY
}
#undef TLX_LANE_BYTES
#pragma GCC pop_options
#endif

#define TLX_LANE_BYTES 16
namespace tlx::baseline {
#include TLX_BODY
}
#undef TLX_LANE_BYTES

// CALL, a function of the body and its arguments, at this processor's level.
#ifdef TLX_EACH_LEVEL
#define TLX_AT_LEVEL(CALL) \
    (tlx::simd_bytes() == 64 ? tlx::v4::CALL : tlx::simd_bytes() == 32 ? tlx::v3::CALL : tlx::baseline::CALL)
#else
#define TLX_AT_LEVEL(CALL) tlx::baseline::CALL
#endif
