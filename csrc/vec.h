// Vectors of float or double as compiler vector extensions.
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

#if defined(POOLSWAP_VECTOR_BYTES)
#elif defined(__AVX512F__)
#define POOLSWAP_VECTOR_BYTES 64
#elif defined(__AVX__)
#define POOLSWAP_VECTOR_BYTES 32
#else
#define POOLSWAP_VECTOR_BYTES 16
#endif

namespace poolswap::POOLSWAP_ISA {

// Without fused multiply-add an exponent would be rounded before its integer part is taken off. GCC fuses from -O2 on.
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
    typedef V Unaligned __attribute__((aligned(4), may_alias));
    typedef int32_t Integer;
    static constexpr int kCount = POOLSWAP_VECTOR_BYTES / 4;
    static constexpr int kMantissa = 23, kBias = 127;
    // Adding kMagic rounds to an integer n in the low bits. For |n| < 2^21 the sum differs from kMagicBase below 2^22.
    static constexpr float kMagicBase = 0x1.8p23f, kMagic = kMagicBase + 0x1p21f;
    static constexpr float kLowest = -125.0f;     // 2^this is still a normal number
};

template <>
struct Lanes<double> {
    typedef double V __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef int64_t I __attribute__((vector_size(POOLSWAP_VECTOR_BYTES)));
    typedef V Unaligned __attribute__((aligned(8), may_alias));
    typedef int64_t Integer;
    static constexpr int kCount = POOLSWAP_VECTOR_BYTES / 8;
    static constexpr int kMantissa = 52, kBias = 1023;
    static constexpr double kMagicBase = 0x1.8p52, kMagic = kMagicBase + 0x1p50;
    static constexpr double kLowest = -1021.0;
};

template <class F>
using Vec = typename Lanes<F>::V;
template <class F>
using Bits = typename Lanes<F>::I;

template <class F>
POOLSWAP_INLINE Vec<F> load(const F* from) {
    return *reinterpret_cast<const typename Lanes<F>::Unaligned*>(from);
}

template <class F>
POOLSWAP_INLINE void store(F* to, Vec<F> value) {
    *reinterpret_cast<typename Lanes<F>::Unaligned*>(to) = value;
}

template <class F>
POOLSWAP_INLINE Vec<F> fill(F value) {
    return value - Vec<F>{};
}

template <class F>
POOLSWAP_INLINE Vec<F> larger(Vec<F> a, Vec<F> b) {
    return a > b ? a : b;
}
template <class F>
POOLSWAP_INLINE Vec<F> smaller(Vec<F> a, Vec<F> b) {
    return a < b ? a : b;
}

template <class F>
POOLSWAP_INLINE bool any(Bits<F> bits) {
    uint64_t words[POOLSWAP_VECTOR_BYTES / 8], all = 0;
    memcpy(words, &bits, sizeof words);
    for (uint64_t word : words) all |= word;
    return all != 0;
}

// value * 2^steps for integers steps <= 0; 0 where the power is no normal number.
#if defined(__AVX512F__) && POOLSWAP_VECTOR_BYTES == 64
POOLSWAP_INLINE Vec<float> scaled(Vec<float> value, Vec<float> steps) {
    return (Vec<float>)_mm512_maskz_scalef_ps(0xFFFF, (__m512)value, (__m512)steps);
}
POOLSWAP_INLINE Vec<double> scaled(Vec<double> value, Vec<double> steps) {
    return (Vec<double>)_mm512_maskz_scalef_pd(0xFF, (__m512d)value, (__m512d)steps);
}
template <class V>
POOLSWAP_INLINE V power_of_two(V steps) {
    using F = std::remove_reference_t<decltype(steps[0])>;
    return scaled(fill<F>(F(1)), steps);
}
#else
template <class V>
POOLSWAP_INLINE V power_of_two(V steps) {
    using F = std::remove_reference_t<decltype(steps[0])>;
    constexpr F kZero = F(-Lanes<F>::kBias);  // as an exponent it makes the bits of 0
    const V power = larger<F>(steps, fill<F>(kZero)) + (Lanes<F>::kMagic + F(Lanes<F>::kBias));
    return (V)((Bits<F>)power << Lanes<F>::kMantissa);
}
template <class V>
POOLSWAP_INLINE V scaled(V value, V steps) { return value * power_of_two(steps); }
#endif

// 1 / value for positive normal numbers, with an error of an ulp or so, and numerator / value, rounded as division does
// or nearly.
#if defined(__AVX512F__) && POOLSWAP_VECTOR_BYTES == 64
POOLSWAP_INLINE Vec<float> reciprocal(Vec<float> value) {
    const Vec<float> guess = (Vec<float>)_mm512_maskz_rcp14_ps(0xFFFF, (__m512)value);
    return guess + guess * (1.0f - guess * value);
}
POOLSWAP_INLINE Vec<float> quotient(Vec<float> numerator, Vec<float> value) {
    const Vec<float> inverse = reciprocal(value), guess = numerator * inverse;
    return guess + inverse * (numerator - guess * value);
}
#else
POOLSWAP_INLINE Vec<float> reciprocal(Vec<float> value) { return 1.0f / value; }
POOLSWAP_INLINE Vec<float> quotient(Vec<float> numerator, Vec<float> value) { return numerator / value; }
#endif
POOLSWAP_INLINE Vec<double> reciprocal(Vec<double> value) { return 1.0 / value; }
POOLSWAP_INLINE Vec<double> quotient(Vec<double> numerator, Vec<double> value) { return numerator / value; }

// 2^f for f in [-0.5, 0.5]: minimax polynomials with p(0) = 1. benchmarks/prove_exponential.cpp measures them.
POOLSWAP_INLINE Vec<float> exp2_fraction(Vec<float> f) {
    Vec<float> p = f * 0.0013276476857f + 0.0096755406701f;
    p = p * f + 0.0555071286101f;
    p = p * f + 0.2402211800346f;
    p = p * f + 0.6931469174008f;
    return p * f + 1.0f;
}
POOLSWAP_INLINE Vec<double> exp2_fraction(Vec<double> f) {
    Vec<double> p = f * 4.435286674587416703e-10 + 7.074105251236832355e-9;
    p = p * f + 1.017819799338246713e-7;
    p = p * f + 1.321543309185114978e-6;
    p = p * f + 0.00001525273349006237087;
    p = p * f + 0.000154035304625099661;
    p = p * f + 0.001333355814678983701;
    p = p * f + 0.00961812910758833888;
    p = p * f + 0.055504108664819922;
    p = p * f + 0.2402265069591015619;
    p = p * f + 0.6931471805599453305;
    return p * f + 1.0;
}

// 2^z for kLowest <= z <= 0.
template <class F>
POOLSWAP_INLINE Vec<F> exp2_of(Vec<F> z) {
    const Vec<F> rounded = (z + Lanes<F>::kMagic) - Lanes<F>::kMagic;
    return scaled(exp2_fraction(z - rounded), rounded);
}

// Shuffles of two vectors a, b by a constant function: lane k of the result is lane Index::at(k) of a followed by b.
template <class F, class Index, int... kLane>
POOLSWAP_INLINE Vec<F> shuffled(Vec<F> a, Vec<F> b, std::integer_sequence<int, kLane...>) {
    return __builtin_shufflevector(a, b, Index::at(kLane)...);
}
template <class F, class Index>
POOLSWAP_INLINE Vec<F> shuffled(Vec<F> a, Vec<F> b) {
    return shuffled<F, Index>(a, b, std::make_integer_sequence<int, Lanes<F>::kCount>{});
}

// a0 b0 a1 b1 .. in groups of kSize lanes, of the low (kHigh 0) or high (1) half of every 16 bytes.
template <class F, int kSize, int kHigh>
struct Interleave {
    static constexpr int kHalf = 8 / int(sizeof(F));
    static constexpr int at(int lane) {
        const int within = lane % (2 * kHalf), from = lane - within + kHigh * kHalf;
        return from + within / (2 * kSize) * kSize + within % kSize + within / kSize % 2 * Lanes<F>::kCount;
    }
};
// The matrix ((a, a'), (b, b')) of blocks of kSize lanes becomes ((a, b), (a', b')): its first (kSecond 0) or second row.
template <class F, int kSize, int kSecond>
struct SwapBlocks {
    static constexpr int at(int lane) {
        const int base = lane / (2 * kSize) * 2 * kSize, within = lane % kSize;
        return base + kSecond * kSize + within + (lane & kSize ? Lanes<F>::kCount : 0);
    }
};

template <class F, int kSize>
POOLSWAP_INLINE void swap_blocks(Vec<F> (&rows)[Lanes<F>::kCount]) {
    constexpr int kCount = Lanes<F>::kCount;
    if constexpr (kSize < kCount) {
#pragma GCC unroll 16
        for (int i = 0; i < kCount; ++i)
            if (!(i & kSize)) {
                const Vec<F> a = rows[i], b = rows[i + kSize];
                rows[i] = shuffled<F, SwapBlocks<F, kSize, 0>>(a, b);
                rows[i + kSize] = shuffled<F, SwapBlocks<F, kSize, 1>>(a, b);
            }
        swap_blocks<F, 2 * kSize>(rows);
    }
}

// Lane i of row k becomes lane k of row i: within 16 bytes first, then blocks of 16 bytes.
template <class F>
POOLSWAP_INLINE void transpose(Vec<F> (&rows)[Lanes<F>::kCount]) {
    constexpr int kCount = Lanes<F>::kCount, kBlock = 16 / int(sizeof(F));
#pragma GCC unroll 16
    for (int i = 0; i < kCount; i += 2) {
        const Vec<F> a = rows[i], b = rows[i + 1];
        rows[i] = shuffled<F, Interleave<F, 1, 0>>(a, b);
        rows[i + 1] = shuffled<F, Interleave<F, 1, 1>>(a, b);
    }
    if constexpr (kBlock == 4) {
#pragma GCC unroll 16
        for (int i = 0; i < kCount; i += 4) {
            const Vec<F> a = rows[i], b = rows[i + 1], c = rows[i + 2], d = rows[i + 3];
            rows[i] = shuffled<F, Interleave<F, 2, 0>>(a, c);
            rows[i + 1] = shuffled<F, Interleave<F, 2, 1>>(a, c);
            rows[i + 2] = shuffled<F, Interleave<F, 2, 0>>(b, d);
            rows[i + 3] = shuffled<F, Interleave<F, 2, 1>>(b, d);
        }
    }
    swap_blocks<F, kBlock>(rows);
}

}  // namespace poolswap::POOLSWAP_ISA
