// Windows that share no elements: stride at least the kernel, or one window (global pooling). Blocks of elements are read
// into registers and summed in units of their largest exponent, and the sums of the blocks are added up.
#pragma once

#include <type_traits>

#include "tile.h"

namespace poolswap::POOLSWAP_ISA {

// A sum of many sums that loses no more than its last bit.
template <Pass kPass, class F>
struct LongSum {
    using Sum = WindowSum<kPass, F>;
    Sum sum = Sum::none(), lost = Sum::none();

    POOLSWAP_INLINE void add(const Sum& part, const typename Sum::Average& average) {
        const Vec<F> exponent = Sum::joint(sum.exponent, part.exponent);
        const Sum a = sum.at(exponent, average), b = part.at(exponent, average), l = lost.at(exponent, average);
        const Sum more{exponent, b.weight - l.weight, b.moment - l.moment};
        sum = {exponent, a.weight + more.weight, a.moment + more.moment};
        lost = {exponent, (sum.weight - a.weight) - more.weight, (sum.moment - a.moment) - more.moment};
    }
};

// One vector of lanes: where it lies in a pixel, and how its elements are encoded and averaged.
template <Pass kPass, class F>
struct PieceOf {
    const int64_t index, offset;
    Encoder<F> encode;
    Averaged<kPass, F> average;

    template <class Tile>
    POOLSWAP_INLINE PieceOf(const Tile& tile, int64_t piece)
        : index(piece), offset(tile.pieces.template offset<F>(piece)), encode(tile.betas, offset), average(tile.average(piece)) {}
};

// The elements of one window.
template <class F>
struct DisjointWindow {
    LaneView<F> x;
    Range slices, rows, columns;

    // Calls fn(address of the first element, without an offset, slice, row) for every row.
    template <class Fn>
    POOLSWAP_INLINE void each_row(Fn&& fn) const {
        for (int64_t slice = slices.begin; slice < slices.end; ++slice)
            for (int64_t row = rows.begin; row < rows.end; ++row)
                fn(x.row(slice, row) + columns.begin * x.pixel_pitch, slice, row);
    }

    // Windows of several slices fetch what the windows below them hold: rows that follow each other lie in one slice.
    template <bool kWritten>
    POOLSWAP_INLINE void follow_below(Ahead<F, kWritten>& ahead, const F* row, const LaneView<F>& view) const {
        if (slices.size() > 1) ahead.follow(row + rows.size() * view.row_pitch, view.pixel_pitch);
    }

    POOLSWAP_INLINE int64_t size() const { return slices.size() * rows.size() * columns.size(); }

    // The window's sum in each of kPieces vectors of lanes. Backward, the powers of its last kPart or fewer elements are
    // kept in `powers`, kPieces vectors for each.
    template <Pass kPass, int kPieces>
    POOLSWAP_INLINE void sum(PieceOf<kPass, F> (&pieces)[kPieces], WindowSum<kPass, F> (&sums)[kPieces],
                             Ahead<F, false>& ahead, Vec<F>* powers) const {
        const int64_t width = columns.size();
        LongSum<kPass, F> all[kPieces];
        int64_t terms = 0;
        const auto start_part = [&](bool first) POOLSWAP_LAMBDA {
#pragma GCC unroll 4
            for (int k = 0; k < kPieces; ++k) {
                if (!first) all[k].add(sums[k], pieces[k].average);
                sums[k] = WindowSum<kPass, F>::none();
            }
            terms = 0;
        };
        start_part(true);
        each_row([&](const F* from, int64_t, int64_t) POOLSWAP_LAMBDA {
            follow_below(ahead, from + pieces[0].offset, x);
            for (int64_t c = 0; c < width; c += kPart) {
                const int64_t count = least(kPart, width - c);
                if (terms + count > kPart) start_part(false);
                add<kBlock>(from + c * x.pixel_pitch, count, pieces, sums, ahead, powers, terms);
                terms += count;
            }
        });
        if (size() <= kPart) return;
        start_part(false);
#pragma GCC unroll 4
        for (int k = 0; k < kPieces; ++k) sums[k] = all[k].sum;
    }

    static constexpr int64_t kPart = 64;  // terms that are added up without compensation

  private:
    static constexpr int kBlock = POOLSWAP_VECTOR_BYTES == 64 ? 8 : 4;  // elements that fit into registers

    // Adds `count` elements, in blocks of kSize first. What lies in one line of the cache is read together.
    template <int kSize, Pass kPass, int kPieces>
    POOLSWAP_INLINE void add(const F* from, int64_t count, PieceOf<kPass, F> (&pieces)[kPieces],
                             WindowSum<kPass, F> (&sums)[kPieces], Ahead<F, false>& ahead, Vec<F>* powers,
                             int64_t terms) const {
        for (; count >= kSize; count -= kSize, terms += kSize, from += kSize * x.pixel_pitch) {
#pragma GCC unroll 4
            for (int k = 0; k < kPieces; ++k) {
                Element<F> each[kSize];
                Vec<F> values[kSize];
                ahead.template step<kSize>();
#pragma GCC unroll 8
                for (int i = 0; i < kSize; ++i) {
                    values[i] = load(from + i * x.pixel_pitch + pieces[k].offset);
                    each[i] = pieces[k].encode(values[i]);
                    if constexpr (kPass != Pass::kForward) powers[(terms + i) * kPieces + k] = each[i].power;
                }
                const auto block = WindowSum<kPass, F>::of(each, values, pieces[k].average);
                sums[k] = joined<WindowSum<kPass, F>, 2>({sums[k], block}, pieces[k].average);
            }
        }
        if constexpr (kSize > 1) add<kSize / 2>(from, count, pieces, sums, ahead, powers, terms);
    }
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

    // Calls fn(pieces) for the vectors of every pixel, those of one line of the cache together.
    template <class Tile, class Fn>
    static POOLSWAP_INLINE void each_line(const Tile& tile, Fn&& fn) {
        using Piece = PieceOf<Tile::kPass, F>;
        const auto together = [&](int64_t piece, auto... k) POOLSWAP_LAMBDA {
            Piece pieces[] = {Piece(tile, piece + k)...};
            fn(pieces);
        };
        int64_t piece = 0;
        if constexpr (POOLSWAP_VECTOR_BYTES == 32)  // vectors of 64 fill a line, and with 16 NEON lacks the registers
            for (; piece + 2 <= tile.pieces.count; piece += 2) together(piece, 0, 1);
        for (; piece < tile.pieces.count; ++piece) together(piece, 0);
    }

    // Calls put(piece, sum of the window) for every piece.
    template <Pass kPass, int kPieces, class Put>
    static POOLSWAP_INLINE void each_sum(const DisjointWindow<F>& whole, PieceOf<kPass, F> (&pieces)[kPieces],
                                         Ahead<F, false>& ahead, Vec<F>* powers, Put&& put) {
        WindowSum<kPass, F> sums[kPieces];
        whole.sum(pieces, sums, ahead, powers);
#pragma GCC unroll 2
        for (int k = 0; k < kPieces; ++k) put(pieces[k], sums[k]);
    }

    // Calls put(o, window) for the windows of 2 x 2 before `until`, from the upper one of `rows` on.
    template <Pass kPass, class Put>
    static POOLSWAP_INLINE void each_pair(const Axis& w, const LaneView<F>& x, int64_t slice, Range rows, int64_t until,
                                          PieceOf<kPass, F>& piece, Put&& put) {
        const F* const upper = x.row(slice, rows.begin) + piece.offset;
        const int64_t step = w.stride * x.pixel_pitch, pixel_pitch = x.pixel_pitch, row_pitch = x.row_pitch;
        Ahead<F, false> ahead(x, slice, rows.end, piece.index * w.in * 2);
        for (int64_t o = 0; o < until; ++o) {
            ahead.template step<4>();
            const F* const from = upper + o * step;
            put(o, TwoByTwo<kPass, F>(from, from + row_pitch, pixel_pitch, piece.encode));
        }
    }

  public:
    static bool forward(ForwardTile<F>& tile) {
        using Piece = PieceOf<Pass::kForward, F>;
        const Problem& p = tile.p;
        Bits<F> outside{};
        for (int64_t d = tile.d.begin; d < tile.d.end; ++d) {
            const Range slices = window(p.d, d);
            tile.y.start_slice();
            if (slices.size() > 1) tile.x.fetch_all(slices); else tile.x.start_slice();
            for (int64_t h = tile.h.begin; h < tile.h.end; ++h) {
                const Range rows = window(p.h, h);
                if (slices.size() <= 1) tile.x.fetch_until(slices.begin, rows.end);
                const LaneView<F> x = tile.x.view, y = tile.y.view;
                F* const to = y.row(d, h);
                const auto put = [&](Piece& piece, int64_t j, const auto& sum) POOLSWAP_LAMBDA {
                    const Vec<F> mean = sum.mean();
                    piece.encode.watch_result(mean);
                    store(to + j * y.pixel_pitch + piece.offset, mean);
                };
                const int64_t paired = pairs(slices, rows, p.w) ? inside_until(p.w) : 0;
                for (int64_t index = 0; paired > 0 && index < tile.pieces.count; ++index) {
                    Piece piece(tile, index);
                    Ahead<F, true> y_ahead(y, d, h + 1, index * p.w.out);
                    each_pair(p.w, x, slices.begin, rows, paired, piece, [&](int64_t j, const auto& whole) POOLSWAP_LAMBDA {
                        y_ahead.template step<1>();
                        put(piece, j, whole.sum(piece.average));
                    });
                    outside |= piece.encode.outside;
                }
                each_line(tile, [&](auto& pieces) POOLSWAP_LAMBDA {
                    Ahead<F, false> x_ahead(x, slices.begin, rows.end, pieces[0].index * rows.size() * p.w.in);
                    for (int64_t j = paired; j < p.w.out; ++j)
                        each_sum(DisjointWindow<F>{x, slices, rows, window(p.w, j)}, pieces, x_ahead, nullptr,
                                 [&](Piece& piece, const auto& sum) POOLSWAP_LAMBDA { put(piece, j, sum); });
                    for (const Piece& piece : pieces) outside |= piece.encode.outside;
                });
                tile.y.commit_until(d, h + 1);
            }
        }
        return safe<F>(outside);
    }

    template <Pass kPass>
    static bool backward(BackwardTile<kPass, F>& tile) {
        using Piece = PieceOf<kPass, F>;
        const Problem& p = tile.p;
        Bits<F> outside{};
        const auto covered = [](const Axis& a) {
            return a.padding == 0 && a.dilation == 1 &&
                   (a.out == 1 ? a.kernel >= a.in : a.kernel == a.stride && a.out * a.stride == a.in);
        };
        const bool clear = !(covered(p.d) && covered(p.h) && covered(p.w)), flat = p.d.in == 1;
        tile.x.start_slice();
        tile.g.start_slice();
        tile.dx.start_slice();
        if (!flat) {
            tile.x.fetch_all(tile.input_d);
            tile.g.fetch_all(tile.output_d);
        }
        if (clear)
            for (int64_t d = tile.d.begin; d < tile.d.end; ++d)
                for (int64_t row = tile.h.begin; row < tile.h.end; ++row)
                    set_all(tile.dx.view.row(d, row), F(0), p.w.in * tile.dx.view.pixel_pitch);
        for (int64_t d = tile.output_d.begin; d < tile.output_d.end; ++d)
            for (int64_t h = tile.output_h.begin; h < tile.output_h.end; ++h) {
                const Range slices = window(p.d, d), rows = window(p.h, h);
                if (flat) {
                    tile.x.fetch_until(0, rows.end);
                    tile.g.fetch_until(0, h + 1);
                }
                const auto own = [&](int64_t slice, int64_t row) {
                    return slice >= tile.d.begin && slice < tile.d.end && row >= tile.h.begin && row < tile.h.end;
                };
                const bool whole = own(slices.begin, rows.begin) && own(slices.end - 1, rows.end - 1);
                const LaneView<F> x = tile.x.view, dx = tile.dx.view, g = tile.g.view;
                const auto share_of = [&](const Piece& piece, int64_t j, const auto& sum) POOLSWAP_LAMBDA {
                    return Share<kPass, F>::of(sum, load(g.row(d, h) + j * g.pixel_pitch + piece.offset));
                };
                const int64_t paired = whole && pairs(slices, rows, p.w) ? inside_until(p.w) : 0;
                for (int64_t index = 0; paired > 0 && index < tile.pieces.count; ++index) {
                    Piece piece(tile, index);
                    F* const to = dx.row(slices.begin, rows.begin) + piece.offset;
                    Ahead<F, false> g_ahead(g, d, h + 1, index * p.w.out);
                    Ahead<F, true> dx_ahead(dx, slices.begin, rows.end, index * p.w.in * 2);
                    each_pair(p.w, x, slices.begin, rows, paired, piece, [&](int64_t j, const auto& all) POOLSWAP_LAMBDA {
                        g_ahead.template step<1>();
                        dx_ahead.template step<4>();
                        const auto share = share_of(piece, j, all.sum(piece.average));
                        F* const upper = to + j * p.w.stride * dx.pixel_pitch;
#pragma GCC unroll 4
                        for (int k = 0; k < 4; ++k)
                            store(upper + k / 2 * dx.row_pitch + k % 2 * dx.pixel_pitch,
                                  share.hand_to(all.each[k], all.x[k], piece.average));
                    });
                    outside |= piece.encode.outside;
                    tile.keep(piece.average, index);
                }
                each_line(tile, [&](auto& pieces) POOLSWAP_LAMBDA {
                    const int64_t before = pieces[0].index * rows.size() * p.w.in;
                    Ahead<F, false> x_ahead(x, slices.begin, rows.end, before);
                    Ahead<F, true> dx_ahead(dx, slices.begin, rows.end, before);
                    int64_t terms = 0;
                    for (int64_t j = paired; j < p.w.out; ++j) {
                        const DisjointWindow<F> all{x, slices, rows, window(p.w, j)};
                        constexpr int kPieces = std::extent_v<std::remove_reference_t<decltype(pieces)>>;
                        Share<kPass, F> shares[kPieces], *next = shares;
                        Vec<F> powers[DisjointWindow<F>::kPart * kPieces];
                        const bool kept = all.size() <= DisjointWindow<F>::kPart;
                        int64_t passed = 0;
                        each_sum(all, pieces, x_ahead, powers,
                                 [&](Piece& piece, const auto& sum) POOLSWAP_LAMBDA { *next++ = share_of(piece, j, sum); });
                        all.each_row([&](const F* from, int64_t slice, int64_t row) POOLSWAP_LAMBDA {
                            const Vec<F>* power = powers + (kept ? passed * kPieces : 0);
                            passed += all.columns.size();
                            if (!own(slice, row)) return;
                            F* to = dx.row(slice, row) + all.columns.begin * dx.pixel_pitch;
                            all.follow_below(dx_ahead, to + pieces[0].offset, dx);
                            for (int64_t c = 0; c < all.columns.size(); ++c, from += x.pixel_pitch, to += dx.pixel_pitch) {
                                const Share<kPass, F>* share = shares;
                                for (Piece& piece : pieces) {
                                    dx_ahead.template step<1>();
                                    const Vec<F> value = load(from + piece.offset);
                                    Encoder<F> encode = piece.encode;
                                    const auto element = kept ? encode.with_power(value, *power++) : encode(value);
                                    store(to + piece.offset, share++->hand_to(element, value, piece.average));
                                }
                                if (++terms % 64 == 0)
                                    for (Piece& piece : pieces) tile.keep(piece.average, piece.index);
                            }
                        });
                    }
                    for (Piece& piece : pieces) {
                        outside |= piece.encode.outside;
                        tile.keep(piece.average, piece.index);
                    }
                });
                if (flat) tile.dx.commit_until(0, least(rows.end, tile.h.end));
            }
        if (flat)
            tile.dx.commit_until(0, tile.h.end);
        else
            tile.dx.commit_all(tile.d);
        return safe<F>(outside);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
