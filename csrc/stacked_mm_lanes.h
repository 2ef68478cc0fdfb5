// out (+)= a b for one pair of matrices; the body of cpu/stacked_mm.cpp, once a SIMD level. Columns of b are the lanes.
//
// A panel of b, as deep as kDepth and as wide as the registers, is copied so that it lies together; rows of a pass over
// it a few at a time, each number for all columns at once.

#include "lanes.h"

constexpr int64_t kDepth = 256;

template <int R, int C, class Real>
TLX_INLINE void rows_of(const Real* a, int64_t a_m, int64_t a_k, const typename LanesOf<Real>::type* panel, int64_t depth,
                        Real* out, int64_t out_m, int64_t columns, bool add) {
    using L = typename LanesOf<Real>::type;
    constexpr int64_t lanes = LanesOf<Real>::count;
    const bool whole = columns == C * lanes;  // copies of a vector's own size are one instruction
    L acc[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            acc[r][c] = L{};
            if (add && whole) std::memcpy(&acc[r][c], out + r * out_m + c * lanes, sizeof(L));
        }
    for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Real left = a[r * a_m + k * a_k];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) acc[r][c] += left * panel[k * C + c];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            Real* to = out + r * out_m + c * lanes;
            if (whole) {
                std::memcpy(to, &acc[r][c], sizeof(L));
                continue;
            }
            for (int64_t j = 0; j < std::min<int64_t>(lanes, columns - c * lanes); ++j)
                to[j] = add ? to[j] + acc[r][c][j] : acc[r][c][j];
        }
}

template <int C, class Real>
__attribute__((noinline)) void panel_of(const StackedMm<Real>& p, const Real* a, const Real* b, Real* out,
                                        int64_t column, typename LanesOf<Real>::type* panel) {
    constexpr int64_t lanes = LanesOf<Real>::count;
    const int64_t columns = std::min<int64_t>(C * lanes, p.n - column);
    Real* packed = reinterpret_cast<Real*>(panel);
    for (int64_t k0 = 0; k0 < p.k; k0 += kDepth) {
        const int64_t depth = std::min(kDepth, p.k - k0);
        const Real* from = b + k0 * p.b_k + column * p.b_n;
        if (columns < C * lanes) std::fill(packed, packed + depth * C * lanes, Real(0));
        if (p.b_n == 1)
            for (int64_t k = 0; k < depth; ++k) std::copy(from + k * p.b_k, from + k * p.b_k + columns, packed + k * C * lanes);
        else
            for (int64_t c = 0; c < columns; ++c)
                for (int64_t k = 0; k < depth; ++k) packed[k * C * lanes + c] = from[c * p.b_n + k * p.b_k];
        const bool add = p.add || k0 > 0;
        int64_t m = 0;
        for (; m + 5 <= p.m; m += 5)
            rows_of<5, C>(a + m * p.a_m + k0 * p.a_k, p.a_m, p.a_k, panel, depth, out + m * p.out_m + column, p.out_m,
                          columns, add);
        const Real* rest = a + m * p.a_m + k0 * p.a_k;
        Real* to = out + m * p.out_m + column;
        switch (p.m - m) {
            case 4: rows_of<4, C>(rest, p.a_m, p.a_k, panel, depth, to, p.out_m, columns, add); break;
            case 3: rows_of<3, C>(rest, p.a_m, p.a_k, panel, depth, to, p.out_m, columns, add); break;
            case 2: rows_of<2, C>(rest, p.a_m, p.a_k, panel, depth, to, p.out_m, columns, add); break;
            case 1: rows_of<1, C>(rest, p.a_m, p.a_k, panel, depth, to, p.out_m, columns, add); break;
        }
    }
}

// The i-th panel of an item: of nearly equal width all, none wider than kPanel vectors.
template <class Real>
void multiply(const StackedMm<Real>& p, int64_t item, int64_t i, int64_t panels) {
    constexpr int64_t lanes = LanesOf<Real>::count;
    const int64_t vectors = (p.n + lanes - 1) / lanes, first = i * vectors / panels;
    const Buffer<Real> memory(kDepth * kPanel * lanes);
    auto* panel = reinterpret_cast<typename LanesOf<Real>::type*>(static_cast<Real*>(memory));
    const Real *a = p.a + item * p.a_batch, *b = p.b + item * p.b_batch;
    Real* out = p.out + item * p.out_batch;
    switch ((i + 1) * vectors / panels - first) {
        case 1: return panel_of<1>(p, a, b, out, first * lanes, panel);
        case 2: return panel_of<2>(p, a, b, out, first * lanes, panel);
        case 3: return panel_of<3>(p, a, b, out, first * lanes, panel);
        case 4: return panel_of<4>(p, a, b, out, first * lanes, panel);
        default: return panel_of<kPanel>(p, a, b, out, first * lanes, panel);
    }
}
