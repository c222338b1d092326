// What the gradient tiles of both layouts share.
#pragma once

#include "problem.h"

namespace poolswap::POOLSWAP_ISA {

// Gathers gradients that leave the range in which p = g / sum(e) neither overflows nor loses its last bits.
template <class F>
struct GradientWitness {
    typename Lanes<F>::I bad{};

    POOLSWAP_INLINE void add(Vec<F> g) {
        constexpr F kHigh = sizeof(F) == 4 ? F(0x1p100) : F(0x1p400), kLow = sizeof(F) == 4 ? F(0x1p-100) : F(0x1p-400);
        const Vec<F> size = g < F(0) ? -g : g;
        bad |= ~((size < kHigh) & ((size > kLow) | (size == F(0))));
    }
    POOLSWAP_INLINE bool safe() const { return !any<F>((Bits<F>)bad); }
};

// Memory that is written soon, fetched a piece at a time while something else is computed.
template <class F>
struct Upcoming {
    const F* data;
    int64_t step;  // elements a turn

    Upcoming(const F* data_, int64_t count, int64_t turns) : data(data_), step(ceil_div(count, turns)) {}
    POOLSWAP_INLINE void fetch(int64_t turn) const {
        constexpr int64_t kLine = 64 / sizeof(F);
        for (int64_t i = turn * step; i < (turn + 1) * step; i += kLine) __builtin_prefetch(data + i, 1);
    }
};

// Walks down a tile's planes: share(plane, h, the input rows that it completes) for every window row, and
// finish(plane, row, the window rows that hold it) for every completed input row. False as soon as a share is.
template <class Start, class Share, class Finish>
POOLSWAP_INLINE bool walk_gradient(const Problem& p, const Tile& outputs, const Tile& own, Start&& start, Share&& share,
                                   Finish&& finish) {
    for (int64_t plane = own.planes.begin; plane < own.planes.end; ++plane) {
        start(plane);
        int64_t row = own.h.begin;
        Range covering{outputs.h.begin, outputs.h.begin};
        for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
            const int64_t complete = h + 1 < outputs.h.end ? least(own.h.end, p.h.first(h + 1)) : own.h.end;
            if (!share(plane, h, Range{row, most(row, complete)})) return false;
            for (; row < complete; ++row) {
                while (covering.begin < outputs.h.end && p.h.first(covering.begin) + p.h.kernel <= row)
                    ++covering.begin;
                while (covering.end < outputs.h.end && p.h.first(covering.end) <= row) ++covering.end;
                finish(plane, row, Range{covering.begin, most(covering.begin, covering.end)});
            }
        }
    }
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
