// Gradient tiles of planes whose rows are contiguous.
//
// With p = g / sum(e) and q = p y per window, dx_i = e_i (P + beta (x_i P - Q)), where P and Q add up p and q over the
// windows that hold element i: first down the rows, then along the row.
#pragma once

#include "gradient.h"
#include "planar.h"

namespace poolswap::POOLSWAP_ISA {

// p and q of one row of windows, with zeros for the windows beside it.
template <class F>
struct Shares {
    PaddedRow<F> p, q;

    static int64_t margin(const Axis& w) { return (w.kernel - 1) * w.dilation; }
    static int64_t behind(const Axis& w) {
        return margin(w) + 2 * Lanes<F>::kCount + ceil_div(w.in + w.padding, w.stride) - w.out + 1;
    }
    Shares(Arena& arena, const Axis& w)
        : p(arena, margin(w), w.out, behind(w)), q(arena, margin(w), w.out, behind(w)) {}
    static int64_t bytes(const Axis& w) { return 2 * PaddedRow<F>::bytes(margin(w), w.out, most(0, behind(w))); }
};

// Sums of `share` over the windows that hold the columns c, c + 1, .., for windows of 3/1, 3/2 and 2/2.
template <int kKernel, int kStride, class F>
POOLSWAP_INLINE void spread(const F* share, int64_t c, Vec<F>& low, Vec<F>& high) {
    constexpr int kCount = Lanes<F>::kCount;  // c counts from the first window's first column
    if constexpr (kStride == 1) {
        low = load(share + c) + load(share + c - 1) + load(share + c - 2);
        high = load(share + c + kCount) + load(share + c + kCount - 1) + load(share + c + kCount - 2);
    } else {
        const F* at = share + (c >> 1);
        Vec<F> here = load(at), other = here;
        if constexpr (kKernel == 3) other += load(at - 1);
        if (c & 1) {
            if constexpr (kKernel == 3)
                other = here + load(at + 1);
            else
                other = load(at + 1);
        } else {
            const Vec<F> swap = here;
            here = other;
            other = swap;
        }
        low = interleaved_low<F>(here, other);
        high = interleaved_high<F>(here, other);
    }
}

template <int kKernel, int kStride, bool kCentred, class F>
struct PlanarGradient {
    static constexpr int kCovers = (kKernel + kStride - 1) / kStride;
    const Problem& p;
    RowRing<F, kBackwardRange<F>, kCentred> ring;
    const ColumnSums<F> sums;
    Shares<F> shares[kCovers], total;
    const F beta;

    PlanarGradient(const Problem& p_, const View<const F>& x, const Shift<F>& shift, Arena& arena)
        : PlanarGradient(p_, x, shift, arena, std::make_integer_sequence<int, kCovers>{}) {}

    template <int... kI>
    PlanarGradient(const Problem& p_, const View<const F>& x, const Shift<F>& shift, Arena& arena,
                   std::integer_sequence<int, kI...>)
        : p(p_), ring(p_, x, shift, arena), sums(arena, p_.w), shares{(void(kI), Shares<F>(arena, p_.w))...},
          total(arena, p_.w), beta(shift.beta) {}

    static int64_t bytes(const Problem& p) {
        return RowRing<F, kBackwardRange<F>, false>::bytes(p) + (kCovers + 1) * Shares<F>::bytes(p.w) +
               ColumnSums<F>::bytes(p.w);
    }

    // p and q of window row h.
    POOLSWAP_INLINE bool share_out(int64_t h, const F* g) {
        ring.enter(0, h);
        sums.template add_up<true>(ring);
        Shares<F>& to = shares[h % kCovers];
        F *const to_p = to.p.data, *const to_q = to.q.data;
        GradientWitness<F> witness;
        sums.template each_window<kKernel, kStride>(p.w, [&](int64_t j, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
            const Vec<F> grad = load(g + j), inverse = F(1) / sum, share = grad * inverse;
            witness.add(grad);
            store(to_p + j, share);
            store(to_q + j, share * (moment * inverse));
        });
        to.p.clear_behind();
        to.q.clear_behind();
        return ring.exp.safe() & witness.safe();
    }

    // The gradient of input row `row`, whose windows have all been seen.
    POOLSWAP_INLINE void finish(int64_t row, const Range& covering, F* dx) {
        const F *from_p = shares[covering.begin % kCovers].p.data, *from_q = shares[covering.begin % kCovers].q.data;
        if (covering.size() > 1) {
            const Shares<F>& last = shares[(covering.end - 1) % kCovers];
            const Shares<F>& middle = shares[(covering.begin + 1) % kCovers];
            const bool three = covering.size() == 3;
            F *const to_p = total.p.data, *const to_q = total.q.data;
            strips<F>(p.w.out, [&](int64_t j) POOLSWAP_LAMBDA {
                Vec<F> sum_p = load(from_p + j) + load(last.p.data + j),
                       sum_q = load(from_q + j) + load(last.q.data + j);
                if (three) {
                    sum_p += load(middle.p.data + j);
                    sum_q += load(middle.q.data + j);
                }
                store(to_p + j, sum_p);
                store(to_q + j, sum_q);
            });
            total.p.clear_behind();
            total.q.clear_behind();
            from_p = to_p;
            from_q = to_q;
        }
        const F *const x = ring.x.at(ring.plane, 0, row), *const e = ring.kept_row(row);
        const int64_t padding = p.w.padding;
        const Vec<F> centre = ring.centre;
        const F slope = beta;
        constexpr int kCount = Lanes<F>::kCount;
        const auto write = [&](int64_t c, Vec<F> sum_p, Vec<F> sum_q) POOLSWAP_LAMBDA {
            Vec<F> x_ = load(x + c);
            if (kCentred) x_ -= centre;
            store(dx + c, load(e + c) * ((x_ * sum_p - sum_q) * slope + sum_p));
        };
        const auto write_two = [&](int64_t c) POOLSWAP_LAMBDA {
            Vec<F> p_low, p_high, q_low, q_high;
            spread<kKernel, kStride>(from_p, c + padding, p_low, p_high);
            spread<kKernel, kStride>(from_q, c + padding, q_low, q_high);
            write(c, p_low, q_low);
            write(c + kCount, p_high, q_high);
        };
        int64_t c = 0;
        for (; c + 2 * kCount <= p.w.in; c += 2 * kCount) write_two(c);
        for (; c < p.w.in; c += kCount) {
            const int64_t at = c + kCount <= p.w.in || p.w.in < kCount ? c : p.w.in - kCount;
            Vec<F> p_low, p_high, q_low, q_high;
            spread<kKernel, kStride>(from_p, at + padding, p_low, p_high);
            spread<kKernel, kStride>(from_q, at + padding, q_low, q_high);
            write(at, p_low, q_low);
        }
    }

    POOLSWAP_ONCE bool run(View<const F> g, View<F> dx, const Tile& outputs, const Tile& own) {
        const auto start = [&](int64_t plane) { ring.start(plane); };
        const auto share = [&](int64_t plane, int64_t h, const Range& rows) POOLSWAP_LAMBDA {
            Upcoming<F>(dx.at(plane, 0, rows.begin), rows.size() * p.w.in, 1).fetch(0);
            return share_out(h, g.at(plane, 0, h));
        };
        const auto end = [&](int64_t plane, int64_t row, const Range& covering) POOLSWAP_LAMBDA {
            F* const to = dx.at(plane, 0, row);
            if (covering.size() > 0)
                finish(row, covering, to);
            else
                set_all(to, F(0), p.w.in);
        };
        return walk_gradient(p, outputs, own, start, share, end);
    }
};

template <class F>
int64_t planar_backward_bytes(const Problem& p) {
    return PlanarGradient<3, 1, false, F>::bytes(p);
}

// Whether the windows are among those compiled here.
inline bool planar_gradient_fits(const Problem& p) {
    const auto same = [&](int64_t kernel, int64_t stride) {
        return p.h.kernel == kernel && p.w.kernel == kernel && p.h.stride == stride && p.w.stride == stride;
    };
    return p.d.in == 1 && p.d.out == 1 && p.d.kernel == 1 && p.h.dilation == 1 && p.w.dilation == 1 &&
           (same(3, 1) || same(3, 2) || same(2, 2));
}

template <bool kCentred, class F>
POOLSWAP_ONCE bool planar_backward(const Problem& p, View<const F> x, View<const F> g, View<F> dx, const Tile& outputs,
                                   const Tile& own, const Shift<F>& shift, Arena arena) {
    if (p.w.stride == 1) return PlanarGradient<3, 1, kCentred, F>(p, x, shift, arena).run(g, dx, outputs, own);
    if (p.w.kernel == 3) return PlanarGradient<3, 2, kCentred, F>(p, x, shift, arena).run(g, dx, outputs, own);
    return PlanarGradient<2, 2, kCentred, F>(p, x, shift, arena).run(g, dx, outputs, own);
}

}  // namespace poolswap::POOLSWAP_ISA
