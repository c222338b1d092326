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

#include "betas.h"

namespace poolswap::POOLSWAP_ISA {

// Exponents of elements stay strictly between these two, which stand for "no element".
template <class F>
constexpr F kBelowAll = Lanes<F>::kMagicBase * 2 / 3;
template <class F>
constexpr F kAboveAll = Lanes<F>::kMagicBase * 4 / 3 - 1;

// The larger and the smaller of two exponents. Read as integers they are in the same order, and integers are compared by
// units that are idle otherwise.
template <class F>
POOLSWAP_INLINE Vec<F> higher(Vec<F> a, Vec<F> b) {
    if constexpr (sizeof(F) == 4) return (Vec<F>)((Bits<F>)a > (Bits<F>)b ? (Bits<F>)a : (Bits<F>)b);
    return larger<F>(a, b);
}
template <class F>
POOLSWAP_INLINE Vec<F> lower(Vec<F> a, Vec<F> b) {
    if constexpr (sizeof(F) == 4) return (Vec<F>)((Bits<F>)a < (Bits<F>)b ? (Bits<F>)a : (Bits<F>)b);
    return smaller<F>(a, b);
}

template <class F>
struct Element {
    Vec<F> exponent, power, rest;
};

template <class F>
struct Encoder {
    Vec<F> slope;       // beta log2(e)
    Bits<F> outside{};  // see safe()

    explicit Encoder(F slope_) : slope(fill<F>(slope_)) {}
    POOLSWAP_INLINE Encoder(const LaneBetas<F>& betas, int64_t offset) : slope(betas.at(betas.slope, offset)) {}

    POOLSWAP_INLINE Vec<F> exponent(Vec<F> x) const { return x * slope + Lanes<F>::kMagic; }
    POOLSWAP_INLINE Vec<F> rest(Vec<F> x, Vec<F> exponent) const { return x * slope - (exponent - Lanes<F>::kMagic); }
    // NaN and infinities set bits; finite values do not.
    POOLSWAP_INLINE void watch_result(Vec<F> y) { outside |= (Bits<F>)(y - y); }

    // An element whose power was kept.
    POOLSWAP_INLINE Element<F> with_power(Vec<F> x, Vec<F> power) const {
        const Vec<F> n = exponent(x);
        return {n, power, rest(x, n)};
    }
    POOLSWAP_INLINE Element<F> operator()(Vec<F> x) {
        const Vec<F> n = exponent(x), f = rest(x, n);
        outside |= (Bits<F>)n ^ (Bits<F>)fill<F>(Lanes<F>::kMagicBase);
        return {n, exp2_fraction(f), f};
    }
};

// Whether every element that set these bits could be encoded: none was NaN or infinite, or had |n| >= 2^21 (2^50 for
// double).
template <class F>
POOLSWAP_INLINE bool safe(Bits<F> outside) {
    constexpr typename Lanes<F>::Integer kWithin = (typename Lanes<F>::Integer(1) << (Lanes<F>::kMantissa - 1)) - 1;
    return !any<F>(outside & ~kWithin);
}

// kForward: y. kBackward: the gradient of x. kLearning: that of x and of beta.
enum class Pass { kForward, kBackward, kLearning };

// What a pass averages over a window: a moment is a sum of e times value(..). Forward, x itself.
template <Pass kPass, class F>
struct Averaged {
    static constexpr bool kCounted = false;

    POOLSWAP_INLINE Vec<F> value(const Element<F>&, Vec<F> x, Vec<F>) const { return x; }
};

// Backward, z counted from the sum's exponent N, `steps` below which the element's own lies: z minus its mean does not
// cancel however far z is from 0.
template <class F>
struct Averaged<Pass::kBackward, F> {
    static constexpr bool kCounted = true;

    POOLSWAP_INLINE Averaged(const LaneBetas<F>&, int64_t, const F*) {}
    POOLSWAP_INLINE Vec<F> value(const Element<F>& element, Vec<F>, Vec<F> steps) const { return element.rest + steps; }
    // What value(..) changes by when N falls by `steps`.
    POOLSWAP_INLINE Vec<F> moved(Vec<F> steps) const { return steps; }
    // beta x per value, in natural logarithms.
    POOLSWAP_INLINE F rate() const { return F(0.69314718055994530942); }
    POOLSWAP_INLINE void learn(Vec<F>, Vec<F>) {}
};

// For the gradient of beta, the sum over the windows of g w (x - y) (x - c) with any c, which needs x - y itself: z - N
// minus its mean tells it but for a beta near 0. There x is averaged, counted from c amid the plane's elements, which loses
// nothing either as long as |beta (x - c)| is not large.
template <class F>
struct Averaged<Pass::kLearning, F> {
    static constexpr bool kCounted = true;
    static constexpr F kNearZero = F(0x1p-12);
    const Bits<F> is_counted;
    const Vec<F> centre, rate_;
    Vec<F> learnt{};  // sum of g w (value - mean) (x - c)

    POOLSWAP_INLINE Averaged(const LaneBetas<F>& betas, int64_t offset, const F* centres)
        : is_counted(is_far(betas.at(betas.beta, offset))), centre(load(centres)),
          rate_(is_counted ? fill<F>(F(0.69314718055994530942)) : betas.at(betas.beta, offset)) {}

    POOLSWAP_INLINE Vec<F> value(const Element<F>& element, Vec<F> x, Vec<F> steps) const {
        return is_counted ? element.rest + steps : x - centre;
    }
    POOLSWAP_INLINE Vec<F> moved(Vec<F> steps) const { return (Vec<F>)((Bits<F>)steps & is_counted); }
    POOLSWAP_INLINE Vec<F> rate() const { return rate_; }
    POOLSWAP_INLINE void learn(Vec<F> deviation, Vec<F> x) { learnt += deviation * (x - centre); }

    // Values per half of x, of which an exponent of 2 counts `slope`.
    POOLSWAP_INLINE Vec<F> per_half(Vec<F> slope) const { return is_counted ? slope : fill<F>(F(2)); }
    // x per value.
    static double unit(double beta) { return is_near(beta) ? 1.0 : 1.0 / (beta * 1.44269504088896340736); }

  private:
    static POOLSWAP_INLINE Bits<F> is_far(Vec<F> beta) { return (beta >= kNearZero) | (beta <= -kNearZero); }
    static bool is_near(double beta) { return !(F(beta) >= kNearZero || F(beta) <= -kNearZero); }
};

// The weight of a set of elements, sum of e, and their moment, in units of 2^N.
template <Pass kPass, class F>
struct WindowSum {
    using Average = Averaged<kPass, F>;
    Vec<F> exponent, weight, moment;

    static POOLSWAP_INLINE WindowSum none() { return {fill<F>(kBelowAll<F>), Vec<F>{}, Vec<F>{}}; }

    // Of kCount elements, whose x are `x`.
    template <int kCount>
    static POOLSWAP_INLINE WindowSum of(const Element<F> (&each)[kCount], const Vec<F> (&x)[kCount], const Average& average) {
        Vec<F> top = each[0].exponent;
#pragma GCC unroll 8
        for (int k = 1; k < kCount; ++k) top = higher<F>(top, each[k].exponent);
        // Of many elements two sums: every addition waits for the one before it.
        constexpr int kSums = kCount > 4 ? 2 : 1;
        WindowSum sums[2] = {{top, Vec<F>{}, Vec<F>{}}, {top, Vec<F>{}, Vec<F>{}}};
#pragma GCC unroll 8
        for (int k = 0; k < kCount; ++k) sums[k % kSums].add(each[k], x[k], average);
        return {top, sums[0].weight + sums[1].weight, sums[0].moment + sums[1].moment};
    }
    // An element whose exponent is not above this sum's.
    POOLSWAP_INLINE void add(const Element<F>& element, Vec<F> x, const Average& average) {
        const Vec<F> steps = element.exponent - exponent, e = scaled(element.power, steps);
        weight += e;
        moment += e * average.value(element, x, steps);
    }
    POOLSWAP_INLINE Vec<F> mean() const { return quotient(moment, weight); }
    // In units of 2^`to`, which is not below this sum's exponent.
    POOLSWAP_INLINE WindowSum at(Vec<F> to, const Average& average) const {
        const Vec<F> steps = exponent - to, factor = power_of_two(steps);
        if constexpr (Average::kCounted) return {to, factor * weight, factor * (moment + weight * average.moved(steps))};
        return {to, factor * weight, factor * moment};
    }
    // Another sum whose exponent is not above this one's.
    POOLSWAP_INLINE void add(const WindowSum& other, const Average& average) {
        const WindowSum moved = other.at(exponent, average);
        weight += moved.weight;
        moment += moved.moment;
    }
    static POOLSWAP_INLINE Vec<F> joint(Vec<F> a, Vec<F> b) { return higher<F>(a, b); }
};

// The gradient that one window, or several over the same element, hand to an element. With N the window's exponent,
// q = g / sum of e and u the mean of the element's value v, an element's dx is the sum of e q (1 + rate (v - u))
// = e (Q + rate (Q v - U)), where Q and U are the sums of q and of q u, and e is in units of 2^N. Several windows meet at
// the smallest N, so that no power of two is larger than 1.
template <Pass kPass, class F>
struct Share {
    using Average = Averaged<kPass, F>;
    Vec<F> exponent, gradient, mean;  // N, Q, U

    static POOLSWAP_INLINE Share none() { return {fill<F>(kAboveAll<F>), Vec<F>{}, Vec<F>{}}; }

    static POOLSWAP_INLINE Share of(const WindowSum<kPass, F>& window, Vec<F> g) {
        const Vec<F> inverse = reciprocal(window.weight), q = g * inverse;
        return {window.exponent, q, q * (window.moment * inverse)};
    }
    // Another share whose exponent is not below this one's.
    POOLSWAP_INLINE void add(const Share& other, const Average& average) {
        const Vec<F> steps = exponent - other.exponent, factor = power_of_two(steps);
        gradient += factor * other.gradient;
        mean += factor * (other.mean - other.gradient * average.moved(steps));
    }
    // dx of an element; what beta's gradient takes from it is added to average.learnt.
    POOLSWAP_INLINE Vec<F> hand_to(const Element<F>& element, Vec<F> x, Average& average) const {
        const Vec<F> steps = element.exponent - exponent, e = scaled(element.power, steps);
        const Vec<F> deviation = gradient * average.value(element, x, steps) - mean;
        average.learn(e * deviation, x);
        return e * (deviation * average.rate() + gradient);
    }
    static POOLSWAP_INLINE Vec<F> joint(Vec<F> a, Vec<F> b) { return lower<F>(a, b); }
};

// The sum of kCount sums, or shares.
template <class Sum, int kCount>
POOLSWAP_INLINE Sum joined(const Sum (&each)[kCount], const typename Sum::Average& average) {
    Sum all{};
    all.exponent = each[0].exponent;
#pragma GCC unroll 8
    for (int k = 1; k < kCount; ++k) all.exponent = Sum::joint(all.exponent, each[k].exponent);
#pragma GCC unroll 8
    for (int k = 0; k < kCount; ++k) all.add(each[k], average);
    return all;
}

}  // namespace poolswap::POOLSWAP_ISA
