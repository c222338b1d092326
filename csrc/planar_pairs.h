// 2x2 windows over contiguous planes that neither overlap nor need padding: everything stays in registers.
#pragma once

#include "gradient.h"
#include "planar.h"

namespace poolswap::POOLSWAP_ISA {

inline bool planar_pairs_fit(const Problem& p, int lanes) {
    const auto pairs = [](const Axis& a) {
        return a.kernel == 2 && a.stride == 2 && a.padding == 0 && 2 * a.out <= a.in;
    };
    const bool dense = p.h.dilation == 1 && p.w.dilation == 1;
    return p.d.in == 1 && p.d.out == 1 && p.d.kernel == 1 && pairs(p.h) && pairs(p.w) && dense && p.w.out >= lanes;
}

template <bool kCentred, class F, int kRange>
class PlanarPairs {
    SharedExp<F, kRange> exp;
    const Vec<F> centre;

  public:
    explicit PlanarPairs(const Shift<F>& shift) : exp(shift.slope, shift.c), centre(fill<F>(shift.centre)) {}

    bool safe() const { return exp.safe(); }

    // Calls fn(j, x, e, sums of e, sums of e x) for windows j.. of two rows: x and e are [row][first or second vector].
    template <class Fn>
    POOLSWAP_INLINE void each_window(const F* row0, const F* row1, int64_t out, Fn&& fn) {
        constexpr int kCount = Lanes<F>::kCount;
        auto own = exp;
        const Vec<F> middle = centre;
        strips<F>(out, [&](int64_t j) POOLSWAP_LAMBDA {
            Vec<F> x[2][2] = {{load_in_passing(row0 + 2 * j), load_in_passing(row0 + 2 * j + kCount)},
                              {load_in_passing(row1 + 2 * j), load_in_passing(row1 + 2 * j + kCount)}};
            Vec<F> e[2][2], sum[2], moment[2];
            for (int k = 0; k < 2; ++k) {
                e[0][k] = own(x[0][k]);
                e[1][k] = own(x[1][k]);
                if (kCentred) {
                    x[0][k] -= middle;
                    x[1][k] -= middle;
                }
                sum[k] = e[0][k] + e[1][k];
                moment[k] = e[0][k] * x[0][k] + e[1][k] * x[1][k];
            }
            fn(j, x, e, even_lanes<F>(sum[0], sum[1]) + odd_lanes<F>(sum[0], sum[1]),
               even_lanes<F>(moment[0], moment[1]) + odd_lanes<F>(moment[0], moment[1]));
        });
        exp.witness = own.witness;
    }
};

template <bool kCentred, class F>
POOLSWAP_ONCE bool planar_pairs_forward(const Problem& p, View<const F> x, View<F> y, const Tile& outputs,
                                        const Shift<F>& shift) {
    PlanarPairs<kCentred, F, kForwardRange<F>> pool(shift);
    const Vec<F> centre = fill<F>(shift.centre);
    for (int64_t plane = outputs.planes.begin; plane < outputs.planes.end; ++plane)
        for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
            F* const to = y.at(plane, 0, h);
            pool.each_window(x.at(plane, 0, 2 * h), x.at(plane, 0, 2 * h + 1), p.w.out,
                             [&](int64_t j, auto&, auto&, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
                                 Vec<F> mean = moment / sum;
                                 if (kCentred) mean += centre;
                                 store(to + j, mean);
                             });
        }
    return pool.safe();
}

// See planar_backward.h for p, q and the formula.
template <bool kCentred, class F>
POOLSWAP_ONCE bool planar_pairs_backward(const Problem& p, View<const F> x, View<const F> g, View<F> dx,
                                         const Tile& outputs, const Tile& own, const Shift<F>& shift, Arena arena) {
    constexpr int kCount = Lanes<F>::kCount;
    PlanarPairs<kCentred, F, kBackwardRange<F>> pool(shift);
    GradientWitness<F> witness;
    F* const elsewhere = arena.take<F>(p.w.in);  // takes the gradient of rows that belong to another tile
    const F beta = shift.beta;
    for (int64_t plane = own.planes.begin; plane < own.planes.end; ++plane) {
        const auto to_row = [&](int64_t row) {
            return row >= own.h.begin && row < own.h.end ? dx.at(plane, 0, row) : elsewhere;
        };
        for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
            F* const to[2] = {to_row(2 * h), to_row(2 * h + 1)};
            F *const to0 = to[0], *const to1 = to[1];
            const F* const grads = g.at(plane, 0, h);
            auto seen = witness;
            pool.each_window(x.at(plane, 0, 2 * h), x.at(plane, 0, 2 * h + 1), p.w.out,
                             [&](int64_t j, auto& x_, auto& e, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
                                 const Vec<F> grad = load(grads + j), inverse = F(1) / sum, share = grad * inverse;
                                 const Vec<F> part = share * (moment * inverse);
                                 seen.add(grad);
                                 const Vec<F> p_[2] = {interleaved_low<F>(share, share),
                                                       interleaved_high<F>(share, share)};
                                 const Vec<F> q_[2] = {interleaved_low<F>(part, part), interleaved_high<F>(part, part)};
                                 for (int k = 0; k < 2; ++k) {
                                     const int64_t at = 2 * j + k * kCount;
                                     store(to0 + at, e[0][k] * ((x_[0][k] * p_[k] - q_[k]) * beta + p_[k]));
                                     store(to1 + at, e[1][k] * ((x_[1][k] * p_[k] - q_[k]) * beta + p_[k]));
                                 }
                             });
            witness = seen;
            for (F* row : to) set_all(row + 2 * p.w.out, F(0), p.w.in - 2 * p.w.out);
        }
        for (int64_t row = most(own.h.begin, 2 * outputs.h.end); row < own.h.end; ++row)
            set_all(dx.at(plane, 0, row), F(0), p.w.in);
        if (!(pool.safe() && witness.safe())) return false;
    }
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
