// Fast tiles of planes whose rows are contiguous: columns are summed down, then the sums are summed along the row.
#pragma once

#include "column_sums.h"

namespace poolswap::POOLSWAP_ISA {

// A row with zeros on both sides, so that windows and shifted loads may reach beyond it.
template <class F>
struct PaddedRow {
    F* data;
    int64_t size;

    PaddedRow(Arena& arena, int64_t left, int64_t size_, int64_t right) : size(size_) {
        constexpr int64_t kCount = Lanes<F>::kCount;
        const int64_t aligned = ceil_div(left, kCount) * kCount;
        F* start = arena.take<F>(aligned + size + right);
        set_all(start, F(0), aligned + size + right);
        data = start + aligned;
    }
    static int64_t bytes(int64_t left, int64_t size, int64_t right) {
        return Arena::bytes<F>(left + Lanes<F>::kCount + size + right);
    }
    // After strips over a row shorter than a vector.
    POOLSWAP_INLINE void clear_behind() const {
        if (size < Lanes<F>::kCount) set_all(data + size, F(0), Lanes<F>::kCount - size);
    }
};

// How far windows, in steps of vectors, reach beyond the last column.
template <class F>
int64_t right_margin(const Axis& w) {
    const int64_t reach = w.first(w.out - 1) + w.extent() - w.in;
    return most(reach, 0) + 2 * Lanes<F>::kCount + (w.stride > 2 ? w.stride * least(w.out, Lanes<F>::kCount) : 0);
}

// Sums of windows j, j + 1, .. of `row`, which begins where window j begins. kKernel 0: known at run time only.
template <int kKernel, int kStride, class F>
POOLSWAP_INLINE Vec<F> along_row(const F* row, const Axis& w) {
    constexpr int kCount = Lanes<F>::kCount;
    const int64_t kernel = kKernel ? kKernel : w.kernel, dilation = kKernel ? 1 : w.dilation;
    if constexpr (kStride == 1) {
        Vec<F> sum = load(row);
        for (int64_t k = 1; k < kernel; ++k) sum += load(row + k * dilation);
        return sum;
    } else if constexpr (kStride == 2) {
        Vec<F> low = load(row), high = load(row + kCount);
        for (int64_t k = 1; k < kernel; ++k) {
            low += load(row + k * dilation);
            high += load(row + kCount + k * dilation);
        }
        return even_lanes<F>(low, high);
    } else {
        F sums[kCount] = {};
        const int64_t lanes = least(kCount, w.out);
        for (int64_t k = 0; k < kernel; ++k)
            for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += row[lane * w.stride + k * dilation];
        return load(sums);
    }
}

// Calls fn(integral constants kernel, stride) for the windows along a row that are compiled apart.
template <class Fn>
POOLSWAP_INLINE void with_row_windows(const Axis& w, Fn&& fn) {
    using std::integral_constant;
    const bool dense = w.dilation == 1;
    if (dense && w.kernel == 3 && w.stride == 2)
        fn(integral_constant<int, 3>{}, integral_constant<int, 2>{});
    else if (dense && w.kernel == 3 && w.stride == 1)
        fn(integral_constant<int, 3>{}, integral_constant<int, 1>{});
    else if (dense && w.kernel == 2 && w.stride == 2)
        fn(integral_constant<int, 2>{}, integral_constant<int, 2>{});
    else if (w.stride == 1)
        fn(integral_constant<int, 0>{}, integral_constant<int, 1>{});
    else if (w.stride == 2)
        fn(integral_constant<int, 0>{}, integral_constant<int, 2>{});
    else
        fn(integral_constant<int, 0>{}, integral_constant<int, 0>{});
}

// The column sums of one row of windows, with zeros beside them.
template <class F>
struct ColumnSums {
    PaddedRow<F> sum, moment;

    ColumnSums(Arena& arena, const Axis& w)
        : sum(arena, w.padding, w.in, right_margin<F>(w)), moment(arena, w.padding, w.in, right_margin<F>(w)) {}
    static int64_t bytes(const Axis& w) { return 2 * PaddedRow<F>::bytes(w.padding, w.in, right_margin<F>(w)); }

    template <bool kKeepAll, bool kCentred, int kRange>
    POOLSWAP_INLINE void add_up(RowRing<F, kRange, kCentred>& ring) const {
        ring.template with_group<kKeepAll>([&](const auto group) POOLSWAP_LAMBDA {
            auto exp = ring.exp;
            const Vec<F> centre = ring.centre;
            F *const sums = sum.data, *const moments = moment.data;
            strips<F>(ring.width, [&](int64_t i) POOLSWAP_LAMBDA {
                Vec<F> s, m;
                group.template add<kCentred>(i, exp, centre, s, m);
                store(sums + i, s);
                store(moments + i, m);
            });
            ring.exp.witness = exp.witness;
        });
        sum.clear_behind();
        moment.clear_behind();
    }

    // Calls fn(j, sum, moment) for the windows j...
    template <int kKernel, int kStride, class Fn>
    POOLSWAP_INLINE void each_window(const Axis& axis, Fn&& fn) const {
        const Axis w = axis;
        const F *const sums = sum.data - w.padding, *const moments = moment.data - w.padding;
        strips<F>(w.out, [&](int64_t j) POOLSWAP_LAMBDA {
            const int64_t first = j * (kStride ? kStride : w.stride);
            fn(j, along_row<kKernel, kStride>(sums + first, w), along_row<kKernel, kStride>(moments + first, w));
        });
    }
};

template <class F>
int64_t planar_forward_bytes(const Problem& p) {
    return RowRing<F, kForwardRange<F>, false>::bytes(p) + 2 * ColumnSums<F>::bytes(p.w);
}

// Returns false, with y unfinished, if a value makes this shift unsafe.
template <bool kCentred, class F>
POOLSWAP_ONCE bool planar_forward(const Problem& p, View<const F> x, View<F> y, const Tile& outputs,
                                  const Shift<F>& shift, Arena arena) {
    RowRing<F, kForwardRange<F>, kCentred> ring(p, x, shift, arena);
    const ColumnSums<F> sums[2] = {{arena, p.w}, {arena, p.w}};
    // Each row is summed along when the next one has been summed down: loads that straddle two stores would have to
    // wait for them.
    F* waiting = nullptr;
    int turn = 0;
    const auto finish = [&] {
        const Vec<F> centre = ring.centre;
        F* const to = waiting;
        with_row_windows(p.w, [&](auto kernel, auto stride) POOLSWAP_LAMBDA {
            sums[1 - turn].template each_window<kernel(), stride()>(
                p.w, [&](int64_t j, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
                    Vec<F> mean = moment / sum;
                    if (kCentred) mean += centre;
                    store(to + j, mean);
                });
        });
    };
    for (int64_t plane = outputs.planes.begin; plane < outputs.planes.end; ++plane)
        for (int64_t d = outputs.d.begin; d < outputs.d.end; ++d) {
            ring.start(plane);
            for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
                ring.enter(d, h);
                sums[turn].template add_up<false>(ring);
                if (waiting) finish();
                waiting = y.at(plane, d, h);
                turn = 1 - turn;
            }
            if (!ring.exp.safe()) return false;
        }
    if (waiting) finish();
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
