// Fast tiles of channels_last images: all channels of a pixel stream by, and the columns of a window that the next one
// needs again are carried along.
#pragma once

#include "column_sums.h"

namespace poolswap::POOLSWAP_ISA {

// The column sums of one window row, walked from left to right: S and A of the last columns, C channels each.
template <class F>
struct ColumnCarry {
    F* data;
    int64_t slots, channels;

    ColumnCarry(Arena& arena, const Problem& p)
        : data(arena.take<F>(2 * slot_count(p) * p.channels)), slots(slot_count(p)), channels(p.channels) {}
    static int64_t slot_count(const Problem& p) { return p.w.extent(); }
    static int64_t bytes(const Problem& p) { return Arena::bytes<F>(2 * slot_count(p) * p.channels); }

    POOLSWAP_INLINE F* sum(int64_t column) const { return data + 2 * (column % slots) * channels; }
    POOLSWAP_INLINE F* moment(int64_t column) const { return sum(column) + channels; }
};

// Windows of kKernel columns that step by kStride, one inside the image: kNew columns are new, the others carried.
template <int kKernel, int kNew, bool kCentred, class F, class Group, class Exp, class Fn>
POOLSWAP_INLINE void pixel_window(const Group& group, Exp& exp, Vec<F> centre, int64_t channels, int64_t first,
                                  const ColumnCarry<F>& carry, Fn&& fn) {
    constexpr int kOld = kKernel - kNew;
    const F *old_sum[kOld + 1], *old_moment[kOld + 1];
    for (int k = 0; k < kOld; ++k) {
        old_sum[k] = carry.sum(first + k);
        old_moment[k] = carry.moment(first + k);
    }
    F *new_sum[kNew], *new_moment[kNew];
    for (int k = 0; k < kNew; ++k) {
        new_sum[k] = carry.sum(first + kOld + k);
        new_moment[k] = carry.moment(first + kOld + k);
    }
    constexpr int kKeepFrom = kNew - kOld;  // of the new columns, those that the next window shares
    const int64_t start = (first + kOld) * channels;
    strips<F>(channels, [&](int64_t v) POOLSWAP_LAMBDA {
        Vec<F> sum{}, moment{};
#pragma GCC unroll 4
        for (int k = 0; k < kOld; ++k) {
            sum += load(old_sum[k] + v);
            moment += load(old_moment[k] + v);
        }
#pragma GCC unroll 4
        for (int k = 0; k < kNew; ++k) {
            Vec<F> s, m;
            group.template add<kCentred>(start + k * channels + v, exp, centre, s, m);
            if (kOld > 0 && k >= kKeepFrom) {
                store(new_sum[k] + v, s);
                store(new_moment[k] + v, m);
            }
            sum += s;
            moment += m;
        }
        fn(v, sum, moment);
    });
}

// Any window: columns that are not yet in the carry are added to it, then those of the window are summed.
template <bool kCentred, class F, class Group, class Exp, class Fn>
POOLSWAP_INLINE void any_window(const Group& group, Exp& exp, Vec<F> centre, const Problem& p, int64_t j, int64_t& done,
                                const ColumnCarry<F>& carry, Fn&& fn) {
    const Range taps = p.w.taps(j);
    const int64_t begin = p.w.first(j) + taps.begin * p.w.dilation, channels = p.channels;
    const int64_t end = p.w.first(j) + (taps.end - 1) * p.w.dilation + 1;
    for (int64_t column = most(done, p.w.first(j)); column < end; ++column) {
        F *const sums = carry.sum(column), *const moments = carry.moment(column);
        strips<F>(channels, [&](int64_t v) POOLSWAP_LAMBDA {
            Vec<F> s, m;
            group.template add<kCentred>(column * channels + v, exp, centre, s, m);
            store(sums + v, s);
            store(moments + v, m);
        });
    }
    done = most(done, end);
    strips<F>(channels, [&](int64_t v) POOLSWAP_LAMBDA {
        Vec<F> sum{}, moment{};
        for (int64_t column = begin; column < end; column += p.w.dilation) {
            sum += load(carry.sum(column) + v);
            moment += load(carry.moment(column) + v);
        }
        fn(v, sum, moment);
    });
}

// Calls fn(j, v, sum, moment) with the sums of every window of a row, for channels v.. of it.
template <bool kCentred, class F, class Group, class Exp, class Fn>
POOLSWAP_INLINE void walk_row(const Group& group, Exp& exp, Vec<F> centre, const Problem& p, const ColumnCarry<F>& carry,
                              Fn&& fn) {
    const Axis& w = p.w;
    const bool dense = w.dilation == 1;
    int64_t done = 0;
    for (int64_t j = 0; j < w.out; ++j) {
        const int64_t first = w.first(j), end = first + w.kernel;
        const auto use = [&](int64_t v, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA { fn(j, v, sum, moment); };
        const bool inside = dense && first >= 0 && end <= w.in;
        if (inside && w.kernel == 3 && done == first + 1)
            pixel_window<3, 2, kCentred>(group, exp, centre, p.channels, first, carry, use);
        else if (inside && w.kernel == 3 && done == first + 2)
            pixel_window<3, 1, kCentred>(group, exp, centre, p.channels, first, carry, use);
        else if (inside && w.kernel == 2 && done <= first && w.stride >= 2)
            pixel_window<2, 2, kCentred>(group, exp, centre, p.channels, first, carry, use);
        else {
            any_window<kCentred>(group, exp, centre, p, j, done, carry, use);
            continue;
        }
        done = end;
    }
}

template <class F>
int64_t channels_last_forward_bytes(const Problem& p) {
    return RowRing<F, kForwardRange, false>::bytes(p) + ColumnCarry<F>::bytes(p);
}

// Returns false, with y unfinished, if a value makes this shift unsafe.
template <bool kCentred, class F>
bool channels_last_forward(const Problem& p, View<const F> x, View<F> y, const Tile& outputs, const Shift<F>& shift,
                           Arena arena) {
    RowRing<F, kForwardRange, kCentred> ring(p, x, shift, arena);
    const ColumnCarry<F> carry(arena, p);
    for (int64_t plane = outputs.planes.begin; plane < outputs.planes.end; ++plane)
        for (int64_t d = outputs.d.begin; d < outputs.d.end; ++d) {
            ring.start(plane);
            for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
                ring.enter(d, h);
                F* const to = y.at(plane, d, h);
                ring.template with_group<false>([&](const auto group) POOLSWAP_LAMBDA {
                    auto exp = ring.exp;
                    const Vec<F> centre = ring.centre;
                    walk_row<kCentred>(group, exp, centre, p, carry,
                                       [&](int64_t j, int64_t v, Vec<F> sum, Vec<F> moment) POOLSWAP_LAMBDA {
                                           Vec<F> mean = moment / sum;
                                           if (kCentred) mean += centre;
                                           store(to + j * p.channels + v, mean);
                                       });
                    ring.exp.witness = exp.witness;
                });
                if (!ring.exp.safe()) return false;
            }
        }
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
