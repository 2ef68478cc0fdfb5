// out = x P^T with the sparse Johnson-Lindenstrauss matrix P: column i of P has one entry +-1/sqrt(s) in each of s blocks
// of rows. Places and signs are drawn once for a run of columns and serve all rows of x; a group of rows, one a lane,
// scatters its columns into sums that stay in the second-level cache. x is read once, and is what takes the time.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "buffer.h"
#include "parallel.h"
#include "philox.h"
#include "sjlt.h"

#define TLX_BODY "sjlt_lanes.h"
#include "each_level.h"

namespace tlx {
namespace {

constexpr int64_t kRun = 1 << 18;  // columns whose places are drawn at a time: s MiB of them

// places[b * count + i] = 2 r + sign for columns `first` + begin .. end - 1; block b is rows b d/s .. (b + 1) d/s - 1.
TLX_CLONES void draw(uint32_t* __restrict__ places, uint64_t seed, int64_t first, int64_t count, int64_t d, int64_t s,
                     int64_t begin, int64_t end) {
    for (int64_t b = 0; b < s; b += 4) {
        uint32_t start[5];
        for (int64_t k = 0; k <= 4; ++k) start[k] = uint32_t(std::min(b + k, s) * d / s);
        for (int64_t i = begin; i < end; i += kPlaces) {
            uint32_t word[4][kPlaces];
            philox(seed, Stream::sjlt, uint64_t(first + i), uint32_t(b / 4), 1, 0, word);
            for (int64_t k = 0; k < std::min<int64_t>(4, s - b); ++k) {
                uint32_t place[kPlaces];
                for (int l = 0; l < kPlaces; ++l) {
                    const uint32_t w = word[k][l];
                    place[l] = 2 * (start[k] + uint32_t(uint64_t(w >> 1) * (start[k + 1] - start[k]) >> 31)) | (w & 1);
                }
                std::copy(place, place + std::min<int64_t>(kPlaces, end - i), places + (b + k) * count + i);
            }
        }
    }
}

}  // namespace

template <class Real>
void sjlt(const Real* x, Real* out, int64_t m, int64_t q, int64_t d, int64_t s, int64_t seed) {
    const Sjlt<Real> job{x, out, m, q, d, s};
    const int64_t lanes = simd_bytes() / int64_t(sizeof(Real)), groups = (m + lanes - 1) / lanes;
    const Buffer<uint32_t> places(std::min(q, kRun) * s);
    const Buffer<Real> sums(groups * d * lanes);
    for (int64_t first = 0; first < q; first += kRun) {
        const int64_t count = std::min(kRun, q - first);
        parallel_for(count, grain_for(40 * s), [&](int64_t begin, int64_t end) {
            draw(places, uint64_t(seed), first, count, d, s, begin, end);
        });
        parallel_for(groups, 1, [&](int64_t begin, int64_t end) {
            for (int64_t g = begin; g < end; ++g)
                TLX_AT_LEVEL(add_columns(job, g, first, count, static_cast<const uint32_t*>(places), static_cast<Real*>(sums)));
        });
    }
}

template void sjlt(const float*, float*, int64_t, int64_t, int64_t, int64_t, int64_t);
template void sjlt(const double*, double*, int64_t, int64_t, int64_t, int64_t, int64_t);

}  // namespace tlx
