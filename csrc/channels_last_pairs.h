// Gradient tiles of channels_last images under 2x2 windows that do not overlap: one pass, and nothing is kept.
#pragma once

#include "channels_last.h"
#include "gradient.h"

namespace poolswap::POOLSWAP_ISA {

inline bool channels_last_pairs_fit(const Problem& p) {
    const auto pairs = [](const Axis& a) { return a.kernel == 2 && a.stride == 2 && a.dilation == 1; };
    return p.d.in == 1 && p.d.out == 1 && p.d.kernel == 1 && pairs(p.h) && pairs(p.w);
}

template <bool kCentred, class F>
class ChannelsLastPairs {
    const Problem& p;
    const View<const F>& x;
    SharedExp<F, kBackwardRange<F>> exp;
    const Vec<F> centre;
    const F beta;
    F* const elsewhere;  // takes the gradient of rows that belong to another tile
    GradientWitness<F> witness;

    // One window of kRows x kColumns elements; row k of it starts at from[k] and to[k].
    template <int kRows, int kColumns>
    POOLSWAP_INLINE void window(const F* const* from, F* const* to, int64_t column, const F* g) {
        const int64_t channels = p.channels, at = column * channels;
        const F *const x0 = from[0] + at, *const x1 = from[kRows - 1] + at;
        F *const to0 = to[0] + at, *const to1 = to[kRows - 1] + at;
        auto own = exp;
        auto seen = witness;
        const Vec<F> middle = centre;
        const F slope = beta;
        pieces<F>(channels, [&](int64_t, int64_t v) POOLSWAP_LAMBDA {
            Vec<F> x_[kRows][kColumns], e[kRows][kColumns];
            Sums<F> total{};
#pragma GCC unroll 2
            for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
                for (int c = 0; c < kColumns; ++c) {
                    x_[r][c] = load_in_passing((r ? x1 : x0) + c * channels + v);
                    e[r][c] = own(x_[r][c]);
                    if (kCentred) x_[r][c] -= middle;
                    total.add({e[r][c], e[r][c] * x_[r][c]});
                }
            const Vec<F> grad = load(g + v), inverse = F(1) / total.sum, share = grad * inverse;
            const Vec<F> share_mean = share * (total.moment * inverse);
            seen.add(grad);
#pragma GCC unroll 2
            for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
                for (int c = 0; c < kColumns; ++c)
                    store((r ? to1 : to0) + c * channels + v,
                          e[r][c] * ((x_[r][c] * share - share_mean) * slope + share));
        });
        exp.witness = own.witness;
        witness = seen;
    }

    template <int kRows>
    void row_of_windows(const F* const* from, F* const* to, const F* g) {
        int64_t done = 0;
        for (int64_t j = 0; j < p.w.out; ++j, g += p.channels) {
            const int64_t begin = most(0, p.w.first(j)), end = least(p.w.in, p.w.first(j) + 2);
            if (end - begin == 2)
                window<kRows, 2>(from, to, begin, g);
            else
                window<kRows, 1>(from, to, begin, g);
            done = end;
        }
        for (int k = 0; k < kRows; ++k) set_all(to[k] + done * p.channels, F(0), (p.w.in - done) * p.channels);
    }

  public:
    ChannelsLastPairs(const Problem& p_, const View<const F>& x_, const Shift<F>& shift, Arena arena)
        : p(p_), x(x_), exp(shift.slope, shift.c), centre(fill<F>(shift.centre)), beta(shift.beta),
          elsewhere(arena.take<F>(p_.w.in * p_.channels)) {}

    static int64_t bytes(const Problem& p) { return Arena::bytes<F>(p.w.in * p.channels); }

    // Returns false, with dx unfinished, if a value makes this shift unsafe.
    POOLSWAP_ONCE bool run(View<const F> g, View<F> dx, const Tile& outputs, const Tile& own) {
        for (int64_t plane = own.planes.begin; plane < own.planes.end; ++plane) {
            const auto to_row = [&](int64_t row) {
                return row >= own.h.begin && row < own.h.end ? dx.at(plane, 0, row) : elsewhere;
            };
            for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
                const int64_t begin = most(0, p.h.first(h)), last = least(p.h.in, p.h.first(h) + 2) - 1;
                const F* const from[2] = {x.at(plane, 0, begin), x.at(plane, 0, last)};
                F* const to[2] = {to_row(begin), to_row(last)};
                if (begin < last)
                    row_of_windows<2>(from, to, g.at(plane, 0, h));
                else
                    row_of_windows<1>(from, to, g.at(plane, 0, h));
            }
            for (int64_t row = most(own.h.begin, p.h.first(outputs.h.end)); row < own.h.end; ++row)
                set_all(dx.at(plane, 0, row), F(0), p.w.in * p.channels);
            if (!(exp.safe() && witness.safe())) return false;
        }
        return true;
    }
};

}  // namespace poolswap::POOLSWAP_ISA
