// The inverse temperature of every lane, as the kernels take it: one for all channels, or one for each.
#pragma once

#include <cstdlib>

#include "problem.h"

namespace poolswap::POOLSWAP_ISA {

// beta log2(e), rounded. That is as if beta were another one, less than an ulp beside it, and the same for all elements: what
// they weigh beside each other is exact for large z as for small. y moves by less than an ulp of the largest |x|, for
// beta times its derivative is the variance times beta, which is at most about ln(n) / 3 of the range of n elements.
template <class F>
F slope_of(double beta) {
    return F((sizeof(F) == 4 ? double(F(beta)) : beta) * 1.44269504088896340736);
}

// Of the lanes of one lane group (staging.h), behind each other as its channels are.
template <class F>
struct LaneBetas {
    const F *beta, *slope;
    int64_t step;  // 0: the same lanes for every piece of the group

    POOLSWAP_INLINE Vec<F> at(const F* of, int64_t offset) const { return load(of + step * offset); }
};

template <class F>
class Betas {
    static constexpr int64_t kCount = Lanes<F>::kCount;
    const int64_t period, length;
    F *const beta, *const slope;

  public:
    // Of `count` channels, or one for all. `memory` has room for bytes(count).
    Betas(const double* betas, int64_t count, Arena memory)
        : period(count), length(count + kCount - 1), beta(memory.take<F>(length)), slope(memory.take<F>(length)) {
        for (int64_t i = 0; i < length; ++i) {  // a group of planes may begin at any channel, and go on from the first
            beta[i] = i < period ? F(betas[i]) : beta[i - period];
            slope[i] = i < period ? slope_of<F>(betas[i]) : slope[i - period];
        }
    }
    static int64_t bytes(int64_t count) { return 2 * Arena::bytes<F>(count + kCount - 1); }

    // For a group whose first lane is this channel, counted on through all planes.
    LaneBetas<F> from(int64_t channel) const {
        const int64_t first = channel % period;
        return {beta + first, slope + first, period > 1};
    }
};

}  // namespace poolswap::POOLSWAP_ISA
