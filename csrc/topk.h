// The order of top-k, for the CPU and for CUDA alike: a score's rank is an unsigned integer, so that NaN and the zeros
// have a place and a comparison means the same everywhere. Of equal ranks the lower index comes first.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define TLX_BOTH __host__ __device__ __forceinline__
#else
#define TLX_BOTH inline __attribute__((always_inline))
#endif

namespace tlx {

constexpr int64_t kTopkMax = 1024;

template <class Real>
struct Bits;
template <>
struct Bits<float> {
    using type = uint32_t;
    static constexpr type sign = 0x80000000u, infinity = 0x7f800000u, nan = 0x7fc00000u;
};
template <>
struct Bits<double> {
    using type = uint64_t;
    static constexpr type sign = 0x8000000000000000u, infinity = 0x7ff0000000000000u, nan = 0x7ff8000000000000u;
};

// Higher is better. A number's rank is above both of these: it is that of an infinity at the least.
template <class Real>
using Rank = typename Bits<Real>::type;
constexpr uint32_t kEmpty = 0, kNan = 1;

template <class Real>
struct Entry {
    Rank<Real> rank;
    int64_t index;
};

template <class Real>
TLX_BOTH bool before(const Entry<Real>& a, const Entry<Real>& b) {
    return a.rank > b.rank || (a.rank == b.rank && a.index < b.index);
}

// The bits of numbers, read as integers, ascend from 0 upwards and descend from -0 downwards.
template <class Real>
TLX_BOTH Rank<Real> rank_of(Real score, bool largest) {
    if (score != score) return kNan;
    score += Real(0);  // makes -0 into 0: they are equal
    Rank<Real> bits;
    std::memcpy(&bits, &score, sizeof bits);
    bits = bits & Bits<Real>::sign ? ~bits : bits | Bits<Real>::sign;
    return largest ? bits : ~bits;
}

// An empty place holds the infinity that every score is better than.
template <class Real>
TLX_BOTH Real score_of(Rank<Real> rank, bool largest) {
    Rank<Real> bits = largest ? rank : ~rank;
    bits = bits & Bits<Real>::sign ? bits & ~Bits<Real>::sign : ~bits;
    if (rank == kNan) bits = Bits<Real>::nan;
    if (rank == kEmpty) bits = largest ? Bits<Real>::sign | Bits<Real>::infinity : Bits<Real>::infinity;
    Real score;
    std::memcpy(&score, &bits, sizeof score);
    return score;
}

template <class Real>
TLX_BOTH Entry<Real> entry_of(Real score, int64_t index, bool largest) {
    return {index < 0 ? kEmpty : rank_of(score, largest), index < 0 ? -1 : index};
}

}  // namespace tlx
