// 3x3 windows that step by two, padded by one, over rows of even length: the pool behind a ResNet's first convolution.
// Column sums stay in registers: with E and O those of even and odd columns, window j sums E[j] + O[j] + O[j - 1].
#pragma once

#include "planar.h"

namespace poolswap::POOLSWAP_ISA {

inline bool is_stem(const Axis& w, int lanes) {
    return w.kernel == 3 && w.stride == 2 && w.padding == 1 && w.dilation == 1 && w.in == 2 * w.out && w.in >= lanes;
}

template <class F>
class StemRow {
    static constexpr int kCount = Lanes<F>::kCount;
    const int64_t width;
    const bool overlaps;  // the last vectors overlap others, and need the odd column before them again
    const PaddedRow<F> odd_sum, odd_moment;

  public:
    StemRow(Arena& arena, const Axis& w)
        : width(w.in), overlaps(w.in % kCount != 0), odd_sum(arena, kCount, w.out, kCount),
          odd_moment(arena, kCount, w.out, kCount) {}
    static int64_t bytes(const Axis& w) { return 2 * PaddedRow<F>::bytes(kCount, w.out, kCount); }

    // Calls fn(j, sum, moment, whole) for windows j..: a vector of them, or half of one if not `whole`.
    template <bool kCentred, class Group, class Exp, class Fn>
    POOLSWAP_INLINE void each_window(const Group& group, Exp& exp, Vec<F> centre, Fn&& fn) const {
        F *const odd_s = odd_sum.data, *const odd_m = odd_moment.data;
        const bool keeps = overlaps;
        Vec<F> last_s{}, last_m{};
        const auto windows = [&](int64_t column, auto whole) POOLSWAP_LAMBDA {
            Vec<F> s0, m0, s1, m1;
            group.template add<kCentred>(column, exp, centre, s0, m0);
            if constexpr (whole()) {
                group.template add<kCentred>(column + kCount, exp, centre, s1, m1);
            } else {
                s1 = s0;
                m1 = m0;
            }
            const Vec<F> odd_s_ = odd_lanes<F>(s0, s1), odd_m_ = odd_lanes<F>(m0, m1);
            const int64_t j = column / 2;
            fn(j, even_lanes<F>(s0, s1) + odd_s_ + shifted_in<F>(last_s, odd_s_),
               even_lanes<F>(m0, m1) + odd_m_ + shifted_in<F>(last_m, odd_m_), whole);
            if (keeps) {
                store(odd_s + j, odd_s_);
                store(odd_m + j, odd_m_);
            }
            last_s = odd_s_;
            last_m = odd_m_;
        };
        const auto recall = [&](int64_t column) POOLSWAP_LAMBDA {
            last_s = load(odd_s + column / 2 - kCount);
            last_m = load(odd_m + column / 2 - kCount);
        };
        int64_t column = 0;
        for (; column + 2 * kCount <= width; column += 2 * kCount) windows(column, std::true_type{});
        if (column == width) return;
        if (width - column > kCount && width >= 2 * kCount) {
            recall(width - 2 * kCount);
            windows(width - 2 * kCount, std::true_type{});
            return;
        }
        for (; column < width; column += kCount) {
            const int64_t start = least(column, width - kCount);
            if (keeps) recall(start);
            windows(start, std::false_type{});
        }
    }
};

// A vector of windows, or half of one.
template <class F, class Whole>
POOLSWAP_INLINE Vec<F> load_windows(const F* from, Whole) {
    if constexpr (Whole()()) return load(from);
    Vec<F> half{};
    memcpy(&half, from, sizeof half / 2);
    return half;
}
template <class F, class Whole>
POOLSWAP_INLINE void store_windows(F* to, Vec<F> value, Whole) {
    if constexpr (Whole()())
        store(to, value);
    else
        memcpy(to, &value, sizeof value / 2);
}

template <class F>
int64_t planar_stem_bytes(const Problem& p) {
    return RowRing<F, kForwardRange<F>, false>::bytes(p) + StemRow<F>::bytes(p.w);
}

// Returns false, with y unfinished, if a value makes this shift unsafe.
template <bool kCentred, class F>
POOLSWAP_ONCE bool planar_stem_forward(const Problem& p, View<const F> x, View<F> y, const Tile& outputs,
                                       const Shift<F>& shift, Arena arena) {
    RowRing<F, kForwardRange<F>, kCentred> ring(p, x, shift, arena);
    const StemRow<F> row(arena, p.w);
    for (int64_t plane = outputs.planes.begin; plane < outputs.planes.end; ++plane)
        for (int64_t d = outputs.d.begin; d < outputs.d.end; ++d) {
            ring.start(plane);
            for (int64_t h = outputs.h.begin; h < outputs.h.end; ++h) {
                ring.enter(d, h);
                F* const to = y.at(plane, d, h);
                ring.template with_group<false>([&](const auto group) POOLSWAP_LAMBDA {
                    auto exp = ring.exp;
                    const Vec<F> centre = ring.centre;
                    row.template each_window<kCentred>(
                        group, exp, centre, [=](int64_t j, Vec<F> sum, Vec<F> moment, auto whole) POOLSWAP_LAMBDA {
                            Vec<F> mean = moment / sum;
                            if (kCentred) mean += centre;
                            store_windows(to + j, mean, whole);
                        });
                    ring.exp.witness = exp.witness;
                });
            }
            if (!ring.exp.safe()) return false;
        }
    return true;
}

}  // namespace poolswap::POOLSWAP_ISA
