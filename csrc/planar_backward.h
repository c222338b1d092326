// Gradient tiles of planes whose rows are contiguous.
//
// With p = g / sum(e) and q = p y per window, dx_i = e_i (P + beta (x_i P - Q)), where P and Q add up p and q over the
// windows that hold element i: first down the rows, then along the row.
#pragma once

#include "gradient.h"
#include "planar_stem.h"

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

// Sums over the windows that hold the columns c, c + 1, .., for windows of 3/1, 3/2 and 2/2: at(j) is the sum over
// their rows for the windows j..
template <int kKernel, int kStride, class F, class At>
POOLSWAP_INLINE void spread(At&& at, int64_t c, Vec<F>& low, Vec<F>& high) {
    constexpr int kCount = Lanes<F>::kCount;  // c counts from the first window's first column
    if constexpr (kStride == 1) {
        low = at(c) + at(c - 1) + at(c - 2);
        high = at(c + kCount) + at(c + kCount - 1) + at(c + kCount - 2);
    } else {
        const int64_t j = c >> 1;
        const Vec<F> here = at(j);
        if (c & 1) {
            const Vec<F> next = kKernel == 3 ? here + at(j + 1) : at(j + 1);
            low = interleaved_low<F>(here, next);
            high = interleaved_high<F>(here, next);
        } else {
            const Vec<F> before = kKernel == 3 ? here + at(j - 1) : here;
            low = interleaved_low<F>(before, here);
            high = interleaved_high<F>(before, here);
        }
    }
}

template <int kKernel, int kStride, bool kCentred, class F>
struct PlanarGradient {
    static constexpr int kCovers = (kKernel + kStride - 1) / kStride;
    const Problem& p;
    RowRing<F, kBackwardRange<F>, kCentred> ring;
    const ColumnSums<F> sums;
    const StemRow<F> stem;
    Shares<F> shares[kCovers], total;
    const bool in_registers;  // the column sums, by `stem`
    const F beta;
    GradientWitness<F> witness;

    PlanarGradient(const Problem& p_, const View<const F>& x, const Shift<F>& shift, Arena& arena)
        : PlanarGradient(p_, x, shift, arena, std::make_integer_sequence<int, kCovers>{}) {}

    template <int... kI>
    PlanarGradient(const Problem& p_, const View<const F>& x, const Shift<F>& shift, Arena& arena,
                   std::integer_sequence<int, kI...>)
        : p(p_), ring(p_, x, shift, arena), sums(arena, p_.w), stem(arena, p_.w),
          shares{(void(kI), Shares<F>(arena, p_.w))...}, total(arena, p_.w),
          in_registers(kKernel == 3 && kStride == 2 && is_stem(p_.w, Lanes<F>::kCount)), beta(shift.beta) {}

    static int64_t bytes(const Problem& p) {
        return RowRing<F, kBackwardRange<F>, false>::bytes(p) + (kCovers + 1) * Shares<F>::bytes(p.w) +
               ColumnSums<F>::bytes(p.w) + StemRow<F>::bytes(p.w);
    }

    // p and q of window row h.
    POOLSWAP_INLINE void share_out(int64_t h, const F* g) {
        ring.enter(0, h);
        Shares<F>& to = shares[h % kCovers];
        F *const to_p = to.p.data, *const to_q = to.q.data;
        auto seen = witness;
        const auto put = [&](int64_t j, Vec<F> grad, Vec<F> sum, Vec<F> moment, auto whole) POOLSWAP_LAMBDA {
            const Vec<F> inverse = F(1) / sum, share = grad * inverse;
            seen.add(grad);
            store_windows(to_p + j, share, whole);
            store_windows(to_q + j, share * (moment * inverse), whole);
        };
        if (kKernel == 3 && kStride == 2 && in_registers) {
            ring.template with_group<true>([&](const auto group) POOLSWAP_LAMBDA {
                auto exp = ring.exp;
                const auto use = [&](int64_t j, Vec<F> sum, Vec<F> moment, auto whole)
                                     POOLSWAP_LAMBDA { put(j, load_windows(g + j, whole), sum, moment, whole); };
                stem.template each_window<kCentred>(group, exp, ring.centre, use);
                ring.exp.witness = exp.witness;
            });
        } else {
            sums.template add_up<true>(ring);
            sums.template each_window<kKernel, kStride>(p.w, [&](int64_t j, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
                put(j, load(g + j), sum, moment, std::true_type{});
            });
        }
        witness = seen;
        to.p.clear_behind();
        to.q.clear_behind();
    }

    // The gradient of input row `row`, whose windows have all been seen.
    POOLSWAP_INLINE void finish(int64_t row, const Range& covering, F* dx) {
        const Shares<F>&first = shares[covering.begin % kCovers], &last = shares[(covering.end - 1) % kCovers];
        const F *const p0 = first.p.data, *const q0 = first.q.data, *const p1 = last.p.data, *const q1 = last.q.data;
        const auto one = [](const F* a) { return [=](int64_t j) POOLSWAP_LAMBDA { return load(a + j); }; };
        const auto two = [](const F* a, const F* b) {
            return [=](int64_t j) POOLSWAP_LAMBDA { return load(a + j) + load(b + j); };
        };
        if (covering.size() == 1) {
            write_row(row, dx, one(p0), one(q0));
        } else if (covering.size() == 2) {
            write_row(row, dx, two(p0, p1), two(q0, q1));
        } else if constexpr (kCovers == 3) {
            const Shares<F>& middle = shares[(covering.begin + 1) % kCovers];
            F *const to_p = total.p.data, *const to_q = total.q.data;
            strips<F>(p.w.out, [&](int64_t j) POOLSWAP_LAMBDA {
                store(to_p + j, load(p0 + j) + load(middle.p.data + j) + load(p1 + j));
                store(to_q + j, load(q0 + j) + load(middle.q.data + j) + load(q1 + j));
            });
            total.p.clear_behind();
            total.q.clear_behind();
            write_row(row, dx, one(to_p), one(to_q));
        }
    }

    template <class P, class Q>
    POOLSWAP_INLINE void write_row(int64_t row, F* dx, P&& share, Q&& share_mean) const {
        const F *const x = ring.x.at(ring.plane, 0, row), *const e = ring.kept_row(row);
        const int64_t padding = p.w.padding, width = p.w.in;
        const Vec<F> centre = ring.centre;
        const F slope = beta;
        constexpr int kCount = Lanes<F>::kCount;
        const auto write = [&](int64_t c, Vec<F> sum_p, Vec<F> sum_q) POOLSWAP_LAMBDA {
            Vec<F> x_ = load(x + c);
            if (kCentred) x_ -= centre;
            store_in_passing(dx + c, load(e + c) * ((x_ * sum_p - sum_q) * slope + sum_p));
        };
        const auto two_vectors = [&](int64_t c, auto both) POOLSWAP_LAMBDA {
            Vec<F> p_low, p_high, q_low, q_high;
            spread<kKernel, kStride, F>(share, c + padding, p_low, p_high);
            spread<kKernel, kStride, F>(share_mean, c + padding, q_low, q_high);
            write(c, p_low, q_low);
            if (both()) write(c + kCount, p_high, q_high);
        };
        int64_t c = 0;
        for (; c + 2 * kCount <= width; c += 2 * kCount) two_vectors(c, std::true_type{});
        for (; c < width; c += kCount)
            two_vectors(c + kCount <= width || width < kCount ? c : width - kCount, std::false_type{});
    }

    POOLSWAP_ONCE bool run(View<const F> g, View<F> dx, const Tile& outputs, const Tile& own) {
        const auto start = [&](int64_t plane) { ring.start(plane); };
        const auto share = [&](int64_t plane, int64_t h) POOLSWAP_LAMBDA { share_out(h, g.at(plane, 0, h)); };
        const auto end = [&](int64_t plane, int64_t row, const Range& covering) POOLSWAP_LAMBDA {
            F* const to = dx.at(plane, 0, row);
            if (covering.size() > 0)
                finish(row, covering, to);
            else
                set_all(to, F(0), p.w.in);
        };
        const auto safe = [&] { return ring.exp.safe() && witness.safe(); };
        return walk_gradient(p, outputs, own, start, share, end, safe);
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
