// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four words that depend on a
// 128-bit counter and a 64-bit key alone. What is drawn for a place is the same wherever and in whatever order it is
// drawn: in csrc, in kernels/ and in tlxml_fast/ops/philox.py.
#pragma once

#include <cstdint>

#include "simd.h"

namespace tlx {

// The counter's fourth word: each op draws from a stream of its own.
enum class Stream : uint32_t { sjlt = 1, srht_signs = 2, srht_rows = 3, rademacher = 4 };

constexpr int kPlaces = 16;  // that are drawn together, one a lane

// word[k][l] = the k-th word of the place (i + l * along_i, j + l * along_j) of a stream. i is the first two words of the
// counter, j the third.
TLX_INLINE void philox(uint64_t seed, Stream stream, uint64_t i, uint32_t j, uint32_t along_i, uint32_t along_j,
                       uint32_t (&word)[4][kPlaces]) {
    for (uint32_t l = 0; l < kPlaces; ++l) {
        word[0][l] = uint32_t(i + l * along_i);
        word[1][l] = uint32_t((i + l * along_i) >> 32);
        word[2][l] = j + l * along_j;
        word[3][l] = uint32_t(stream);
    }
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
#pragma omp simd
        for (int l = 0; l < kPlaces; ++l) {
            const uint64_t a = uint64_t(0xD2511F53u) * word[0][l], b = uint64_t(0xCD9E8D57u) * word[2][l];
            word[0][l] = uint32_t(b >> 32) ^ word[1][l] ^ k0;
            word[1][l] = uint32_t(b);
            word[2][l] = uint32_t(a >> 32) ^ word[3][l] ^ k1;
            word[3][l] = uint32_t(a);
        }
    }
}

}  // namespace tlx
