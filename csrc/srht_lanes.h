// The body of cpu/srht.cpp, once a SIMD level: one group of rows.

#include "row_lanes.h"

constexpr int64_t kBlock = 4096;  // columns transformed together, 64 bytes each at the widest: the second-level cache
constexpr int64_t kPiece = 256;   // of them at a time in the first-level cache

// One pass of an unnormalised Hadamard transform over `size` vectors: levels stride, 2 stride, .. of R = 2^levels.
template <int R, class L>
TLX_INLINE void pass(L* x, int64_t size, int64_t stride) {
    for (int64_t base = 0; base < size; base += R * stride)
        for (int64_t i = base; i < base + stride; ++i) {
            L v[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) v[r] = x[i + r * stride];
#pragma GCC unroll 3
            for (int h = 1; h < R; h *= 2)
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r)
                    if (!(r & h)) {
                        const L a = v[r], b = v[r + h];
                        v[r] = a + b;
                        v[r + h] = a - b;
                    }
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) x[i + r * stride] = v[r];
        }
}

// The levels from `stride` up to `size`, three a pass.
template <class L>
TLX_INLINE void hadamard(L* x, int64_t size, int64_t stride) {
    for (; 8 * stride <= size; stride *= 8) pass<8>(x, size, stride);
    if (4 * stride == size) pass<4>(x, size, stride);
    if (2 * stride == size) pass<2>(x, size, stride);
}

// block = the columns from `first` on, with their signs, transformed; beyond the last column there are zeros.
template <class Real, class L>
TLX_INLINE void transform(const Srht<Real>& p, const Real* x, int64_t rows, int64_t first, int64_t size, L* block) {
    const int64_t piece = std::min(kPiece, size);
    uint32_t word[4][kPlaces];
    for (int64_t c = 0; c < size; c += piece) {
        if (c % (128 * kPlaces) == 0) philox(p.seed, Stream::srht_signs, uint64_t(first + c) / 128, 0, 1, 0, word);
        const int64_t width = std::clamp<int64_t>(p.q - first - c, 0, piece);
        rows_to_lanes(x + first + c, p.q, rows, width, block + c);
        for (int64_t i = c; i < c + width; ++i)
            block[i] *= Real(1 - 2 * int(word[i / 32 % 4][i / 128 % kPlaces] >> i % 32 & 1));
        std::fill(block + c + width, block + c + piece, L{});
        hadamard(block + c, piece, 1);
    }
    hadamard(block, size, piece);
}

template <class Real>
void project_group(const Srht<Real>& p, int64_t group) {
    using L = typename LanesOf<Real>::type;
    constexpr int64_t n = LanesOf<Real>::count;
    const int64_t row = group * n, rows = std::min(n, p.m - row);
    int64_t size = 1;
    while (size < kBlock && size < p.q) size *= 2;
    const Buffer<Real> memory((size + p.d) * n);
    L *block = reinterpret_cast<L*>(static_cast<Real*>(memory)), *sums = block + size;
    std::fill(sums, sums + p.d, L{});
    for (int64_t b = 0; b * size < p.q; ++b) {
        transform(p, p.x + row * p.q, rows, b * size, size, block);
        for (int64_t j = 0; j < p.d; ++j) {  // H is the Kronecker product of what the blocks' places and their columns get
            const bool minus = __builtin_parityll(p.rows[j] / size & b);
            sums[j] += block[p.rows[j] % size] * Real(1 - 2 * int(minus));
        }
    }
    lanes_to_rows(sums, Real(1 / std::sqrt(double(p.d))), p.out + row * p.d, p.d, rows, p.d);
}
