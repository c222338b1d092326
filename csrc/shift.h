// The shift that a whole tile shares, and whether it may be used.
#pragma once

#include "problem.h"

namespace poolswap::POOLSWAP_ISA {

// Exponents of 2 that a shared shift may leave: forward as wide as sums allow; backward so narrow that in
// 1 + beta (x - y), whose terms grow with the exponent, the last bits that count are kept.
template <class F>
constexpr int kForwardRange = sizeof(F) == 4 ? 64 : 512;
template <class F>
constexpr int kBackwardRange = sizeof(F) == 4 ? 8 : 64;

// e = exp(beta x) 2^-c, and x is counted from `centre`.
template <class F>
struct Shift {
    F beta, slope, c = 0, centre = 0;

    explicit Shift(double beta_) : beta(F(beta_)), slope(F(double(F(beta_)) * Lanes<double>::kLog2e)) {}

    // Whether c = 0 may be tried on a tile whose values are not known. A larger |beta| would let e x underflow, a
    // smaller one would let x itself be so large that sums overflow where the witness sees nothing.
    bool worth_trying() const {
        const double size = beta < 0 ? -double(beta) : double(beta);
        return size >= 0x1p-32 && size <= 0x1p32;
    }

    // Takes the middle between low and high for c; false if they are too far apart. x is counted from the middle too
    // if `always`, or if every |x| is of its order: otherwise small values would lose their last bits to it.
    bool centre_on(double low, double high, int range, bool always) {
        const double size = slope < 0 ? -double(slope) : double(slope), half = high / 2 - low / 2;
        const double middle = low / 2 + high / 2, shift = __builtin_rint(middle * slope);
        if (!(size <= 0x1p33 && half < 0x1p60 && half * size < range - 2 &&
              __builtin_fabs(shift) < SharedExp<F, 1>::kFarthest))
            return false;
        c = F(shift);
        centre = always || __builtin_fabs(middle) > 2 * half ? F(middle) : F(0);
        return true;
    }
};

// Smallest and largest of all rows; NaN and infinities show in them.
template <class F>
struct Extremes {
    Vec<F> low = fill<F>(F(__builtin_inf())), high = fill<F>(-F(__builtin_inf())), sum{};

    POOLSWAP_INLINE void add(const F* row, int64_t count) {
        strips<F>(count, [&](int64_t i) POOLSWAP_LAMBDA {
            const Vec<F> x = load(row + i);
            low = x < low ? x : low;
            high = x > high ? x : high;
            sum += x * F(0);  // NaN from here on if x is not finite
        });
    }
    bool finite() const {
        bool all = true;
        for (int i = 0; i < Lanes<F>::kCount; ++i) all &= sum[i] == sum[i];
        return all;
    }
    double lowest() const {
        F value = low[0];
        for (int i = 1; i < Lanes<F>::kCount; ++i) value = low[i] < value ? low[i] : value;
        return double(value);
    }
    double highest() const {
        F value = high[0];
        for (int i = 1; i < Lanes<F>::kCount; ++i) value = high[i] > value ? high[i] : value;
        return double(value);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
