// One source, several instruction sets: kernels are plain loops, compiled once a level and chosen at load time.
//
// TLX_CLONES goes before the outer function of a kernel. Whatever that function calls in its loops must be
// TLX_INLINE: a helper that is not inlined is compiled once, for the baseline, and called from every clone.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef TLX_HAVE_CLONES  // probed by CMakeLists.txt; off under sanitizers and on aarch64, where NEON is the baseline
#define TLX_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TLX_CLONES
#endif

#define TLX_INLINE inline __attribute__((always_inline))
#define TLX_LAMBDA_INLINE __attribute__((always_inline))

namespace tlx {

template <class Real>
struct Float;

// magic: adding 1.5 * 2^mantissa rounds to the nearest integer and leaves it in the low bits. ln2 = ln2_hi + ln2_lo,
// where ln2_hi has zeros enough at its end for n * ln2_hi to be exact. Below lowest exp is 0, above highest it is inf;
// from half of tanh_is_one on tanh is 1.
template <>
struct Float<float> {
    using Bits = uint32_t;
    static constexpr int mantissa = 23, bias = 127, degree = 7;
    static constexpr float magic = 0x1.8p23f, lowest = -104.0f, highest = 89.0f, tanh_is_one = 20.0f;
    static constexpr float ln2_hi = 0x1.62e4p-1f, ln2_lo = 0x1.7f7d1cp-20f, log2_e = 0x1.715476p+0f;
};

template <>
struct Float<double> {
    using Bits = uint64_t;
    static constexpr int mantissa = 52, bias = 1023, degree = 13;
    static constexpr double magic = 0x1.8p52, lowest = -746.0, highest = 710.0, tanh_is_one = 40.0;
    static constexpr double ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33, log2_e = 0x1.71547652b82fep+0;
};

template <class To, class From>
TLX_INLINE To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// What exp is made of: x = N ln 2 + r with |r| <= ln(2)/2, and e^r - 1 by Taylor, whose last term is below ulp/20.
template <class Real>
struct Reduced {
    typename Float<Real>::Bits N;
    Real tail;  // e^r - 1
};

template <class Real>
TLX_INLINE Reduced<Real> reduced(Real x) {
    using F = Float<Real>;
    const Real shifted = x * F::log2_e + F::magic;
    const Real N = shifted - F::magic;
    const Real r = (x - N * F::ln2_hi) - N * F::ln2_lo;

    constexpr Real factorial_inverse[] = {
        Real(1),           Real(1),            Real(1.0L / 2),         Real(1.0L / 6),         Real(1.0L / 24),
        Real(1.0L / 120),  Real(1.0L / 720),   Real(1.0L / 5040),      Real(1.0L / 40320),     Real(1.0L / 362880),
        Real(1.0L / 3628800), Real(1.0L / 39916800), Real(1.0L / 479001600), Real(1.0L / 6227020800.0L)};
    Real q = factorial_inverse[F::degree];
#pragma GCC unroll 16
    for (int i = F::degree - 1; i >= 2; --i) q = q * r + factorial_inverse[i];
    return {bit_cast<typename F::Bits>(shifted) - bit_cast<typename F::Bits>(F::magic), r + r * r * q};
}

// exp(x) within 2 ulp, subnormal results, infinities and NaN included. libm's exp is a call, and a call in a loop
// stops vectorisation.
template <class Real>
TLX_INLINE Real exp_one(Real x) {
    using F = Float<Real>;
    using Bits = typename F::Bits;
    x = x < F::lowest ? F::lowest : x;  // in this form a NaN stays a NaN
    x = x > F::highest ? F::highest : x;
    const Reduced<Real> parts = reduced(x);

    // 2^N in two factors, since N reaches beyond the exponents of normal numbers. Unsigned: SSE2 has no signed shift.
    constexpr Bits offset = Bits(1) << 12;
    const Bits half = ((parts.N + offset) >> 1) - (offset >> 1);
    const Real first = bit_cast<Real>((half + F::bias) << F::mantissa);
    const Real second = bit_cast<Real>((parts.N - half + F::bias) << F::mantissa);
    return (Real(1) + parts.tail) * first * second;
}

// tanh(x) within 4 ulp, from m = e^(2|x|) - 1 = (2^N - 1) + 2^N (e^r - 1), which does not cancel: m/(m + 2).
template <class Real>
TLX_INLINE Real tanh_one(Real x) {
    using F = Float<Real>;
    Real y = x < 0 ? -2 * x : 2 * x;
    y = y > F::tanh_is_one ? F::tanh_is_one : y;
    const Reduced<Real> parts = reduced(y);
    const Real power = bit_cast<Real>((parts.N + F::bias) << F::mantissa);
    const Real m = (power - Real(1)) + power * parts.tail;
    const Real size = m / (m + Real(2));
    return x < 0 ? -size : size;
}

}  // namespace tlx
