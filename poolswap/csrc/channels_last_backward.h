// Gradient tiles of channels_last images; see planar_backward.h for p, q and the formula.
#pragma once

#include "channels_last.h"
#include "gradient.h"

namespace poolswap::POOLSWAP_ISA {

// Undilated windows over two dimensions; others go through the windows' own maxima.
inline bool channels_last_gradient_fits(const Problem& p) {
    return p.d.in == 1 && p.d.out == 1 && p.d.kernel == 1 && p.h.dilation == 1 && p.w.dilation == 1;
}

template <bool kCentred, class F>
class ChannelsLastGradient {
    const Problem& p;
    RowRing<F, kBackwardRange, kCentred> ring;
    const ColumnCarry<F> carry;
    const int64_t covers, width;  // window rows that share an input row; elements of p and of q of one
    F *const shares, *const total;
    const F beta;

    F* share_p(int64_t h) const { return shares + h % covers * 2 * width; }

    bool share_out(int64_t h, const F* g) {
        ring.enter(0, h);
        F *const to_p = share_p(h), *const to_q = to_p + width;
        GradientWitness<F> witness;
        ring.template with_group<true>([&](const auto group) POOLSWAP_LAMBDA {
            auto exp = ring.exp;
            auto seen = witness;
            const Vec<F> centre = ring.centre;
            const int64_t channels = p.channels;
            walk_row<kCentred>(group, exp, centre, p, carry,
                               [&](int64_t j, int64_t v, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
                                   const int64_t at = j * channels + v;
                                   const Vec<F> grad = load(g + at), share = grad / sum;
                                   seen.add(grad);
                                   store(to_p + at, share);
                                   store(to_q + at, share * (moment / sum));
                               });
            ring.exp.witness = exp.witness;
            witness = seen;
        });
        return ring.exp.safe() & witness.safe();
    }

    // p and q added up over the window rows `covering`.
    const F* covering_rows(const Range& covering) const {
        if (covering.size() == 1) return share_p(covering.begin);
        for (int64_t h = covering.begin + 1; h < covering.end; ++h) {
            const F *const one = h == covering.begin + 1 ? share_p(covering.begin) : total, *const other = share_p(h);
            F* const to = total;
            strips<F>(2 * width, [&](int64_t i) POOLSWAP_LAMBDA { store(to + i, load(one + i) + load(other + i)); });
        }
        return total;
    }

    void finish(int64_t row, const Range& covering, F* dx) const {
        const F *const from_p = covering_rows(covering), *const from_q = from_p + width;
        const F *const x = ring.x.at(ring.plane, 0, row), *const e = ring.kept + row % ring.slots * ring.pitch;
        const Axis w = p.w;
        Range windows{0, 0};  // that hold the column
        for (int64_t column = 0; column < w.in; ++column) {
            while (windows.begin < w.out && w.first(windows.begin) + w.kernel <= column) ++windows.begin;
            while (windows.end < w.out && w.first(windows.end) <= column) ++windows.end;
            switch (windows.size()) {
                case 1: finish_pixel<1>(column, windows, from_p, from_q, x, e, dx); break;
                case 2: finish_pixel<2>(column, windows, from_p, from_q, x, e, dx); break;
                case 3: finish_pixel<3>(column, windows, from_p, from_q, x, e, dx); break;
                default: finish_pixel<-1>(column, windows, from_p, from_q, x, e, dx);
            }
        }
    }

    template <int kWindows>
    POOLSWAP_INLINE void finish_pixel(int64_t column, Range windows, const F* from_p, const F* from_q, const F* x,
                                      const F* e, F* dx) const {
        const int64_t count = kWindows < 0 ? windows.size() : kWindows, channels = p.channels;
        const int64_t at = column * channels, first = windows.begin * channels;
        const Vec<F> centre = ring.centre;
        const F slope = beta;
        strips<F>(channels, [&](int64_t v) POOLSWAP_LAMBDA {
            Vec<F> sum_p{}, sum_q{};
#pragma GCC unroll 4
            for (int64_t k = 0; k < count; ++k) {
                sum_p += load(from_p + first + k * channels + v);
                sum_q += load(from_q + first + k * channels + v);
            }
            Vec<F> x_ = load(x + at + v);
            if (kCentred) x_ -= centre;
            store(dx + at + v, load(e + at + v) * ((x_ * sum_p - sum_q) * slope + sum_p));
        });
    }

  public:
    ChannelsLastGradient(const Problem& p_, const View<const F>& x, const Shift<F>& shift, Arena arena)
        : p(p_), ring(p_, x, shift, arena), carry(arena, p_), covers(cover_count(p_)), width(p_.w.out * p_.channels),
          shares(arena.take<F>(covers * 2 * width)), total(arena.take<F>(2 * width)), beta(shift.beta) {}

    static int64_t cover_count(const Problem& p) { return ceil_div(p.h.kernel, p.h.stride); }
    static int64_t bytes(const Problem& p) {
        return channels_last_forward_bytes<F>(p) + Arena::bytes<F>((cover_count(p) + 1) * 2 * p.w.out * p.channels);
    }

    // Returns false, with dx unfinished, if a value makes this shift unsafe.
    bool run(View<const F> g, View<F> dx, const Tile& outputs, const Tile& own) {
        const auto start = [&](int64_t plane) { ring.start(plane); };
        const auto share = [&](int64_t plane, int64_t h) { return share_out(h, g.at(plane, 0, h)); };
        const auto end = [&](int64_t plane, int64_t row, const Range& covering) {
            F* const to = dx.at(plane, 0, row);
            if (covering.size() > 0)
                finish(row, covering, to);
            else
                set_all(to, F(0), p.w.in * p.channels);
        };
        return walk_gradient(p, outputs, own, start, share, end);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
