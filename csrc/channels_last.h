// Fast tiles of channels_last images: all channels of a pixel stream by, and the columns of a window that the next one
// needs again are carried along.
#pragma once

#include "column_sums.h"

namespace poolswap::POOLSWAP_ISA {

// Calls fn(piece, v) for pieces of one vector of channels, v.. of them. The last may overlap its neighbour, so what is
// kept of a piece has a place of its own.
template <class F, class Fn>
POOLSWAP_INLINE void pieces(int64_t channels, Fn&& fn) {
    constexpr int kCount = Lanes<F>::kCount;
    const int64_t full = channels / kCount;
    for (int64_t piece = 0; piece < full; ++piece) fn(piece, piece * kCount);
    if (full * kCount < channels) fn(full, channels - kCount);
}
template <class F>
int64_t piece_count(int64_t channels) {
    return ceil_div(channels, Lanes<F>::kCount);
}

// The sums of kWindows windows, one a row below the other.
template <class F, int kWindows>
struct Stack {
    Sums<F> each[kWindows];

    POOLSWAP_INLINE void add(const Stack& other) {
        for (int k = 0; k < kWindows; ++k) each[k].add(other.each[k]);
    }
};

// The column sums of one or two window rows, walked from left to right: those of the last columns.
template <class F>
struct ColumnCarry {
    Stack<F, 2>* data;
    int64_t slots, pitch;

    ColumnCarry(Arena& arena, const Problem& p)
        : data(arena.take<Stack<F, 2>>(slot_count(p) * piece_count<F>(p.channels))), slots(slot_count(p)),
          pitch(piece_count<F>(p.channels)) {}
    static int64_t slot_count(const Problem& p) { return power_of_two(p.w.extent()); }
    static int64_t bytes(const Problem& p) {
        return Arena::bytes<Stack<F, 2>>(slot_count(p) * piece_count<F>(p.channels));
    }

    template <int kWindows>
    POOLSWAP_INLINE Stack<F, kWindows>* at(int64_t column) const {
        return reinterpret_cast<Stack<F, kWindows>*>(data) + (column & (slots - 1)) * pitch;
    }
};

// Windows of kKernel columns that step by kStride, one inside the image: kNew columns are new, the others carried.
template <int kKernel, int kNew, bool kCentred, class F, class Group, class Exp, class Fn>
POOLSWAP_INLINE void pixel_window(const Group& group, Exp& exp, Vec<F> centre, int64_t channels, int64_t first,
                                  const ColumnCarry<F>& carry, Fn&& fn) {
    constexpr int kOld = kKernel - kNew, kWindows = Group::kWindows;
    using Column = Stack<F, kWindows>;
    const Column* old[kOld + 1];
    for (int k = 0; k < kOld; ++k) old[k] = carry.template at<kWindows>(first + k);
    Column* fresh[kNew];
    for (int k = 0; k < kNew; ++k) fresh[k] = carry.template at<kWindows>(first + kOld + k);
    constexpr int kKeepFrom = kNew - kOld;  // of the new columns, those that the next window shares
    const auto moved = group.moved((first + kOld) * channels);
    pieces<F>(channels, [&](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
        Column total{};
#pragma GCC unroll 4
        for (int k = 0; k < kOld; ++k) total.add(old[k][piece]);
#pragma GCC unroll 4
        for (int k = 0; k < kNew; ++k) {
            Column column;
            moved.template add_each<kCentred>(k * channels + v, exp, centre, column.each);
            if (kOld > 0 && k >= kKeepFrom) fresh[k][piece] = column;
            total.add(column);
        }
        fn(piece, v, total);
    });
}

// Any window: columns that are not yet in the carry are added to it, then those of the window are summed.
template <bool kCentred, class F, class Group, class Exp, class Fn>
POOLSWAP_INLINE void any_window(const Group& group, Exp& exp, Vec<F> centre, const Problem& p, int64_t j, int64_t& done,
                                const ColumnCarry<F>& carry, Fn&& fn) {
    const Range taps = p.w.taps(j);
    const int64_t begin = p.w.first(j) + taps.begin * p.w.dilation, channels = p.channels;
    const int64_t end = p.w.first(j) + (taps.end - 1) * p.w.dilation + 1, dilation = p.w.dilation;
    constexpr int kWindows = Group::kWindows;
    using Column = Stack<F, kWindows>;
    for (int64_t column = most(done, p.w.first(j)); column < end; ++column) {
        Column* const to = carry.template at<kWindows>(column);
        pieces<F>(channels, [&](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
            Column sums;
            group.template add_each<kCentred>(column * channels + v, exp, centre, sums.each);
            to[piece] = sums;
        });
    }
    done = most(done, end);
    pieces<F>(channels, [&](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
        Column total{};
        for (int64_t column = begin; column < end; column += dilation)
            total.add(carry.template at<kWindows>(column)[piece]);
        fn(piece, v, total);
    });
}

// Calls fn(j)(piece, v, sums) with the sums of every window j of a row, or of those of two rows, for channels v.. of
// it.
template <bool kCentred, class F, class Group, class Exp, class Fn>
POOLSWAP_INLINE void walk_row(const Group& group, Exp& exp, Vec<F> centre, const Problem& p,
                              const ColumnCarry<F>& carry, Fn&& fn) {
    const Axis w = p.w;
    const bool dense = w.dilation == 1;
    const int64_t channels = p.channels;
    int64_t done = 0;
    for (int64_t j = 0; j < w.out; ++j) {
        const int64_t first = w.first(j), end = first + w.kernel;
        const auto use = fn(j);
        const bool inside = dense && first >= 0 && end <= w.in;
        if (inside && w.kernel == 3 && done == first + 1)
            pixel_window<3, 2, kCentred>(group, exp, centre, channels, first, carry, use);
        else if (inside && w.kernel == 3 && done == first + 2)
            pixel_window<3, 1, kCentred>(group, exp, centre, channels, first, carry, use);
        else if (inside && w.kernel == 2 && done <= first && w.stride >= 2)
            pixel_window<2, 2, kCentred>(group, exp, centre, channels, first, carry, use);
        else {
            any_window<kCentred>(group, exp, centre, p, j, done, carry, use);
            continue;
        }
        done = end;
    }
}

template <class F>
int64_t channels_last_forward_bytes(const Problem& p) {
    return RowRing<F, kForwardRange<F>, false>::bytes(p) + ColumnCarry<F>::bytes(p);
}

// Returns false, with y unfinished, if a value makes this shift unsafe.
template <bool kCentred, class F>
POOLSWAP_ONCE bool channels_last_forward(const Problem& p, View<const F> x, View<F> y, const Tile& outputs,
                                         const Shift<F>& shift, Arena arena) {
    RowRing<F, kForwardRange<F>, kCentred> ring(p, x, shift, arena);
    const ColumnCarry<F> carry(arena, p);
    const int64_t channels = p.channels;
    for (int64_t plane = outputs.planes.begin; plane < outputs.planes.end; ++plane)
        for (int64_t d = outputs.d.begin; d < outputs.d.end; ++d) {
            ring.start(plane);
            for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
                const int64_t row_pitch = y.row_pitch;
                F* const to = y.at(plane, d, h);
                const auto pool = [&](const auto group) POOLSWAP_LAMBDA {
                    auto exp = ring.exp;
                    const Vec<F> centre = ring.centre;
                    walk_row<kCentred>(group, exp, centre, p, carry, [=](int64_t j) POOLSWAP_LAMBDA {
                        F* const pixel = to + j * channels;
                        return [=](int64_t, int64_t v, const auto& sums) POOLSWAP_LAMBDA {
                            for (int k = 0; k < group.kWindows; ++k) {
                                Vec<F> mean = sums.each[k].moment / sums.each[k].sum;
                                if (kCentred) mean += centre;
                                store_in_passing(pixel + k * row_pitch + v, mean);
                            }
                        };
                    });
                    ring.exp.witness = exp.witness;
                };
                if (h + 1 < outputs.h.end && ring.two_at_once(h)) {
                    ring.enter(d, h++, 2);
                    pool(RowGroup<F, RowShape<2, 4, 2, 2>>(ring.rows, 2, 4));
                } else {
                    ring.enter(d, h);
                    ring.template with_group<false>(pool);
                }
            }
            if (!ring.exp.safe()) return false;
        }
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
