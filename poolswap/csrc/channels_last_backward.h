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
    RowRing<F, kBackwardRange<F>, kCentred> ring;
    const ColumnCarry<F> carry;
    const int64_t covers, pitch, width;  // window rows that share an input row; pieces of a pixel and of a row
    Sums<F>*const shares, *const total;  // p and q
    const F beta;
    GradientWitness<F> witness;

    Sums<F>* share_row(int64_t h) const { return shares + h % covers * width; }

    void share_out(int64_t h, const F* g, const Upcoming<F>& next) {
        ring.enter(0, h);
        Sums<F>* const to = share_row(h);
        ring.template with_group<true>([&](const auto group) POOLSWAP_LAMBDA {
            auto exp = ring.exp;
            auto seen = witness;
            const Vec<F> centre = ring.centre;
            const int64_t channels = p.channels, pieces_ = pitch;
            walk_row<kCentred>(
                group, exp, centre, p, carry, [&seen, &next, to, g, channels, pieces_](int64_t j) POOLSWAP_LAMBDA {
                    next.fetch(j);
                    Sums<F>* const to_pixel = to + j * pieces_;
                    const F* const g_pixel = g + j * channels;
                    return [&seen, to_pixel, g_pixel](int64_t piece, int64_t v, Vec<F> sum, Vec<F> moment)
                               POOLSWAP_LAMBDA {
                                   const Vec<F> grad = load(g_pixel + v), inverse = F(1) / sum, share = grad * inverse;
                                   seen.add(grad);
                                   to_pixel[piece] = {share, share * (moment * inverse)};
                               };
                });
            ring.exp.witness = exp.witness;
            witness = seen;
        });
    }

    // p and q added up over the window rows `covering`.
    const Sums<F>* covering_rows(const Range& covering) const {
        const Sums<F>* sums = share_row(covering.begin);
        for (int64_t h = covering.begin + 1; h < covering.end; ++h) {
            const Sums<F>* const other = share_row(h);
            for (int64_t i = 0; i < width; ++i)
                total[i] = {sums[i].sum + other[i].sum, sums[i].moment + other[i].moment};
            sums = total;
        }
        return sums;
    }

    void finish(int64_t row, const Range& covering, F* dx) const {
        const Sums<F>* const from = covering_rows(covering);
        const F *const x = ring.x.at(ring.plane, 0, row), *const e = ring.kept_row(row);
        const Axis w = p.w;
        const int64_t channels = p.channels;
        Range windows{0, 0};  // that hold the column
        for (int64_t column = 0; column < w.in; ++column) {
            while (windows.begin < w.out && w.first(windows.begin) + w.kernel <= column) ++windows.begin;
            while (windows.end < w.out && w.first(windows.end) <= column) ++windows.end;
            const Sums<F>* const first = from + windows.begin * pitch;
            const int64_t at = column * channels;
            switch (windows.size()) {
                case 0:
                    set_all(dx + column * p.channels, F(0), p.channels);
                    break;
                case 1:
                    finish_pixel<1>(1, first, x + at, e + at, dx + at);
                    break;
                case 2:
                    finish_pixel<2>(2, first, x + at, e + at, dx + at);
                    break;
                case 3:
                    finish_pixel<3>(3, first, x + at, e + at, dx + at);
                    break;
                default:
                    finish_pixel<-1>(windows.size(), first, x + at, e + at, dx + at);
            }
        }
    }

    template <int kWindows>
    POOLSWAP_INLINE void finish_pixel(int64_t count_, const Sums<F>* from, const F* x, const F* e, F* dx) const {
        const int64_t count = kWindows < 0 ? count_ : kWindows, step = pitch;
        const Vec<F> centre = ring.centre;
        const F slope = beta;
        pieces<F>(p.channels, [=](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
            Sums<F> all{};
#pragma GCC unroll 4
            for (int64_t k = 0; k < count; ++k) all.add(from[k * step + piece]);
            Vec<F> x_ = load(x + v);
            if (kCentred) x_ -= centre;
            store(dx + v, load(e + v) * ((x_ * all.sum - all.moment) * slope + all.sum));
        });
    }

  public:
    ChannelsLastGradient(const Problem& p_, const View<const F>& x, const Shift<F>& shift, Arena arena)
        : p(p_), ring(p_, x, shift, arena), carry(arena, p_), covers(cover_count(p_)),
          pitch(piece_count<F>(p_.channels)), width(p_.w.out * pitch), shares(arena.take<Sums<F>>(covers * width)),
          total(arena.take<Sums<F>>(width)), beta(shift.beta) {}

    static int64_t cover_count(const Problem& p) { return ceil_div(p.h.kernel, p.h.stride); }
    static int64_t bytes(const Problem& p) {
        return channels_last_forward_bytes<F>(p) +
               2 * Arena::bytes<Sums<F>>(cover_count(p) * p.w.out * piece_count<F>(p.channels));
    }

    // Returns false, with dx unfinished, if a value makes this shift unsafe.
    POOLSWAP_ONCE bool run(View<const F> g, View<F> dx, const Tile& outputs, const Tile& own) {
        const auto start = [&](int64_t plane) { ring.start(plane); };
        const auto share = [&](int64_t plane, int64_t h, const Range& rows) {
            const Upcoming<F> next(dx.at(plane, 0, rows.begin), rows.size() * p.w.in * p.channels, p.w.out);
            share_out(h, g.at(plane, 0, h), next);
        };
        const auto end = [&](int64_t plane, int64_t row, const Range& covering) {
            F* const to = dx.at(plane, 0, row);
            if (covering.size() > 0)
                finish(row, covering, to);
            else
                set_all(to, F(0), p.w.in * p.channels);
        };
        const auto safe = [&] { return ring.exp.safe() && witness.safe(); };
        return walk_gradient(p, outputs, own, start, share, end, safe);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
