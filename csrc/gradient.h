// What the gradient tiles of both layouts share.
#pragma once

#include "problem.h"

namespace poolswap::POOLSWAP_ISA {

// Gathers gradients that leave the range in which p = g / sum(e) neither overflows nor loses its last bits. Floats are
// ordered as their bits are.
template <class F>
struct GradientWitness {
    using Word = typename Lanes<F>::Word;
    static constexpr int kRange = sizeof(F) == 4 ? 100 : 400;  // exponents of 2
    static constexpr int kBias = sizeof(F) == 4 ? 127 : 1023;
    static constexpr Word kHigh = Word(kBias + kRange) << Lanes<F>::kMantissa;
    static constexpr Word kLow = Word(kBias - kRange) << Lanes<F>::kMantissa;
    Bits<F> highest{}, lowest = ~Bits<F>{};  // of |g|, and of |g| - 1 with zero as the largest

    POOLSWAP_INLINE void add(Vec<F> g) {
        const Bits<F> size = (Bits<F>)g & (~Word(0) >> 1), above = size - 1;
        highest = size > highest ? size : highest;
        lowest = above < lowest ? above : lowest;
    }
    POOLSWAP_INLINE bool safe() const {
        bool all = true;
        for (int i = 0; i < Lanes<F>::kCount; ++i) all &= highest[i] < kHigh && lowest[i] >= kLow;
        return all;
    }
};

// Walks down a tile's planes: share(plane, h) for every window row, and finish(plane, row, the window rows that hold
// it) for every completed input row. False after the first plane for which safe() is.
template <class Start, class Share, class Finish, class Safe>
POOLSWAP_INLINE bool walk_gradient(const Problem& p, const Tile& outputs, const Tile& own, Start&& start, Share&& share,
                                   Finish&& finish, Safe&& safe) {
    for (int64_t plane = own.planes.begin; plane < own.planes.end; ++plane) {
        start(plane);
        int64_t row = own.h.begin;
        Range covering{outputs.h.begin, outputs.h.begin};
        for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
            const int64_t complete = h + 1 < outputs.h.end ? least(own.h.end, p.h.first(h + 1)) : own.h.end;
            share(plane, h);
            for (; row < complete; ++row) {
                while (covering.begin < outputs.h.end && p.h.first(covering.begin) + p.h.kernel <= row)
                    ++covering.begin;
                while (covering.end < outputs.h.end && p.h.first(covering.end) <= row) ++covering.end;
                finish(plane, row, Range{covering.begin, most(covering.begin, covering.end)});
            }
        }
        if (!safe()) return false;
    }
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
