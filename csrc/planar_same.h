// 3x3 windows that step by one over small planes, padded to keep their size: a plane is worked on as one run of
// elements, so that rows need not fill whole vectors. Sums along the rows are formed in registers while the run streams
// by, with masks that keep the ends of neighbouring rows apart; they are added up down the columns when they are
// needed.
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
    static constexpr int kCount = Lanes<F>::kCount;

    // Numbers per element, with zeros around them for what lies beyond the plane.
    struct Run {
        F *a, *b;

        Run(Arena& arena, int64_t width, int64_t size) : a(padded(arena, width, size)), b(padded(arena, width, size)) {}
        static int64_t bytes(int64_t width, int64_t size) { return 2 * padded_bytes(width, size); }

        static int64_t padded_bytes(int64_t width, int64_t size) { return Arena::bytes<F>(size + 2 * margin(width)); }
        static F* padded(Arena& arena, int64_t width, int64_t size) {
            F* const data = arena.take<F>(size + 2 * margin(width));
            set_all(data, F(0), margin(width));
            set_all(data + margin(width) + size, F(0), margin(width));
            return data + margin(width);
        }

      private:
        static int64_t margin(int64_t width) { return (ceil_div(width, kCount) + 1) * kCount; }
    };

    const int64_t width, size;
    SharedExp<F, kRange> exp;
    const Vec<F> centre;
    const Run weights, shares;    // sums along the rows of e and e x, and of p and q
    F *const left, *const right;  // all bits set where the row goes on
    F* const kept;                // e
    Bits<F> part;                 // the lanes of the last, incomplete vector

    // Elements i.. of `from`.
    template <class Whole>
    POOLSWAP_INLINE Vec<F> elements(const F* from, int64_t i, Whole) const {
        return Whole()() ? load_in_passing(from + i) : load_rest(from + i, size - i);
    }

    // Puts each(i, whether the vector is whole) of the elements i.. and of their neighbours in the row into `sums`.
    template <class Each>
    POOLSWAP_INLINE void add_along_rows(const Run& sums, Each&& each) const {
        const Run to = sums;
        const F *const has_left = left, *const has_right = right;
        const int64_t step = kCount % width, row = width;
        int64_t column = 0;
        Sums<F> before{}, here = each(0, std::true_type{});
        const auto finish = [&](int64_t i, Sums<F> next) POOLSWAP_LAMBDA {
            const Bits<F> goes_left = (Bits<F>)load(has_left + column), goes_right = (Bits<F>)load(has_right + column);
            const Sums<F> l =
                Sums<F>{shifted_in<F>(before.sum, here.sum), shifted_in<F>(before.moment, here.moment)}.masked_by(
                    goes_left);
            const Sums<F> r =
                Sums<F>{shifted_out<F>(here.sum, next.sum), shifted_out<F>(here.moment, next.moment)}.masked_by(
                    goes_right);
            store(to.a + i, here.sum + l.sum + r.sum);
            store(to.b + i, here.moment + l.moment + r.moment);
            before = here;
            here = next;
            column += step;
            if (column >= row) column -= row;
        };
        int64_t i = kCount;
        for (; i + kCount <= size; i += kCount) finish(i - kCount, each(i, std::true_type{}));
        if (i < size) {
            finish(i - kCount, each(i, std::false_type{}).masked_by(part));
            i += kCount;
        }
        finish(i - kCount, Sums<F>{});
        store(to.a + size, Vec<F>{});
        store(to.b + size, Vec<F>{});
    }

    // `sums` of the three rows around the elements i..
    POOLSWAP_INLINE Sums<F> add_rows(const Run& sums, int64_t i) const {
        const F *const a = sums.a + i, *const b = sums.b + i;
        const int64_t row = width;
        return {load(a - row) + load(a) + load(a + row), load(b - row) + load(b) + load(b + row)};
    }

    template <bool kKeep>
    POOLSWAP_INLINE void weigh(const F* x) {
        auto own = exp;
        const Vec<F> middle = centre;
        F* const keep = kept;
        add_along_rows(weights, [&](int64_t i, auto whole) POOLSWAP_LAMBDA {
            Vec<F> x_ = elements(x, i, whole);
            const Vec<F> e = own(x_);
            if (kCentred) x_ -= middle;
            if (kKeep) store(keep + i, e);
            return Sums<F>{e, e * x_};
        });
        exp.witness = own.witness;
    }

  public:
    PlanarSame(const Problem& p, const Shift<F>& shift, Arena arena)
        : width(p.w.in), size(p.h.in * p.w.in), exp(shift.slope, shift.c), centre(fill<F>(shift.centre)),
          weights(arena, width, size), shares(arena, width, size), left(arena.take<F>(width + kCount)),
          right(arena.take<F>(width + kCount)), kept(Run::padded(arena, width, size)),
          part((Bits<F>)(lane_index<F>() < int(size % kCount))) {
        memset(left, 0xFF, (width + kCount) * sizeof(F));
        memset(right, 0xFF, (width + kCount) * sizeof(F));
        for (int64_t end = 0; end < width + kCount; end += width) left[end] = 0;
        for (int64_t end = width - 1; end < width + kCount; end += width) right[end] = 0;
    }
    static int64_t bytes(const Problem& p) {
        const int64_t size = p.h.in * p.w.in;
        return 2 * Run::bytes(p.w.in, size) + Run::padded_bytes(p.w.in, size) + 2 * Arena::bytes<F>(p.w.in + kCount);
    }

    bool safe() const { return exp.safe(); }

    void forward(const F* x, F* y) {
        weigh<false>(x);
        const Vec<F> middle = centre;
        strips<F>(size, [&](int64_t i) POOLSWAP_LAMBDA {
            const Sums<F> sums = add_rows(weights, i);
            Vec<F> mean = sums.moment / sums.sum;
            if (kCentred) mean += middle;
            store(y + i, mean);
        });
    }

    // See planar_backward.h for p, q and the formula.
    bool backward(const F* x, const F* g, F* dx, F beta) {
        weigh<true>(x);
        GradientWitness<F> witness;
        const F* const keep = kept;
        const Vec<F> middle = centre;
        add_along_rows(shares, [&](int64_t i, auto whole) POOLSWAP_LAMBDA {
            const Sums<F> sums = add_rows(weights, i);
            const Vec<F> grad = elements(g, i, whole), inverse = F(1) / sums.sum, share = grad * inverse;
            witness.add(grad);
            return Sums<F>{share, share * (sums.moment * inverse)};
        });
        strips<F>(size, [&](int64_t i) POOLSWAP_LAMBDA {
            const Sums<F> all = add_rows(shares, i);
            Vec<F> x_ = load(x + i);
            if (kCentred) x_ -= middle;
            store_in_passing(dx + i, load(keep + i) * ((x_ * all.sum - all.moment) * beta + all.sum));
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
