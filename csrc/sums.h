// The algebra of the kernels: sums of exponentials that carry an integer exponent of their own.
//
// Every element is encoded once: with z = beta x log2(e), its exponent is n = round(z), its rest f = z - n and its power
// m = 2^f, so that exp(beta x) = m 2^n. A sum over elements is kept in units of 2^N, N the largest n in it, and two sums
// with different N are added after the one with the smaller N was scaled by a power of two, which is exact. No value can
// overflow such a sum and no large one drowns what lies in the windows beside it, so one way serves all activations.
//
// Dukhan and Ablavatski, "The Two-Pass Softmax Algorithm" (arXiv:2001.04438), sum a softmax's denominator like this.
//
// Exponents are stored as n + kMagic (vec.h), the result of the addition that rounds: their differences are exact.
#pragma once

#include "problem.h"

namespace poolswap::POOLSWAP_ISA {

// Exponents of elements stay strictly between these two, which stand for "no element".
template <class F>
constexpr F kBelowAll = Lanes<F>::kMagicBase * 2 / 3;
template <class F>
constexpr F kAboveAll = Lanes<F>::kMagicBase * 4 / 3 - 1;

template <class F>
struct Element {
    Vec<F> exponent, power, rest;
};

template <class F>
struct Encoder {
    Vec<F> high, low;   // beta log2(e) as the sum of two F
    Bits<F> outside{};  // see safe()

    explicit Encoder(double beta) {
        constexpr double kLog2e = 1.44269504088896340736, kLog2eRest = 2.0355273740931033e-17;
        if constexpr (sizeof(F) == 4) {
            const double slope = double(F(beta)) * kLog2e;
            high = fill<F>(F(slope));
            low = fill<F>(F(slope - double(F(slope))));
        } else {
            const double slope = beta * kLog2e;
            high = fill<F>(slope);
            low = fill<F>(__builtin_fma(beta, kLog2e, -slope) + beta * kLog2eRest);
        }
    }

    POOLSWAP_INLINE Vec<F> exponent(Vec<F> x) const { return x * high + Lanes<F>::kMagic; }
    POOLSWAP_INLINE Vec<F> rest(Vec<F> x, Vec<F> exponent) const {
        return x * low + (x * high - (exponent - Lanes<F>::kMagic));
    }
    POOLSWAP_INLINE void watch_exponent(Vec<F> exponent) {
        outside |= (Bits<F>)exponent ^ (Bits<F>)fill<F>(Lanes<F>::kMagicBase);
    }
    // NaN and infinities set bits; finite values do not.
    POOLSWAP_INLINE void watch_result(Vec<F> y) { outside |= (Bits<F>)(y - y); }

    POOLSWAP_INLINE Element<F> operator()(Vec<F> x) {
        const Vec<F> n = exponent(x), f = rest(x, n);
        watch_exponent(n);
        return {n, exp2_fraction(f), f};
    }

    // Whether every element so far could be encoded: none was NaN or infinite, or had |n| >= 2^21 (2^50 for double).
    POOLSWAP_INLINE bool safe() const {
        constexpr typename Lanes<F>::Integer kWithin = (typename Lanes<F>::Integer(1) << (Lanes<F>::kMantissa - 1)) - 1;
        return !any<F>(outside & ~kWithin);
    }
};

// What a pass averages. Forward: x itself. Backward: z, counted from the sum's exponent N, so that z minus its mean
// does not cancel however far z is from 0.
enum class Pass { kForward, kBackward };

// sum of e and of e x, or of e (z - N), in units of 2^N.
template <Pass kPass, class F>
struct WindowSum {
    Vec<F> exponent, weight, moment;

    static POOLSWAP_INLINE WindowSum none() { return {fill<F>(kBelowAll<F>), Vec<F>{}, Vec<F>{}}; }

    // Of kCount elements, whose x are `x`.
    template <int kCount>
    static POOLSWAP_INLINE WindowSum of(const Element<F> (&each)[kCount], const Vec<F> (&x)[kCount]) {
        Vec<F> top = each[0].exponent;
#pragma GCC unroll 8
        for (int k = 1; k < kCount; ++k) top = larger<F>(top, each[k].exponent);
        WindowSum sum{top, Vec<F>{}, Vec<F>{}};
#pragma GCC unroll 8
        for (int k = 0; k < kCount; ++k) sum.add(each[k], x[k]);
        return sum;
    }
    // An element whose exponent is not above this sum's.
    POOLSWAP_INLINE void add(const Element<F>& element, Vec<F> x) {
        const Vec<F> steps = element.exponent - exponent, e = scaled(element.power, steps);
        weight += e;
        moment += e * (kPass == Pass::kForward ? x : element.rest + steps);
    }
    POOLSWAP_INLINE Vec<F> mean() const { return quotient(moment, weight); }
    // Another sum whose exponent is not above this one's.
    POOLSWAP_INLINE void add(const WindowSum& other) {
        const Vec<F> steps = other.exponent - exponent;
        const Vec<F> counted = kPass == Pass::kForward ? other.moment : other.moment + other.weight * steps;
        weight += scaled(other.weight, steps);
        moment += scaled(counted, steps);
    }
    static POOLSWAP_INLINE Vec<F> joint(Vec<F> a, Vec<F> b) { return larger<F>(a, b); }
};

// The gradient that one window, or several over the same element, hand to an element: with N the window's exponent,
// q = g / sum of e, and u the mean of z - N, the element's dx = sum of e q (1 + ln 2 (z - N - u))
// = e (constant + slope (z - N)), e in units of 2^N. Several windows meet at the smallest N, so that no power of two
// is larger than 1.
template <class F>
struct Share {
    Vec<F> exponent, constant, slope;

    static POOLSWAP_INLINE Share none() { return {fill<F>(kAboveAll<F>), Vec<F>{}, Vec<F>{}}; }

    static POOLSWAP_INLINE Share of(const WindowSum<Pass::kBackward, F>& window, Vec<F> g) {
        constexpr F kLn2 = F(0.69314718055994530942);
        const Vec<F> inverse = reciprocal(window.weight), q = g * inverse, slope = q * kLn2;
        return {window.exponent, q - slope * (window.moment * inverse), slope};
    }
    // Another share whose exponent is not below this one's.
    POOLSWAP_INLINE void add(const Share& other) {
        const Vec<F> steps = exponent - other.exponent;
        constant += scaled(other.constant + other.slope * steps, steps);
        slope += scaled(other.slope, steps);
    }
    POOLSWAP_INLINE Vec<F> gradient(const Element<F>& element) const {
        const Vec<F> steps = element.exponent - exponent;
        return scaled(element.power, steps) * (slope * (element.rest + steps) + constant);
    }
    static POOLSWAP_INLINE Vec<F> joint(Vec<F> a, Vec<F> b) { return smaller<F>(a, b); }
};

// The sum of kCount sums, or shares.
template <class Sum, int kCount>
POOLSWAP_INLINE Sum joined(const Sum (&each)[kCount]) {
    Sum all{};
    all.exponent = each[0].exponent;
#pragma GCC unroll 8
    for (int k = 1; k < kCount; ++k) all.exponent = Sum::joint(all.exponent, each[k].exponent);
#pragma GCC unroll 8
    for (int k = 0; k < kCount; ++k) all.add(each[k]);
    return all;
}

}  // namespace poolswap::POOLSWAP_ISA
