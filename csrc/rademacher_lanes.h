// The body of cpu/rademacher.cpp, once a SIMD level: some rows of P times some groups of rows of x.

#include "row_lanes.h"

constexpr int64_t kQuads = kPanel / 4, kSums = 16;

// sums[quad][n] = the sum of four columns, those of n's bits negative.
template <class L>
TLX_INLINE void signed_sums(const L* column, L* sums) {
    for (int64_t quad = 0; quad < kQuads; ++quad, column += 4, sums += kSums) {
        const L plus = column[0] + column[1], minus = column[0] - column[1];
        const L low[4] = {plus, -minus, minus, -plus};
        const L plus2 = column[2] + column[3], minus2 = column[2] - column[3];
        const L high[4] = {plus2, -minus2, minus2, -plus2};
#pragma GCC unroll 16
        for (int n = 0; n < kSums; ++n) sums[n] = low[n & 3] + high[n >> 2];
    }
}

// The eight sums that a word's bits ask for.
template <class L>
TLX_INLINE L look_up(const L* sums, uint32_t word) {
    L total = sums[word & 15];
#pragma GCC unroll 8
    for (int quad = 1; quad < 8; ++quad) total += sums[quad * kSums + (word >> 4 * quad & 15)];
    return total;
}

template <class Real>
void project_groups(const Rademacher<Real>& p, int64_t rows_first, int64_t outputs_first) {
    using L = typename LanesOf<Real>::type;
    constexpr int64_t n = LanesOf<Real>::count;
    const int64_t outputs = std::min(kSharedOutputs, p.d - outputs_first);
    const int64_t groups = std::min(kSharedGroups, (p.m - rows_first + n - 1) / n);
    const Buffer<Real> memory((groups * outputs + kQuads * kSums + kPanel) * n);
    L* total = reinterpret_cast<L*>(static_cast<Real*>(memory));
    L *sums = total + groups * outputs, *column = sums + kQuads * kSums;
    const Buffer<uint32_t> drawn(4 * outputs);
    uint32_t* word = drawn;
    std::fill(total, total + groups * outputs, L{});
    for (int64_t first = 0; first < p.q; first += kPanel) {
        const int64_t width = std::min(kPanel, p.q - first);
        for (int64_t r = 0; r < outputs; r += kPlaces) {
            uint32_t w[4][kPlaces];
            philox(p.seed, Stream::rademacher, uint64_t(first / kPanel), uint32_t(outputs_first + r), 0, 1, w);
            for (int64_t k = 0; k < 4; ++k)
                std::copy(w[k], w[k] + std::min<int64_t>(kPlaces, outputs - r), word + k * outputs + r);
        }
        std::fill(column + width, column + kPanel, L{});
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t row = rows_first + group * n;
            rows_to_lanes(p.x + row * p.q + first, p.q, std::min(n, p.m - row), width, column);
            signed_sums(column, sums);
            for (int64_t r = 0; r < outputs; ++r) {
                const L a = look_up(sums, word[r]), b = look_up(sums + 8 * kSums, word[outputs + r]);
                const L c = look_up(sums + 16 * kSums, word[2 * outputs + r]);
                const L d = look_up(sums + 24 * kSums, word[3 * outputs + r]);
                total[group * outputs + r] += (a + b) + (c + d);
            }
        }
    }
    for (int64_t group = 0; group < groups; ++group) {
        const int64_t row = rows_first + group * n;
        lanes_to_rows(total + group * outputs, Real(1 / std::sqrt(double(p.d))), p.out + row * p.d + outputs_first, p.d,
                      std::min(n, p.m - row), outputs);
    }
}
