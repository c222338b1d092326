// Windows that share no elements: stride at least the kernel, or one window (global pooling). Each is summed in units
// of its own largest exponent, found first.
#pragma once

#include "tile.h"

namespace poolswap::POOLSWAP_ISA {

inline bool is_disjoint(const Problem& p) { return p.d.disjoint() && p.h.disjoint() && p.w.disjoint(); }

// A sum of many terms that loses no more than its last bit.
template <class F>
struct LongSum {
    Vec<F> sum{}, lost{};

    POOLSWAP_INLINE void add(Vec<F> value) {
        const Vec<F> corrected = value - lost, next = sum + corrected;
        lost = (next - sum) - corrected;
        sum = next;
    }
};

// The elements of one window in one vector of lanes.
template <class F>
struct DisjointWindow {
    LaneView<F> x;
    int64_t offset;
    Range slices, rows, columns;

    // Calls fn(address of the first element, slice, row) for every row.
    template <class Fn>
    POOLSWAP_INLINE void each_row(Fn&& fn) const {
        for (int64_t slice = slices.begin; slice < slices.end; ++slice)
            for (int64_t row = rows.begin; row < rows.end; ++row)
                fn(x.row(slice, row) + columns.begin * x.pixel_pitch + offset, slice, row);
    }

    // Two sums at a time: every addition waits for the one before it.
    template <Pass kPass>
    POOLSWAP_INLINE WindowSum<kPass, F> sum(Encoder<F>& encode, const Averaged<kPass, F>& average) const {
        const int64_t pitch = x.pixel_pitch, width = columns.size();
        Vec<F> top[2] = {fill<F>(kBelowAll<F>), fill<F>(kBelowAll<F>)};
        const auto see = [&](const F* from, int which) POOLSWAP_LAMBDA {
            __builtin_prefetch(from + 2 * Lanes<F>::kCount);  // channels that follow
            const Vec<F> n = encode.exponent(load(from));
            encode.watch_exponent(n);
            top[which] = larger<F>(top[which], n);
        };
        each_row([&](const F* from, int64_t, int64_t) POOLSWAP_LAMBDA {
            int64_t c = 0;
            for (; c + 2 <= width; c += 2, from += 2 * pitch) {
                see(from, 0);
                see(from + pitch, 1);
            }
            if (c < width) see(from, 0);
        });
        const Vec<F> exponent = larger<F>(top[0], top[1]);
        WindowSum<kPass, F> all{exponent, Vec<F>{}, Vec<F>{}}, part[2] = {all, all};
        LongSum<F> weight, moment;
        const Encoder<F> known = encode;
        const auto add = [&](const F* from, int which) POOLSWAP_LAMBDA {
            const Vec<F> value = load(from), n = known.exponent(value), f = known.rest(value, n);
            part[which].add(Element<F>{n, exp2_fraction(f), f}, value, average);
        };
        const auto end_part = [&] {
            weight.add(part[0].weight + part[1].weight);
            moment.add(part[0].moment + part[1].moment);
            part[0] = part[1] = all;
        };
        each_row([&](const F* from, int64_t, int64_t) POOLSWAP_LAMBDA {
            for (int64_t c = 0; c < width;) {
                const int64_t until = least(width, c + kPart);
                for (; c + 2 <= until; c += 2, from += 2 * pitch) {
                    add(from, 0);
                    add(from + pitch, 1);
                }
                if (c < until) {
                    add(from, 0);
                    ++c;
                    from += pitch;
                }
                if (width > 8) end_part();
            }
            if (width <= 8 && rows.size() > 8) end_part();
        });
        end_part();
        return {exponent, weight.sum, moment.sum};
    }

  private:
    static constexpr int64_t kPart = 64;  // terms that are added up without compensation
};

// Windows of 2 x 2, whose elements fit into registers.
template <Pass kPass, class F>
struct TwoByTwo {
    Element<F> each[4];
    Vec<F> x[4];

    POOLSWAP_INLINE TwoByTwo(const F* upper, const F* lower, int64_t pixel_pitch, Encoder<F>& encode)
        : x{load(upper), load(upper + pixel_pitch), load(lower), load(lower + pixel_pitch)} {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) each[k] = encode(x[k]);
    }
    POOLSWAP_INLINE WindowSum<kPass, F> sum(const Averaged<kPass, F>& average) const {
        return WindowSum<kPass, F>::of(each, x, average);
    }
};

template <class F>
class Disjoint {
    // The elements of axis a that window o holds.
    static Range window(const Axis& a, int64_t o) {
        const Range taps = a.taps(o);
        return {a.first(o) + taps.begin, a.first(o) + taps.end};
    }
    // The windows along a row from `begin` that lie inside it.
    static int64_t inside_until(const Axis& w) { return least(w.out, floor_div(w.in - w.kernel + w.padding, w.stride) + 1); }
    static bool pairs(const Range& slices, const Range& rows, const Axis& w) {
        return slices.size() == 1 && rows.size() == 2 && w.kernel == 2 && w.padding == 0 && w.dilation == 1;
    }

  public:
    static bool forward(ForwardTile<F> tile) {
        const Problem& p = tile.p;
        Bits<F> outside{};
        for (int64_t d = tile.d.begin; d < tile.d.end; ++d) {
            const Range slices = window(p.d, d);
            tile.y.start_slice();
            if (slices.size() > 1) tile.x.fetch_all(slices); else tile.x.start_slice();
            for (int64_t h = tile.h.begin; h < tile.h.end; ++h) {
                const Range rows = window(p.h, h);
                if (slices.size() <= 1) tile.x.fetch_until(slices.begin, rows.end);
                for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
                    const int64_t offset = tile.pieces.template offset<F>(piece), pitch = tile.y.view.pixel_pitch;
                    F* const y = tile.y.view.row(d, h) + offset;
                    Encoder<F> encode(tile.betas, offset);
                    const auto average = tile.average(piece);
                    const auto put = [&](int64_t j, const auto& sum) POOLSWAP_LAMBDA {
                        const Vec<F> mean = sum.mean();
                        encode.watch_result(mean);
                        store(y + j * pitch, mean);
                    };
                    int64_t j = 0;
                    if (pairs(slices, rows, p.w)) {
                        const LaneView<F> x = tile.x.view;
                        const F *const upper = x.row(slices.begin, rows.begin) + offset, *const lower = upper + x.row_pitch;
                        const int64_t step = p.w.stride * x.pixel_pitch, until = inside_until(p.w);
                        Ahead<F, false> x_ahead(x, slices.begin, rows.end, piece * p.w.in * 2);
                        Ahead<F, true> y_ahead(tile.y.view, d, h + 1, piece * p.w.out);
                        for (; j < until; ++j) {
                            x_ahead.template step<4>();
                            y_ahead.template step<1>();
                            const TwoByTwo<Pass::kForward, F> whole(upper + j * step, lower + j * step, x.pixel_pitch, encode);
                            put(j, whole.sum(average));
                        }
                    }
                    for (; j < p.w.out; ++j)
                        put(j, DisjointWindow<F>{tile.x.view, offset, slices, rows, window(p.w, j)}
                                   .template sum<Pass::kForward>(encode, average));
                    outside |= encode.outside;
                }
                tile.y.commit_until(d, h + 1);
            }
        }
        return safe<F>(outside);
    }

    template <Pass kPass>
    static bool backward(BackwardTile<kPass, F> tile) {
        const Problem& p = tile.p;
        Bits<F> outside{};
        const auto covered = [](const Axis& a) {
            return a.padding == 0 && a.dilation == 1 &&
                   (a.out == 1 ? a.kernel >= a.in : a.kernel == a.stride && a.out * a.stride == a.in);
        };
        const bool clear = !(covered(p.d) && covered(p.h) && covered(p.w));
        tile.x.fetch_all(tile.input_d);
        tile.g.fetch_all(tile.output_d);
        if (clear)
            for (int64_t d = tile.d.begin; d < tile.d.end; ++d)
                for (int64_t row = tile.h.begin; row < tile.h.end; ++row)
                    set_all(tile.dx.view.row(d, row), F(0), p.w.in * tile.dx.view.pixel_pitch);
        for (int64_t d = tile.output_d.begin; d < tile.output_d.end; ++d)
            for (int64_t h = tile.output_h.begin; h < tile.output_h.end; ++h) {
                const Range slices = window(p.d, d), rows = window(p.h, h);
                const bool whole = slices.begin >= tile.d.begin && slices.end <= tile.d.end && rows.begin >= tile.h.begin &&
                                   rows.end <= tile.h.end;
                for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
                    const int64_t offset = tile.pieces.template offset<F>(piece);
                    const LaneView<F> x = tile.x.view, dx = tile.dx.view;
                    const int64_t g_pitch = tile.g.view.pixel_pitch;
                    const F* const g = tile.g.view.row(d, h) + offset;
                    Encoder<F> encode(tile.betas, offset);
                    auto average = tile.average(piece);
                    int64_t j = 0, terms = 0;
                    if (whole && pairs(slices, rows, p.w)) {
                        const F *const upper = x.row(slices.begin, rows.begin) + offset, *const lower = upper + x.row_pitch;
                        F *const dx_upper = dx.row(slices.begin, rows.begin) + offset, *const dx_lower = dx_upper + dx.row_pitch;
                        const int64_t step = p.w.stride * x.pixel_pitch, dx_step = p.w.stride * dx.pixel_pitch;
                        const int64_t until = inside_until(p.w), pitch = x.pixel_pitch, dx_pitch = dx.pixel_pitch;
                        Ahead<F, false> x_ahead(x, slices.begin, rows.end, piece * p.w.in * 2);
                        Ahead<F, false> g_ahead(tile.g.view, d, h + 1, piece * p.w.out);
                        Ahead<F, true> dx_ahead(dx, slices.begin, rows.end, piece * p.w.in * 2);
                        for (; j < until; ++j) {
                            x_ahead.template step<4>();
                            g_ahead.template step<1>();
                            dx_ahead.template step<4>();
                            const TwoByTwo<kPass, F> window(upper + j * step, lower + j * step, pitch, encode);
                            const auto share = Share<kPass, F>::of(window.sum(average), load(g + j * g_pitch));
                            F* const to[] = {dx_upper + j * dx_step, dx_upper + j * dx_step + dx_pitch, dx_lower + j * dx_step,
                                             dx_lower + j * dx_step + dx_pitch};
#pragma GCC unroll 4
                            for (int k = 0; k < 4; ++k) store(to[k], share.hand_to(window.each[k], window.x[k], average));
                        }
                    }
                    for (; j < p.w.out; ++j) {
                        const DisjointWindow<F> window_{x, offset, slices, rows, window(p.w, j)};
                        const auto share = Share<kPass, F>::of(window_.template sum<kPass>(encode, average), load(g + j * g_pitch));
                        const Encoder<F> known = encode;
                        window_.each_row([&](const F* from, int64_t slice, int64_t row) POOLSWAP_LAMBDA {
                            if ((terms += window_.columns.size()) > 64) {
                                tile.keep(average, piece);
                                terms = 0;
                            }
                            if (!whole && (slice < tile.d.begin || slice >= tile.d.end || row < tile.h.begin || row >= tile.h.end))
                                return;
                            F* to = dx.row(slice, row) + window_.columns.begin * dx.pixel_pitch + offset;
                            for (int64_t c = window_.columns.begin; c < window_.columns.end; ++c) {
                                const Vec<F> value = load(from), n = known.exponent(value), f = known.rest(value, n);
                                store(to, share.hand_to(Element<F>{n, exp2_fraction(f), f}, value, average));
                                from += x.pixel_pitch;
                                to += dx.pixel_pitch;
                            }
                        });
                    }
                    outside |= encode.outside;
                    tile.keep(average, piece);
                }
            }
        tile.dx.commit_all(tile.d);
        return safe<F>(outside);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
