// What a kernel is given: one tile of the problem, its rows in vectors, and memory.
#pragma once

#include "staging.h"
#include "sums.h"

namespace poolswap::POOLSWAP_ISA {

template <class F>
struct ForwardTile {
    static constexpr Pass kPass = Pass::kForward;
    const Problem& p;
    LaneBetas<F> betas;
    Pieces pieces;
    Range d, h;                // outputs
    Range input_d, input_h;    // inputs of their windows
    Rows<F> x, y;
    Arena arena;

    POOLSWAP_INLINE Averaged<kPass, F> average(int64_t) const { return {}; }
};

template <Pass kPass_, class F>
struct BackwardTile {
    static constexpr Pass kPass = kPass_;
    static constexpr int64_t kCount = Lanes<F>::kCount;
    const Problem& p;
    LaneBetas<F> betas;
    Pieces pieces;
    Range d, h;                // inputs whose gradient is computed
    Range output_d, output_h;  // windows that may hold them
    Range input_d, input_h;    // inputs of those windows
    Rows<F> x, g, dx;
    Arena arena;
    // kLearning alone: for every lane of every piece the number that x is counted from, and what the tile adds to beta's
    // gradient.
    const F* centres;
    double* learnt;

    POOLSWAP_INLINE Averaged<kPass, F> average(int64_t piece) const {
        return {betas, pieces.template offset<F>(piece), centres + piece * kCount};
    }
    // Takes what `average` has learnt, which should be no more than a few hundred terms.
    POOLSWAP_INLINE void keep(Averaged<kPass, F>& average, int64_t piece) const {
        if constexpr (kPass == Pass::kLearning) {
            for (int64_t lane = 0; lane < kCount; ++lane) learnt[piece * kCount + lane] += double(average.learnt[lane]);
            average.learnt = Vec<F>{};
        }
    }
};

}  // namespace poolswap::POOLSWAP_ISA
