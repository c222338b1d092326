// Gradient tiles of channels_last images; see planar_backward.h for p, q and the formula.
#pragma once

#include "channels_last_three.h"

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
    const ThreeRowGradient<1, kCentred, F> threes_by_one;
    const ThreeRowGradient<2, kCentred, F> threes_by_two;
    GradientWitness<F> witness;
    int64_t finished = 0;  // rows of the plane up to which dx is complete

    Sums<F>* share_row(int64_t h) const { return shares + h % covers * width; }

    // p and q of window row h.
    void share_out(int64_t h, const F* g) {
        Sums<F>* const to = share_row(h);
        ring.template with_group<true>([&](const auto group) POOLSWAP_LAMBDA {
            auto exp = ring.exp;
            auto seen = witness;
            const Vec<F> centre = ring.centre;
            const int64_t channels = p.channels, pieces_ = pitch;
            walk_row<kCentred>(
                group, exp, centre, p, carry, [&seen, to, g, channels, pieces_](int64_t j) POOLSWAP_LAMBDA {
                    Sums<F>* const to_pixel = to + j * pieces_;
                    const F* const g_pixel = g + j * channels;
                    return [&seen, to_pixel, g_pixel](int64_t piece, int64_t v,
                                                      const Stack<F, 1>& windows) POOLSWAP_LAMBDA {
                        const Vec<F> sum = windows.each[0].sum, moment = windows.each[0].moment;
                        const Vec<F> grad = load_in_passing(g_pixel + v), inverse = F(1) / sum, share = grad * inverse;
                        seen.add(grad);
                        to_pixel[piece] = {share, share * (moment * inverse)};
                    };
                });
            ring.exp.witness = exp.witness;
            witness = seen;
        });
    }

    // Whether window row h, just entered, is inside the plane, the rows that it completes are all this tile's own, and
    // so are the window rows that hold them.
    template <int kStride>
    POOLSWAP_INLINE bool completes(const ThreeRowGradient<kStride, kCentred, F>& threes, int64_t h, const Tile& outputs,
                                   const Tile& own) const {
        return sizeof(F) == 4 && p.h.kernel == 3 && p.h.stride == kStride && ring.count == 3 &&
               ring.old == threes.kShared && h - ring.old >= outputs.h.begin && p.h.first(h) >= own.h.begin &&
               p.h.first(h + 1) <= own.h.end && threes.fits(p.w);
    }

    // p and q of window row h, and dx of the rows that it completes.
    template <int kStride>
    void complete(const ThreeRowGradient<kStride, kCentred, F>& threes, int64_t h, const F* g, View<F> dx, bool lines) {
        ThreeRow<kStride, kCentred, F> row{{ring.rows, 0, 0}, {}, g, share_row(h), {}, beta};
        for (int k = 0; k < kStride; ++k) row.dx[k] = dx.at(ring.plane, 0, p.h.first(h) + k);
        for (int k = 0; k < row.kShared; ++k) row.above[k] = share_row(h - 1 - k);
        threes.run(row, ring.exp, ring.centre, witness, lines);
        finished = p.h.first(h + 1);
    }

    // p and q added up over the window rows `covering`, three or more of them.
    const Sums<F>* add_rows(const Range& covering) const {
        const Sums<F>*const first = share_row(covering.begin), *const second = share_row(covering.begin + 1);
        const Sums<F>* const third = share_row(covering.begin + 2);
        for (int64_t i = 0; i < width; ++i) {
            Sums<F> all = first[i];
            all.add(second[i]);
            all.add(third[i]);
            total[i] = all;
        }
        for (int64_t h = covering.begin + 3; h < covering.end; ++h) {
            const Sums<F>* const other = share_row(h);
            for (int64_t i = 0; i < width; ++i) total[i].add(other[i]);
        }
        return total;
    }

    void finish(int64_t row, const Range& covering, F* dx) const {
        if (covering.size() == 1)
            finish_row<1>(row, {share_row(covering.begin)}, dx);
        else if (covering.size() == 2)
            finish_row<2>(row, {share_row(covering.begin), share_row(covering.begin + 1)}, dx);
        else
            finish_row<1>(row, {add_rows(covering)}, dx);
    }

    template <int kRows>
    POOLSWAP_INLINE void finish_row(int64_t row, const Sums<F>* const (&rows)[kRows], F* dx) const {
        const F *const x = ring.x.at(ring.plane, 0, row), *const e = ring.kept_row(row);
        const Axis w = p.w;
        const int64_t channels = p.channels;
        Range windows{0, 0};  // that hold the column
        for (int64_t column = 0; column < w.in; ++column) {
            while (windows.begin < w.out && w.first(windows.begin) + w.kernel <= column) ++windows.begin;
            while (windows.end < w.out && w.first(windows.end) <= column) ++windows.end;
            const Sums<F>* from[kRows];
            for (int r = 0; r < kRows; ++r) from[r] = rows[r] + windows.begin * pitch;
            const int64_t at = column * channels;
            switch (windows.size()) {
                case 0:
                    set_all(dx + column * p.channels, F(0), p.channels);
                    break;
                case 1:
                    finish_pixel<1>(1, from, x + at, e + at, dx + at);
                    break;
                case 2:
                    finish_pixel<2>(2, from, x + at, e + at, dx + at);
                    break;
                case 3:
                    finish_pixel<3>(3, from, x + at, e + at, dx + at);
                    break;
                default:
                    finish_pixel<-1>(windows.size(), from, x + at, e + at, dx + at);
            }
        }
    }

    template <int kWindows, int kRows>
    POOLSWAP_INLINE void finish_pixel(int64_t count_, const Sums<F>* const (&from_)[kRows], const F* x, const F* e,
                                      F* dx) const {
        const int64_t count = kWindows < 0 ? count_ : kWindows, step = pitch;
        const Sums<F>* from[kRows];
        for (int r = 0; r < kRows; ++r) from[r] = from_[r];
        const Vec<F> centre = ring.centre;
        const F slope = beta;
        pieces<F>(p.channels, [=](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
            Sums<F> all{};
#pragma GCC unroll 4
            for (int64_t k = 0; k < count; ++k)
                for (int r = 0; r < kRows; ++r) all.add(from[r][k * step + piece]);
            Vec<F> x_ = load(x + v);
            if (kCentred) x_ -= centre;
            store_in_passing(dx + v, load(e + v) * ((x_ * all.sum - all.moment) * slope + all.sum));
        });
    }

  public:
    ChannelsLastGradient(const Problem& p_, const View<const F>& x, const Shift<F>& shift, Arena arena)
        : p(p_), ring(p_, x, shift, arena), carry(arena, p_), covers(cover_count(p_)),
          pitch(piece_count<F>(p_.channels)), width(p_.w.out * pitch), shares(arena.take<Sums<F>>(covers * width)),
          total(arena.take<Sums<F>>(width)), beta(shift.beta), threes_by_one(p_, arena), threes_by_two(p_, arena) {}

    static int64_t cover_count(const Problem& p) { return ceil_div(p.h.kernel, p.h.stride); }
    static int64_t bytes(const Problem& p) {
        return channels_last_forward_bytes<F>(p) + ThreeRowGradient<1, kCentred, F>::bytes(p) +
               ThreeRowGradient<2, kCentred, F>::bytes(p) +
               2 * Arena::bytes<Sums<F>>(cover_count(p) * p.w.out * piece_count<F>(p.channels));
    }

    // Returns false, with dx unfinished, if a value makes this shift unsafe. `large`: dx is larger than the caches.
    POOLSWAP_ONCE bool run(View<const F> g, View<F> dx, const Tile& outputs, const Tile& own, bool large) {
        const bool lines =
            large && p.channels % Lanes<F>::kCount == 0 && reinterpret_cast<uintptr_t>(dx.base) % 64 == 0;
        const auto start = [&](int64_t plane) {
            ring.start(plane);
            finished = 0;
        };
        const auto share = [&](int64_t plane, int64_t h) {
            const F* const grad = g.at(plane, 0, h);
            ring.enter(0, h);
            if (completes(threes_by_one, h, outputs, own))
                complete(threes_by_one, h, grad, dx, lines);
            else if (completes(threes_by_two, h, outputs, own))
                complete(threes_by_two, h, grad, dx, lines);
            else
                share_out(h, grad);
        };
        const auto end = [&](int64_t plane, int64_t row, const Range& covering) {
            if (row < finished) return;
            F* const to = dx.at(plane, 0, row);
            if (covering.size() > 0)
                finish(row, covering, to);
            else
                set_all(to, F(0), p.w.in * p.channels);
        };
        const auto safe = [&] { return ring.exp.safe() && witness.safe(); };
        const bool done = walk_gradient(p, outputs, own, start, share, end, safe);
        if (lines) finish_lines();
        return done;
    }
};

}  // namespace poolswap::POOLSWAP_ISA
