// Every kernel of the core, with its shapes. This is the one declaration an op has: the bindings are derived from
// these signatures (bindings.cpp), and each op's formula and file carry the same name in csrc/cpu, ops/ and tests/ops.
//
// Arrays are contiguous and row-major. Outputs are allocated by the caller, never read, and overlap no input.
// Sizes are at least 1. Letters: T tasks, K tangents a task, S support examples (ways x shots), n queries,
// C classes (ways), D embedding width. Real is float or double.
#pragma once

#include <cstdint>

namespace tlx {

// out = exp(x), elementwise: the exponential that the other kernels use, open to tests and to `tlxml-fast doctor`.
template <class Real>
void exp(const Real* x,  // [size]
         Real* out,      // [size]
         int64_t size);

// out = Lambda u, the Gauss-Newton factor of the mean cross-entropy of each task's logits.
template <class Real>
void softmax_gn(const Real* logits,  // [T, n, C]
                const Real* u,       // [T, K, n, C]
                Real* out,           // [T, K, n, C]
                int64_t T, int64_t K, int64_t n, int64_t C);

enum class Distance : int64_t { sqeuclidean = 0, euclidean = 1, cosine = 2 };

// J^T Lambda J applied to tangents of the embeddings, J the Jacobian of the ProtoNet head's logits.
template <class Real>
void proto_gn(const Real* support,     // [T, S, D]
              const Real* query,       // [T, n, D]
              const int64_t* labels,   // [T, S], in 0..C-1, every class at least once
              const Real* dsupport,    // [T, K, S, D]
              const Real* dquery,      // [T, K, n, D]
              Real* gsupport,          // [T, K, S, D]
              Real* gquery,            // [T, K, n, D]
              int64_t T, int64_t K, int64_t S, int64_t n, int64_t C, int64_t D, Distance distance, double scale);

// One row an op: bindings.cpp binds NAME_f32 and NAME_f64 for each.
#define TLX_FOR_EACH_OP(OP) \
    OP(exp)                 \
    OP(softmax_gn)          \
    OP(proto_gn)

// The SIMD level that the dynamic linker chose for this processor: "x86-64-v4", "x86-64-v3" or "baseline".
const char* simd_level();

}  // namespace tlx
