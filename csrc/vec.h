// Vectors of float or double as compiler vector extensions, their 2^x, and the witness that keeps it safe.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifndef POOLSWAP_ISA
#error "compile with -DPOOLSWAP_ISA=name: the variants of this code must not share symbols"
#endif
#define POOLSWAP_INLINE inline __attribute__((always_inline))
#define POOLSWAP_LAMBDA __attribute__((always_inline))
#define POOLSWAP_ONCE __attribute__((noinline))  // one copy for all element types that are computed alike

#if defined(POOLSWAP_VECTOR_BYTES)
#elif defined(__AVX512F__)
#define POOLSWAP_VECTOR_BYTES 64
#elif defined(__AVX__)
#define POOLSWAP_VECTOR_BYTES 32
#else
#define POOLSWAP_VECTOR_BYTES 16
#endif

namespace poolswap::POOLSWAP_ISA {

// Without fused multiply-add x * slope would be rounded before the shift is taken off, and no shared shift is safe.
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif

template <class F>
struct Lanes;

template <>
struct Lanes<float> {
    typedef float V __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef int32_t I __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef uint32_t U __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef V Unaligned __attribute__((aligned(4), may_alias));
    static constexpr int kCount = POOLSWAP_VECTOR_BYTES / 4;
    static constexpr int kMantissa = 23;
    static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    typedef uint32_t Word;
    static constexpr uint32_t kMagicBits = 0x4B400000u;
    static constexpr float kLowest = -125.0f;  // 2^this is still a normal number
    static constexpr float kLog2e = 1.44269504088896340736f;
};

template <>
struct Lanes<double> {
    typedef double V __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef int64_t I __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef uint64_t U __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef V Unaligned __attribute__((aligned(8), may_alias));
    static constexpr int kCount = POOLSWAP_VECTOR_BYTES / 8;
    static constexpr int kMantissa = 52;
    static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
    typedef uint64_t Word;
    static constexpr uint64_t kMagicBits = 0x4338000000000000u;
    static constexpr double kLowest = -1021.0;
    static constexpr double kLog2e = 1.44269504088896340736;
};

template <class F>
using Vec = typename Lanes<F>::V;
template <class F>
using Bits = typename Lanes<F>::U;

template <class F>
POOLSWAP_INLINE Vec<F> load(const F* from) {
    return *reinterpret_cast<const typename Lanes<F>::Unaligned*>(from);
}

template <class F>
POOLSWAP_INLINE void store(F* to, Vec<F> value) {
    *reinterpret_cast<typename Lanes<F>::Unaligned*>(to) = value;
}

// Of memory that is read from one end to the other: fetches what lies a page ahead. Processors stop at the end of a
// page, and see no more than a few hundred instructions ahead.
template <class F>
POOLSWAP_INLINE Vec<F> load_in_passing(const F* from) {
    __builtin_prefetch(reinterpret_cast<const char*>(from) + 4096);
    return load(from);
}

// The same where it is written.
template <class F>
POOLSWAP_INLINE void store_in_passing(F* to, Vec<F> value) {
    __builtin_prefetch(reinterpret_cast<const char*>(to) + 4096, 1);
    store(to, value);
}

// Whether lines of the cache can be written as a whole, past the caches: without fetching what was there, and without
// keeping what is there now. Vectors must start at a line then.
#if defined(__AVX512F__)
constexpr bool kWritesLines = POOLSWAP_VECTOR_BYTES == 64;
template <class F>
POOLSWAP_INLINE void store_line(F* to, Vec<F> value) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)value);
}
POOLSWAP_INLINE void finish_lines() { _mm_sfence(); }
#else
constexpr bool kWritesLines = false;
template <class F>
POOLSWAP_INLINE void store_line(F* to, Vec<F> value) {
    store(to, value);
}
POOLSWAP_INLINE void finish_lines() {}
#endif

// The last `rest` elements of a run, fewer than a vector has; the very last one is repeated.
template <class F>
Vec<F> load_rest(const F* from, int64_t rest) {
    F last[Lanes<F>::kCount];
    for (int k = 0; k < Lanes<F>::kCount; ++k) last[k] = from[k < rest ? k : rest - 1];
    return load(last);
}

template <class F>
POOLSWAP_INLINE Vec<F> fill(F value) {
    return value - Vec<F>{};
}

template <class F>
POOLSWAP_INLINE Vec<F> masked(Vec<F> value, Bits<F> mask) {
    return (Vec<F>)((Bits<F>)value & mask);
}

template <class F>
POOLSWAP_INLINE typename Lanes<F>::I lane_index() {
    typename Lanes<F>::I index{};
    for (int i = 0; i < Lanes<F>::kCount; ++i) index[i] = i;
    return index;
}

template <class F>
POOLSWAP_INLINE bool any(Bits<F> bits) {
    uint64_t words[POOLSWAP_VECTOR_BYTES / 8], all = 0;
    memcpy(words, &bits, sizeof words);
    for (uint64_t word : words) all |= word;
    return all != 0;
}

// Calls fn(i) for vectors that cover 0..n. Where n is no multiple the last one overlaps its neighbour, so fn must
// give the same result twice; where n is less than a vector, fn(0) reaches beyond it and the rows must have room.
template <class F, class Fn>
POOLSWAP_INLINE void strips(int64_t n, Fn&& fn) {
    constexpr int kCount = Lanes<F>::kCount;
    int64_t i = 0;
    for (; i + kCount <= n; i += kCount) fn(i);
    if (i < n) fn(n >= kCount ? n - kCount : int64_t{0});
}

template <class F, int kFrom, int... kIndex>
POOLSWAP_INLINE Vec<F> alternate_lanes_(Vec<F> low, Vec<F> high, std::integer_sequence<int, kIndex...>) {
    return __builtin_shufflevector(low, high, (kFrom + 2 * kIndex)...);
}
template <class F, int kFrom, int... kIndex>
POOLSWAP_INLINE Vec<F> neighbours_(Vec<F> low, Vec<F> high, std::integer_sequence<int, kIndex...>) {
    return __builtin_shufflevector(low, high, (kFrom + kIndex)...);
}
template <class F, int kFrom, int... kIndex>
POOLSWAP_INLINE Vec<F> interleaved_(Vec<F> a, Vec<F> b, std::integer_sequence<int, kIndex...>) {
    return __builtin_shufflevector(a, b, (kFrom + kIndex / 2 + kIndex % 2 * Lanes<F>::kCount)...);
}
template <class F>
using EachLane = std::make_integer_sequence<int, Lanes<F>::kCount>;

// Elements 0, 2, 4, .. of two neighbouring vectors.
template <class F>
POOLSWAP_INLINE Vec<F> even_lanes(Vec<F> low, Vec<F> high) {
    return alternate_lanes_<F, 0>(low, high, EachLane<F>{});
}
template <class F>
POOLSWAP_INLINE Vec<F> odd_lanes(Vec<F> low, Vec<F> high) {
    return alternate_lanes_<F, 1>(low, high, EachLane<F>{});
}
// Of two neighbouring vectors: the elements before those of `now`, and the elements after those of `now`.
template <class F>
POOLSWAP_INLINE Vec<F> shifted_in(Vec<F> before, Vec<F> now) {
    return neighbours_<F, Lanes<F>::kCount - 1>(before, now, EachLane<F>{});
}
template <class F>
POOLSWAP_INLINE Vec<F> shifted_out(Vec<F> now, Vec<F> after) {
    return neighbours_<F, 1>(now, after, EachLane<F>{});
}
// Lane i of the result is the sum of the lanes of rows[i].
template <class F>
POOLSWAP_INLINE Vec<F> across_lanes(Vec<F> (&rows)[Lanes<F>::kCount]) {
    for (int count = Lanes<F>::kCount; count > 1; count /= 2)
        for (int i = 0; i < count; i += 2)
            rows[i / 2] = even_lanes<F>(rows[i], rows[i + 1]) + odd_lanes<F>(rows[i], rows[i + 1]);
    return rows[0];
}
// a0 b0 a1 b1 .. as two vectors.
template <class F>
POOLSWAP_INLINE Vec<F> interleaved_low(Vec<F> a, Vec<F> b) {
    return interleaved_<F, 0>(a, b, EachLane<F>{});
}
template <class F>
POOLSWAP_INLINE Vec<F> interleaved_high(Vec<F> a, Vec<F> b) {
    return interleaved_<F, Lanes<F>::kCount / 2>(a, b, EachLane<F>{});
}

constexpr double inverse_power(int exponent) {
    double power = 1;
    for (int i = 0; i < exponent; ++i) power /= 2;
    return power;
}

// 2^f for f in [-0.5, 0.5], times 2^(low bits of `shift` - kBias): minimax polynomials, scaled so that p(0) = 1.
template <int kBias>
POOLSWAP_INLINE Vec<float> scaled_exp2(Vec<float> f, Vec<float> shift) {
    constexpr float kUnit = float(inverse_power(kBias));
    Vec<float> p = f * (0.0013276476857f * kUnit) + 0.0096755406701f * kUnit;
    p = p * f + 0.0555071286101f * kUnit;
    p = p * f + 0.2402211800346f * kUnit;
    p = p * f + 0.6931469174008f * kUnit;
    p = p * f + kUnit;
    return (Vec<float>)((Bits<float>)p + ((Bits<float>)shift << Lanes<float>::kMantissa));
}

template <int kBias>
POOLSWAP_INLINE Vec<double> scaled_exp2(Vec<double> f, Vec<double> shift) {
    constexpr double kUnit = inverse_power(kBias);
    Vec<double> p = f * (4.435286674587416703e-10 * kUnit) + 7.074105251236832355e-9 * kUnit;
    p = p * f + 1.017819799338246713e-7 * kUnit;
    p = p * f + 1.321543309185114978e-6 * kUnit;
    p = p * f + 0.00001525273349006237087 * kUnit;
    p = p * f + 0.000154035304625099661 * kUnit;
    p = p * f + 0.001333355814678983701 * kUnit;
    p = p * f + 0.00961812910758833888 * kUnit;
    p = p * f + 0.055504108664819922 * kUnit;
    p = p * f + 0.2402265069591015619 * kUnit;
    p = p * f + 0.6931471805599453305 * kUnit;
    p = p * f + kUnit;
    return (Vec<double>)((Bits<double>)p + ((Bits<double>)shift << Lanes<double>::kMantissa));
}

// 2^z for kLowest <= z <= 0.
template <class F>
POOLSWAP_INLINE Vec<F> exp2_of(Vec<F> z) {
    const Vec<F> t = z + Lanes<F>::kMagic;
    return scaled_exp2<0>(z - (t - Lanes<F>::kMagic), t);
}

// The same over kSteps to a power of two: for f in [-0.5, 0.5], 2^(f / kSteps) times 2^(low bits of `shift` / kSteps -
// kBias).
template <class F, int kBias>
struct SteppedExp2 {
    static constexpr int kSteps = 1;

    POOLSWAP_INLINE Vec<F> operator()(Vec<F> f, Vec<F> shift) const { return scaled_exp2<kBias>(f, shift); }
};

#if defined(__AVX512F__)
// The multiply-adds of a polynomial are what the fast tiles wait for most. Where two registers can be a table of the
// powers between 1 and 2, and one instruction looks all lanes up, the polynomial has degree 2 instead of 5, and its
// leading coefficient goes into the table: one addition, which waits elsewhere, and one multiply-add.
template <int kBias>
struct SteppedExp2<float, kBias> {
    static constexpr int kSteps = 32, kIndexBits = 5, kMantissa = Lanes<float>::kMantissa;
    static constexpr float kLinear = 92.33309f, kConstant = 4262.6094f;  // over the coefficient of f^2
    // 2^(i / 32 - kBias) / kConstant, less the i that `shift` brings along in the bits below its exponent.
    Bits<float> low, high;

    POOLSWAP_INLINE SteppedExp2() {
        constexpr int kCount = Lanes<float>::kCount;
        const Bits<float> lane = (Bits<float>)lane_index<float>();
        double power = inverse_power(kBias) / double(kConstant);
        for (int i = 0; i < kSteps; ++i, power *= 0x1.059b0d3158574p+0) {  // 2^(1 / 32)
            const float rounded = float(power);
            memcpy(reinterpret_cast<char*>(i < kCount ? &low : &high) + i % kCount * 4, &rounded, 4);
        }
        low -= lane << (kMantissa - kIndexBits);
        high -= (lane + kCount) << (kMantissa - kIndexBits);
    }

    POOLSWAP_INLINE Vec<float> operator()(Vec<float> f, Vec<float> shift) const {
        const auto power = (Bits<float>)_mm512_permutex2var_epi32((__m512i)low, (__m512i)shift, (__m512i)high);
        const Vec<float> p = (f + kLinear) * f + kConstant;
        return p * (Vec<float>)(power + ((Bits<float>)shift << (kMantissa - kIndexBits)));
    }
};
#endif

// 2^(slope x - c) without a look at the window's maximum. With n = round(kSteps (slope x - c)), every
// t = MAGIC + kReach + n. `witness` gathers the bits in which t differs from MAGIC. As long as they stay below
// 2 kReach, every slope x - c lies within kRange, so no sum over a window overflows or drops its small terms. NaN and
// infinities leave the range.
template <class F, int kRange>
struct SharedExp {
    using Power = SteppedExp2<F, kRange>;
    static constexpr int kReach = kRange * Power::kSteps;
    static constexpr double kFarthest = 0x1p21 / Power::kSteps;  // |c| below it: MAGIC + kReach - kSteps c is exact
    Vec<F> slope, magic;
    Power power;
    Bits<F> witness{};

    // c is an integer.
    POOLSWAP_INLINE SharedExp(F slope_, F c)
        : slope(fill<F>(slope_ * Power::kSteps)), magic(fill<F>(Lanes<F>::kMagic + F(kReach) - c * F(Power::kSteps))) {}

    POOLSWAP_INLINE Vec<F> operator()(Vec<F> x) {
        const Vec<F> t = x * slope + magic;
        witness |= (Bits<F>)t ^ Lanes<F>::kMagicBits;
        return power(x * slope - (t - magic), t);
    }

    POOLSWAP_INLINE bool safe() const { return !any<F>(witness & ~typename Lanes<F>::Word(2 * kReach - 1)); }
};

}  // namespace poolswap::POOLSWAP_ISA
