// The body of cpu/sjlt.cpp, once a SIMD level: columns `first` .. `first + count - 1` of one group of rows are added to
// its sums, [d][lanes]. places[b * count + i] is 2 r + (1 for a minus), the b-th place of column i.

#include "row_lanes.h"

// A piece of columns, and its negative, stays in the first-level cache while it is added s times.
constexpr int64_t kPiece = 128;

template <class Real>
void add_columns(const Sjlt<Real>& p, int64_t group, int64_t first, int64_t count, const uint32_t* places, Real* memory) {
    using L = typename LanesOf<Real>::type;
    constexpr int64_t n = LanesOf<Real>::count;
    const int64_t row = group * n, rows = std::min(n, p.m - row);
    L* sums = reinterpret_cast<L*>(memory) + group * p.d;
    if (first == 0) std::memset(sums, 0, p.d * sizeof(L));
    alignas(64) L column[kPiece], signed_column[2 * kPiece];
    for (int64_t c = 0; c < count; c += kPiece) {
        const int64_t width = std::min(kPiece, count - c);
        rows_to_lanes(p.x + row * p.q + first + c, p.q, rows, width, column);
        for (int64_t i = 0; i < width; ++i) {
            signed_column[2 * i] = column[i];
            signed_column[2 * i + 1] = -column[i];
        }
        for (int64_t b = 0; b < p.s; ++b) {
            const uint32_t* place = places + b * count + c;
            for (int64_t i = 0; i < width; ++i) sums[place[i] >> 1] += signed_column[2 * i + (place[i] & 1)];
        }
    }
    if (first + count == p.q)
        lanes_to_rows(sums, Real(1 / std::sqrt(double(p.s))), p.out + row * p.d, p.d, rows, p.d);
}
