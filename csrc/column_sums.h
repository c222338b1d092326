// The first half of a fast tile: for one row of windows, the sums of e and of e x down every column.
#pragma once

#include "shift.h"

namespace poolswap::POOLSWAP_ISA {

constexpr int64_t kMaxRows = 64;  // rows of a window, depth times height; taller windows go another way

// One input row of a window: its elements, and the e that are kept of it.
template <class F>
struct Row {
    const F* x;
    F* e;
};

// How many rows of a window have their e already, how many it has, and how many of the last ones must leave theirs
// behind. -1: not known before run time (old, count), or all (keep). kWindows 2: of two windows, one a row below the
// other. kFetched: somebody else fetches what streams by.
template <int kOld_, int kCount_, int kKeep_, int kWindows_ = 1, bool kFetched_ = false>
struct RowShape {
    static constexpr int kOld = kOld_, kCount = kCount_, kKeep = kKeep_, kWindows = kWindows_;
    static constexpr bool kFetched = kFetched_;
};

// Sums of e and of e x, or of p and q.
template <class F>
struct Sums {
    Vec<F> sum, moment;

    POOLSWAP_INLINE void add(const Sums& other) {
        sum += other.sum;
        moment += other.moment;
    }
    POOLSWAP_INLINE Sums masked_by(Bits<F> mask) const { return {masked<F>(sum, mask), masked<F>(moment, mask)}; }
};

// The rows of one window row in local variables, as the compiler needs them to keep them in registers.
template <class F, class Shape>
struct RowGroup {
    static constexpr int kWindows = Shape::kWindows;
    Row<F> rows[Shape::kCount];

    POOLSWAP_INLINE RowGroup(const Row<F>* from, int64_t, int64_t) : RowGroup(from, Each{}) {}

    // The same rows from element `offset` on.
    POOLSWAP_INLINE RowGroup moved(int64_t offset) const {
        RowGroup group = *this;
        for (Row<F>& row : group.rows) row = {row.x + offset, row.e + offset};
        return group;
    }

    // Adds up e and e (x - centre) at elements i.. of the rows.
    template <bool kCentred, class Exp>
    POOLSWAP_INLINE void add(int64_t i, Exp& exp, Vec<F> centre, Vec<F>& sum, Vec<F>& moment) const {
        sum = moment = Vec<F>{};
        add_all<kCentred>(i, exp, centre, sum, moment, Each{});
    }

    // The same for each window.
    template <bool kCentred, class Exp>
    POOLSWAP_INLINE void add_each(int64_t i, Exp& exp, Vec<F> centre, Sums<F> (&sums)[Shape::kWindows]) const {
        if constexpr (Shape::kWindows == 1) {
            add<kCentred>(i, exp, centre, sums[0].sum, sums[0].moment);
        } else {
            Sums<F> shared{};
            RowGroup<F, RowShape<Shape::kOld - 1, Shape::kCount - 2, Shape::kKeep - 1>>(rows + 1, 0, 0)
                .template add<kCentred>(i, exp, centre, shared.sum, shared.moment);
            sums[0] = sums[1] = shared;
            constexpr int kLast = Shape::kCount - 1;
            add_row<kCentred, (Shape::kOld > 0), false>(rows[0], i, exp, centre, sums[0].sum, sums[0].moment);
            add_row<kCentred, false, true>(rows[kLast], i, exp, centre, sums[1].sum, sums[1].moment);
        }
    }

  private:
    using Each = std::make_integer_sequence<int, Shape::kCount>;

    template <int... kRow>
    POOLSWAP_INLINE RowGroup(const Row<F>* from, std::integer_sequence<int, kRow...>) : rows{from[kRow]...} {}

    template <bool kCentred, class Exp, int... kRow>
    POOLSWAP_INLINE void add_all(int64_t i, Exp& exp, Vec<F> centre, Vec<F>& sum, Vec<F>& moment,
                                 std::integer_sequence<int, kRow...>) const {
        (add_row<kCentred, (kRow < Shape::kOld), (kRow >= Shape::kCount - Shape::kKeep)>(rows[kRow], i, exp, centre,
                                                                                         sum, moment),
         ...);
    }

  public:
    template <bool kCentred, bool kKnown, bool kKept, class Exp>
    POOLSWAP_INLINE static void add_row(const Row<F>& row, int64_t i, Exp& exp, Vec<F> centre, Vec<F>& sum,
                                        Vec<F>& moment) {
        Vec<F> x = kKnown || Shape::kFetched ? load(row.x + i) : load_in_passing(row.x + i), e;
        if constexpr (kKnown) {
            e = load(row.e + i);
        } else {
            e = exp(x);
            if constexpr (kKept) store(row.e + i, e);
        }
        if constexpr (kCentred) x -= centre;
        sum += e;
        moment += e * x;
    }
};

template <class F>
struct RowGroup<F, RowShape<-1, -1, -1>> {
    static constexpr int kWindows = 1;
    const Row<F>* rows;
    int64_t old, count, offset = 0;

    POOLSWAP_INLINE RowGroup(const Row<F>* rows_, int64_t old_, int64_t count_)
        : rows(rows_), old(old_), count(count_) {}

    POOLSWAP_INLINE RowGroup moved(int64_t by) const {
        RowGroup group = *this;
        group.offset += by;
        return group;
    }

    template <bool kCentred, class Exp>
    POOLSWAP_INLINE void add_each(int64_t i, Exp& exp, Vec<F> centre, Sums<F> (&sums)[1]) const {
        add<kCentred>(i, exp, centre, sums[0].sum, sums[0].moment);
    }

    template <bool kCentred, class Exp>
    POOLSWAP_INLINE void add(int64_t i, Exp& exp, Vec<F> centre, Vec<F>& sum, Vec<F>& moment) const {
        using One = RowGroup<F, RowShape<0, 1, 1>>;
        sum = moment = Vec<F>{};
        i += offset;
        for (int64_t r = 0; r < old; ++r)
            One::template add_row<kCentred, true, false>(rows[r], i, exp, centre, sum, moment);
        for (int64_t r = old; r < count; ++r)
            One::template add_row<kCentred, false, true>(rows[r], i, exp, centre, sum, moment);
    }
};

// e of the rows that the next windows need again. Rows of a window are handed out oldest first.
template <class F, int kRange, bool kCentred>
struct RowRing {
    const Problem& p;
    const View<const F>& x;
    const int64_t width, slots, pitch;
    const bool reuses;  // consecutive windows share rows, and nothing lies between those
    F* const kept;
    SharedExp<F, kRange> exp;
    const Vec<F> centre;
    int64_t plane = 0, done = 0;
    Row<F> rows[kMaxRows];
    int64_t old = 0, count = 0;  // of `rows`: how many have their e already, and all

    RowRing(const Problem& p_, const View<const F>& x_, const Shift<F>& shift, Arena& arena)
        : p(p_), x(x_), width(p_.w.in * p_.channels), slots(slot_count(p_)), pitch(row_pitch(p_)),
          reuses(p_.d.kernel == 1 && p_.h.dilation == 1), kept(arena.take<F>(slots * pitch)), exp(shift.slope, shift.c),
          centre(fill<F>(shift.centre)) {}

    static int64_t slot_count(const Problem& p) { return power_of_two(p.d.kernel * p.h.kernel); }
    static int64_t row_pitch(const Problem& p) {
        return ceil_div(p.w.in * p.channels, Lanes<F>::kCount) * Lanes<F>::kCount;
    }
    static int64_t bytes(const Problem& p) { return Arena::bytes<F>(slot_count(p) * row_pitch(p)); }

    void start(int64_t plane_) {
        plane = plane_;
        done = 0;
    }

    POOLSWAP_INLINE F* kept_row(int64_t row) const { return kept + (row & (slots - 1)) * pitch; }

    // Whether window row h, whose first rows have their e already, and the next one are inside the plane and 3/1.
    POOLSWAP_INLINE bool two_at_once(int64_t h) const {
        return sizeof(F) == 4 && reuses && p.h.kernel == 3 && p.h.stride == 1 && p.h.first(h) >= 0 &&
               p.h.first(h + 1) + 3 <= p.h.in && done == p.h.first(h) + 2;
    }

    // Lists the rows of window row (d, h), or of `windows` of them, one below the other.
    POOLSWAP_INLINE void enter(int64_t d, int64_t h, int windows = 1) {
        if (reuses) {
            const int64_t first = p.h.first(h), begin = most(0, first);
            const int64_t end = least(p.h.in, p.h.first(h + windows - 1) + p.h.kernel);
            old = most(0, least(done, end) - begin);
            count = end - begin;
            const F* row = x.at(plane, p.d.first(d), begin);
            for (int64_t i = 0; i < count; ++i, row += x.row_pitch) {
                rows[i] = {row, kept + ((begin + i) & (slots - 1)) * pitch};
                __asm__("");  // a vectorised loop costs more than the three rows of a usual window
            }
            done = end;
            return;
        }
        const Range slices = p.d.taps(d), taps = p.h.taps(h);
        old = count = 0;
        for (int64_t kd = slices.begin; kd < slices.end; ++kd)
            for (int64_t kh = taps.begin; kh < taps.end; ++kh) {
                const int64_t slice = p.d.first(d) + kd * p.d.dilation, row = p.h.first(h) + kh * p.h.dilation;
                rows[count] = {x.at(plane, slice, row), kept + count * pitch};
                ++count;
            }
    }

    // Calls fn(rows of the window) with the shapes of 3/2, 3/1 and 2/2 windows compiled apart.
    template <bool kKeepAll, class Fn>
    POOLSWAP_INLINE void with_group(Fn&& fn) {
        // In double, for float values that spread far, less code counts for more.
        if constexpr (sizeof(F) == 8)
            fn(RowGroup<F, RowShape<-1, -1, -1>>(rows, old, count));
        else if (old == 1 && count == 3)
            fn(RowGroup<F, RowShape<1, 3, kKeepAll ? 2 : 1>>(rows, old, count));
        else if (old == 2 && count == 3)
            fn(RowGroup<F, RowShape<2, 3, 1>>(rows, old, count));
        else if (old == 0 && count == 2 && (kKeepAll || p.h.stride >= p.h.kernel))
            fn(RowGroup<F, RowShape<0, 2, kKeepAll ? 2 : 0>>(rows, old, count));
        else
            fn(RowGroup<F, RowShape<-1, -1, -1>>(rows, old, count));
    }
};

}  // namespace poolswap::POOLSWAP_ISA
