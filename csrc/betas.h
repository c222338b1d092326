// The inverse temperature of every lane, as the kernels take it: one for all channels, or one for each.
#pragma once

#include <cstdlib>

#include "problem.h"

namespace poolswap::POOLSWAP_ISA {

// beta log2(e) as the sum of two F.
template <class F>
struct Slope {
    F high, low;

    explicit Slope(double beta) {
        constexpr double kLog2e = 1.44269504088896340736, kLog2eRest = 2.0355273740931033e-17;
        if constexpr (sizeof(F) == 4) {
            const double slope = double(F(beta)) * kLog2e;
            high = F(slope);
            low = F(slope - double(high));
        } else {
            high = beta * kLog2e;
            low = __builtin_fma(beta, kLog2e, -high) + beta * kLog2eRest;
        }
    }
};

// Of the lanes of one lane group (staging.h), behind each other as its channels are.
template <class F>
struct LaneBetas {
    const F *beta, *high, *low;
    int64_t step;  // 0: the same lanes for every piece of the group

    POOLSWAP_INLINE Vec<F> at(const F* of, int64_t offset) const { return load(of + step * offset); }
};

template <class F>
class Betas {
    static constexpr int64_t kCount = Lanes<F>::kCount;
    const int64_t period, length;
    F *const beta, *const high, *const low;

  public:
    // Of `count` channels, or one for all. `memory` has room for bytes(count).
    Betas(const double* betas, int64_t count, Arena memory)
        : period(count), length(count + kCount - 1), beta(memory.take<F>(length)), high(memory.take<F>(length)),
          low(memory.take<F>(length)) {
        for (int64_t i = 0; i < length; ++i) {  // a group of planes may begin at any channel, and go on from the first
            if (i >= period) {
                beta[i] = beta[i - period], high[i] = high[i - period], low[i] = low[i - period];
                continue;
            }
            const Slope<F> slope(betas[i]);
            beta[i] = F(betas[i]), high[i] = slope.high, low[i] = slope.low;
        }
    }
    static int64_t bytes(int64_t count) { return 3 * Arena::bytes<F>(count + kCount - 1); }

    // For a group whose first lane is this channel, counted on through all planes.
    LaneBetas<F> from(int64_t channel) const {
        const int64_t first = channel % period;
        return {beta + first, high + first, low + first, period > 1};
    }
};

}  // namespace poolswap::POOLSWAP_ISA
