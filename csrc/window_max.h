// SoftPool with every window's own maximum (minimum for beta < 0) as the shift: any geometry, any values.
//
// Windows are worked on in blocks of lanes, one window each: channels of one pixel, or columns of one output row of
// one or several planes. As in ops/reference.py, everything is written in h = x / 2 - centre / 2, which cannot
// overflow. -inf is left out; a window with +inf, or with nothing but -inf, is its own maximum and has no gradient.
#pragma once

#include <initializer_list>

#include "problem.h"

namespace poolswap::POOLSWAP_ISA {

constexpr int64_t kMaxLanes = 256;
constexpr int64_t kRun = 64;  // additions in a row before a large window's sums go to its totals

template <class F>
constexpr F kInfinity = F(__builtin_inf());

// Rows of one block: what pass 1 finds out about each window, what pass 2 adds up, and room for gathered elements.
template <class F>
struct LaneRows {
    F *top, *low, *scale, *sum, *moment, *factor, *gathered, *run_sum, *run_moment;

    explicit LaneRows(Arena arena)
        : top(arena.take<F>(kMaxLanes)), low(arena.take<F>(kMaxLanes)), scale(arena.take<F>(kMaxLanes)),
          sum(arena.take<F>(kMaxLanes)), moment(arena.take<F>(kMaxLanes)), factor(arena.take<F>(kMaxLanes)),
          gathered(arena.take<F>(kMaxLanes)), run_sum(arena.take<F>(kMaxLanes)), run_moment(arena.take<F>(kMaxLanes)) {}
    static constexpr int64_t bytes() { return 9 * Arena::bytes<F>(kMaxLanes); }
};

// The windows (plane + 0.., d, h, column + 0..) x channels [channel, channel + channels) of one block.
template <class F, bool kChannelsLast>
struct LaneBlock {
    const Problem& problem;
    const View<const F>& x;
    int64_t plane, planes, d, h, column, columns, channel, channels;

    int64_t lanes() const { return kChannelsLast ? channels : planes * columns; }

    // Calls fn(lanes' elements, slice, row, k) for every element of the windows; -inf where a lane has none.
    template <class Fn>
    POOLSWAP_INLINE void each_element(F* gathered, Fn&& fn) const {
        const Range slices = problem.d.taps(d), rows = problem.h.taps(h);
        const Range columns_of_h = kChannelsLast ? problem.w.taps(column) : Range{0, problem.w.kernel};
        for (int64_t kd = slices.begin; kd < slices.end; ++kd)
            for (int64_t kh = rows.begin; kh < rows.end; ++kh)
                for (int64_t kw = columns_of_h.begin; kw < columns_of_h.end; ++kw) {
                    const int64_t slice = problem.d.first(d) + kd * problem.d.dilation;
                    const int64_t row = problem.h.first(h) + kh * problem.h.dilation;
                    fn(gather(gathered, slice, row, kw), slice, row, kw);
                }
    }

    POOLSWAP_INLINE const F* gather(F* to, int64_t slice, int64_t row, int64_t kw) const {
        constexpr int64_t kCount = Lanes<F>::kCount;
        if constexpr (kChannelsLast) {
            const F* from = x.at(plane, slice, row) + pixel(kw);
            if (channels % kCount == 0) return from;
            for (int64_t i = 0; i < channels; ++i) to[i] = from[i];
            set_all(to + channels, -kInfinity<F>, kCount - channels % kCount);
            return to;
        }
        set_all(to, -kInfinity<F>, ceil_div(lanes(), kCount) * kCount);
        const Range hit = valid_columns(kw);
        const int64_t stride = problem.w.stride;
        for (int64_t i = 0; i < planes; ++i) {
            const F* from = x.at(plane + i, slice, row) + kw * problem.w.dilation - problem.w.padding;
            F* lane = to + i * columns - column;
            if (stride == 1)
                for (int64_t o = hit.begin; o < hit.end; ++o) lane[o] = from[o];
            else if (stride == 2)
                for (int64_t o = hit.begin; o < hit.end; ++o) lane[o] = from[2 * o];
            else
                for (int64_t o = hit.begin; o < hit.end; ++o) lane[o] = from[o * stride];
        }
        return to;
    }

    POOLSWAP_INLINE void scatter(const F* share, const View<F>& dx, int64_t slice, int64_t row, int64_t kw) const {
        if constexpr (kChannelsLast) {
            F* to = dx.at(plane, slice, row) + pixel(kw);
            for (int64_t i = 0; i < channels; ++i) to[i] += share[i];
            return;
        }
        const Range hit = valid_columns(kw);
        const int64_t stride = problem.w.stride;
        for (int64_t i = 0; i < planes; ++i) {
            F* to = dx.at(plane + i, slice, row) + kw * problem.w.dilation - problem.w.padding;
            const F* lane = share + i * columns - column;
            for (int64_t o = hit.begin; o < hit.end; ++o) to[o * stride] += lane[o];
        }
    }

    // Calls fn(lane, element of an output row, count) for the runs of lanes that are neighbours in the output.
    template <class View_, class Fn>
    POOLSWAP_INLINE void each_run(const View_& y, Fn&& fn) const {
        if constexpr (kChannelsLast)
            fn(int64_t{0}, y.at(plane, d, h) + column * problem.channels + channel, channels);
        else
            for (int64_t i = 0; i < planes; ++i) fn(i * columns, y.at(plane + i, d, h) + column, columns);
    }

  private:
    POOLSWAP_INLINE int64_t pixel(int64_t kw) const {
        return (problem.w.first(column) + kw * problem.w.dilation) * problem.channels + channel;
    }
    POOLSWAP_INLINE Range valid_columns(int64_t kw) const {
        const Range hit = problem.w.hits(kw);
        const int64_t begin = most(hit.begin, column);
        return {begin, most(begin, least(hit.end, column + columns))};
    }
};

template <class F>
struct WindowMax {
    F beta, slope;  // exponent of 2 per unit of h
    bool negative;
    LaneRows<F> rows;

    WindowMax(double beta_, Arena arena) : beta(F(beta_)), negative(beta_ < 0), rows(arena) {
        const F limit = sizeof(F) == 4 ? F(__FLT_MAX__ / 4) : F(__DBL_MAX__ / 4);
        if (beta > limit) beta = limit;
        if (beta < -limit) beta = -limit;
        slope = F(2 * double(beta) * Lanes<double>::kLog2e);
        if (!(slope <= limit)) slope = slope != slope ? slope : limit;
        if (slope < -limit) slope = -limit;
    }

    // Half of the shift; 0 where the window is infinite.
    POOLSWAP_INLINE Vec<F> half_centre(int64_t i) const {
        const Vec<F> top = load(rows.top + i);
        const Vec<F> centre = negative ? load(rows.low + i) : top;
        return infinite(top) ? Vec<F>{} : centre * F(0.5);
    }

    POOLSWAP_INLINE static typename Lanes<F>::I infinite(Vec<F> top) {
        return (top == kInfinity<F>) | (top == -kInfinity<F>);
    }

    // e = exp(beta (x - centre)) and h; both 0 where x is -inf or e would be no normal number.
    POOLSWAP_INLINE void weigh(Vec<F> x, Vec<F> half, Vec<F>& e, Vec<F>& h) const {
        h = x * F(0.5) - half;
        const Vec<F> z = h * slope;
        const auto keep = (z > Lanes<F>::kLowest) & (z < F(1));  // -inf has z = inf where beta < 0
        h = keep ? h : Vec<F>{};
        e = keep ? exp2_of<F>(keep ? z : Vec<F>{}) : Vec<F>{};
    }

    void end_run(int64_t lanes) const {
        for (int64_t i = 0; i < lanes; ++i) {
            rows.sum[i] += rows.run_sum[i];
            rows.moment[i] += rows.run_moment[i];
            rows.run_sum[i] = rows.run_moment[i] = 0;
        }
    }

    template <bool kLast>
    void sums(const LaneBlock<F, kLast>& block) const {
        constexpr int64_t kCount = Lanes<F>::kCount;
        const int64_t lanes = ceil_div(block.lanes(), kCount) * kCount;
        set_all(rows.top, -kInfinity<F>, lanes);
        set_all(rows.low, kInfinity<F>, lanes);
        for (F* row : {rows.sum, rows.moment, rows.run_sum, rows.run_moment}) set_all(row, F(0), lanes);
        block.each_element(rows.gathered, [&](const F* x, int64_t, int64_t, int64_t) POOLSWAP_LAMBDA {
            for (int64_t i = 0; i < lanes; i += kCount) {
                const Vec<F> v = load(x + i), top = load(rows.top + i), low = load(rows.low + i);
                store(rows.top + i, ((v > top) | (v != v)) ? v : top);  // NaN stays
                store(rows.low + i, ((v < low) & (v != -kInfinity<F>)) ? v : low);
            }
        });
        // Where a sum of several h could overflow, they are added up in units of 2^30.
        constexpr F kLarge = sizeof(F) == 4 ? F(0x1p96) : F(0x1p960);
        for (int64_t i = 0; i < lanes; i += kCount) {
            const auto large = (load(rows.top + i) > kLarge) | (load(rows.low + i) < -kLarge);
            store(rows.scale + i, large ? fill<F>(F(0x1p-30)) : fill<F>(F(1)));
        }
        int64_t count = 0;
        block.each_element(rows.gathered, [&](const F* x, int64_t, int64_t, int64_t) POOLSWAP_LAMBDA {
            for (int64_t i = 0; i < lanes; i += kCount) {
                Vec<F> e, h;
                weigh(load(x + i), half_centre(i), e, h);
                store(rows.run_sum + i, load(rows.run_sum + i) + e);
                store(rows.run_moment + i, load(rows.run_moment + i) + e * (h * load(rows.scale + i)));
            }
            if (++count % kRun == 0) end_run(lanes);
        });
        end_run(lanes);
        // From here on `moment` is the weighted mean of h.
        for (int64_t i = 0; i < lanes; i += kCount)
            store(rows.moment + i, load(rows.moment + i) / load(rows.sum + i) / load(rows.scale + i));
    }

    template <bool kLast>
    void forward(const LaneBlock<F, kLast>& block, const View<F>& y) const {
        sums(block);
        for (int64_t i = 0; i < block.lanes(); i += Lanes<F>::kCount) {
            const Vec<F> top = load(rows.top + i), mean = load(rows.moment + i);
            const Vec<F> centre = negative ? load(rows.low + i) : top;
            store(rows.gathered + i, (infinite(top) | (top != top)) ? top : (centre + mean) + mean);
        }
        block.each_run(y, [&](int64_t lane, F* to, int64_t count) POOLSWAP_LAMBDA {
            for (int64_t i = 0; i < count; ++i) to[i] = rows.gathered[lane + i];
        });
    }

    // Adds the windows' shares g w (1 + beta (x - y)) to the rows of dx that lie in `own`.
    template <bool kLast>
    void backward(const LaneBlock<F, kLast>& block, const View<const F>& g, const View<F>& dx, const Tile& own) const {
        sums(block);
        block.each_run(g, [&](int64_t lane, const F* from, int64_t count) POOLSWAP_LAMBDA {
            for (int64_t i = 0; i < count; ++i) rows.factor[lane + i] = from[i];
        });
        for (int64_t i = 0; i < block.lanes(); i += Lanes<F>::kCount) {
            const Vec<F> top = load(rows.top + i);
            const Vec<F> factor = load(rows.factor + i) / load(rows.sum + i);
            store(rows.factor + i, infinite(top) ? Vec<F>{} : top != top ? top : factor);
        }
        const F twice = 2 * beta;
        block.each_element(rows.gathered, [&](const F* x, int64_t slice, int64_t row, int64_t kw) POOLSWAP_LAMBDA {
            if (slice < own.d.begin || slice >= own.d.end || row < own.h.begin || row >= own.h.end) return;
            for (int64_t i = 0; i < block.lanes(); i += Lanes<F>::kCount) {
                Vec<F> e, h;
                weigh(load(x + i), half_centre(i), e, h);
                const Vec<F> factor = load(rows.factor + i);
                const Vec<F> share = factor * e * (F(1) + (h - load(rows.moment + i)) * twice);
                store(rows.gathered + i, factor != Vec<F>{} ? share : Vec<F>{});
            }
            block.scatter(rows.gathered, dx, slice, row, kw);
        });
    }
};

// Calls fn(block) for blocks that cover the windows `outputs`.
template <bool kChannelsLast, class F, class Fn>
POOLSWAP_INLINE void each_block(const Problem& p, const View<const F>& x, const Tile& outputs, Fn&& fn) {
    const int64_t columns = kChannelsLast ? 1 : least(p.w.out, kMaxLanes);
    const int64_t planes = kChannelsLast ? 1 : most(1, 64 / columns);
    const int64_t channels = kChannelsLast ? least(p.channels, kMaxLanes) : 1;
    for (int64_t plane = outputs.planes.begin; plane < outputs.planes.end; plane += planes)
        for (int64_t d = outputs.d.begin; d < outputs.d.end; ++d)
            for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h)
                for (int64_t column = 0; column < p.w.out; column += columns)
                    for (int64_t channel = 0; channel < p.channels; channel += channels)
                        fn(LaneBlock<F, kChannelsLast>{p, x, plane, least(planes, outputs.planes.end - plane), d, h,
                                                       column, least(columns, p.w.out - column), channel,
                                                       least(channels, p.channels - channel)});
}

template <bool kChannelsLast, class F>
POOLSWAP_ONCE void window_max_forward(const Problem& p, View<const F> x, View<F> y, const Tile& outputs, Arena arena) {
    const WindowMax<F> pool(p.beta, arena);
    each_block<kChannelsLast>(p, x, outputs, [&](const auto& block) { pool.forward(block, y); });
}

// dx is zero on entry.
template <bool kChannelsLast, class F>
POOLSWAP_ONCE void window_max_backward(const Problem& p, View<const F> x, View<const F> g, View<F> dx,
                                       const Tile& outputs, const Tile& own, Arena arena) {
    const WindowMax<F> pool(p.beta, arena);
    each_block<kChannelsLast>(p, x, outputs, [&](const auto& block) { pool.backward(block, g, dx, own); });
}

}  // namespace poolswap::POOLSWAP_ISA
