// 3x3 windows that step by one over small planes, padded to keep their size: a plane is worked on as one run of
// elements, so that rows need not fill whole vectors. Masks keep the ends of neighbouring rows apart.
#pragma once

#include "gradient.h"
#include "planar.h"

namespace poolswap::POOLSWAP_ISA {

inline bool planar_same_fits(const Problem& p, int lanes) {
    const auto same = [](const Axis& a) {
        return a.kernel == 3 && a.stride == 1 && a.padding == 1 && a.dilation == 1 && a.out == a.in;
    };
    const int64_t size = p.h.in * p.w.in;
    return p.d.in == 1 && p.d.out == 1 && p.d.kernel == 1 && same(p.h) && same(p.w) && size >= lanes &&
           size <= kSmallTile;
}

template <bool kCentred, class F, int kRange>
class PlanarSame {
    // Two numbers per element, with zeros around them for what lies beyond the plane.
    struct Run {
        F *a, *b;

        Run(Arena& arena, int64_t width, int64_t size) : a(padded(arena, width, size)), b(padded(arena, width, size)) {}
        static int64_t bytes(int64_t width, int64_t size) { return 2 * Arena::bytes<F>(size + 2 * margin(width)); }

      private:
        static int64_t margin(int64_t width) { return ceil_div(width + 1, Lanes<F>::kCount) * Lanes<F>::kCount; }
        static F* padded(Arena& arena, int64_t width, int64_t size) {
            F* const data = arena.take<F>(size + 2 * margin(width));
            set_all(data, F(0), margin(width));
            set_all(data + margin(width) + size, F(0), margin(width));
            return data + margin(width);
        }
    };

    const int64_t width, size;
    SharedExp<F, kRange> exp;
    const Vec<F> centre;
    const Run terms, columns;  // e and e x, later p and q; their sums over three rows
    F *const left, *const right, *const kept;

    // Calls fn(i, a, b) with the sums of `terms` over the windows around elements i...
    template <class Fn>
    POOLSWAP_INLINE void window_sums(Fn&& fn) const {
        const int64_t row = width;
        const Run from = terms, to = columns;
        strips<F>(size, [=](int64_t i) POOLSWAP_LAMBDA {
            store(to.a + i, load(from.a + i - row) + load(from.a + i) + load(from.a + i + row));
            store(to.b + i, load(from.b + i - row) + load(from.b + i) + load(from.b + i + row));
        });
        const F *const has_left = left, *const has_right = right;
        strips<F>(size, [&](int64_t i) POOLSWAP_LAMBDA {
            const Vec<F> before = load(has_left + i), after = load(has_right + i);
            fn(i, load(to.a + i) + before * load(to.a + i - 1) + after * load(to.a + i + 1),
               load(to.b + i) + before * load(to.b + i - 1) + after * load(to.b + i + 1));
        });
    }

    template <bool kKeep>
    POOLSWAP_INLINE void weigh(const F* x) {
        auto own = exp;
        const Vec<F> middle = centre;
        const Run to = terms;
        F* const keep = kept;
        strips<F>(size, [&](int64_t i) POOLSWAP_LAMBDA {
            Vec<F> x_ = load(x + i);
            const Vec<F> e = own(x_);
            if (kCentred) x_ -= middle;
            store(to.a + i, e);
            store(to.b + i, e * x_);
            if (kKeep) store(keep + i, e);
        });
        exp.witness = own.witness;
    }

  public:
    PlanarSame(const Problem& p, const Shift<F>& shift, Arena arena)
        : width(p.w.in), size(p.h.in * p.w.in), exp(shift.slope, shift.c), centre(fill<F>(shift.centre)),
          terms(arena, width, size), columns(arena, width, size), left(arena.take<F>(size)), right(arena.take<F>(size)),
          kept(arena.take<F>(size)) {
        set_all(left, F(1), size);
        set_all(right, F(1), size);
        for (int64_t row = 0; row < size; row += width) left[row] = right[row + width - 1] = 0;
    }
    static int64_t bytes(const Problem& p) {
        const int64_t size = p.h.in * p.w.in;
        return 2 * Run::bytes(p.w.in, size) + 3 * Arena::bytes<F>(size);
    }

    bool safe() const { return exp.safe(); }

    void forward(const F* x, F* y) {
        weigh<false>(x);
        const Vec<F> middle = centre;
        window_sums([&](int64_t i, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
            Vec<F> mean = moment / sum;
            if (kCentred) mean += middle;
            store(y + i, mean);
        });
    }

    // See planar_backward.h for p, q and the formula.
    bool backward(const F* x, const F* g, F* dx, F beta) {
        weigh<true>(x);
        GradientWitness<F> witness;
        const Run to = terms;
        const F* const keep = kept;
        const Vec<F> middle = centre;
        window_sums([&](int64_t i, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
            const Vec<F> grad = load(g + i), inverse = F(1) / sum, share = grad * inverse;
            witness.add(grad);
            store(to.a + i, share);
            store(to.b + i, share * (moment * inverse));
        });
        window_sums([&](int64_t i, Vec<F> p, Vec<F> q) POOLSWAP_LAMBDA {
            Vec<F> x_ = load(x + i);
            if (kCentred) x_ -= middle;
            store(dx + i, load(keep + i) * ((x_ * p - q) * beta + p));
        });
        return witness.safe();
    }
};

template <bool kCentred, class F>
POOLSWAP_ONCE bool planar_same_forward(const Problem& p, View<const F> x, View<F> y, const Tile& tile,
                                       const Shift<F>& shift, Arena arena) {
    PlanarSame<kCentred, F, kForwardRange<F>> pool(p, shift, arena);
    for (int64_t plane = tile.planes.begin; plane < tile.planes.end; ++plane) {
        pool.forward(x.at(plane, 0, 0), y.at(plane, 0, 0));
        if (!pool.safe()) return false;
    }
    return true;
}

template <bool kCentred, class F>
POOLSWAP_ONCE bool planar_same_backward(const Problem& p, View<const F> x, View<const F> g, View<F> dx,
                                        const Tile& tile, const Shift<F>& shift, Arena arena) {
    PlanarSame<kCentred, F, kBackwardRange<F>> pool(p, shift, arena);
    for (int64_t plane = tile.planes.begin; plane < tile.planes.end; ++plane) {
        if (!pool.backward(x.at(plane, 0, 0), g.at(plane, 0, 0), dx.at(plane, 0, 0), shift.beta)) return false;
        if (!pool.safe()) return false;
    }
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
