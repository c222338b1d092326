// Windows of 3 x 3 that step by 1 or 2, the usual overlapping pools, in one pass over the tile.
//
// A row of windows is walked from left to right, one vector of lanes (staging.h) at a time: the three elements of a
// column are summed, then the three columns of a window, of which the next window needs 3 - kStride again and finds
// them in registers. Rows that the next row of windows needs again are `kept`: the powers of their elements are stored, so
// that each is computed once.
//
// Windows that reach over an edge have rows and columns of "no element" there, which weigh nothing.
#pragma once

#include "tile.h"

namespace poolswap::POOLSWAP_ISA {

inline bool is_three(const Axis& a) {
    return a.kernel == 3 && a.dilation == 1 && (a.stride == 1 || a.stride == 2) && a.padding <= 1;
}
inline bool is_three(const Problem& p) {
    return p.d.kernel == 1 && p.d.stride == 1 && p.d.padding == 0 && is_three(p.h) && is_three(p.w) &&
           p.h.stride == p.w.stride;
}

// One row of elements: x with its own distance between pixels, power with a vector per pixel. Exponents are not stored,
// one multiply-add finds them again.
template <class F>
struct ElementRow {
    const F* x;
    F* power;
};

// The powers of rows that windows still need, a vector per pixel for every piece.
template <class F>
class KeptRows {
    static constexpr int64_t kSlots = 4;  // rows, more than a window has
    F* powers;
    const int64_t row;

  public:
    KeptRows(const Problem& p, int64_t pieces, Arena& arena)
        : powers(arena.take<F>(size(p, pieces))), row(p.w.in * Lanes<F>::kCount) {
        set_all(powers, F(0), row);
    }
    static int64_t size(const Problem& p, int64_t pieces) { return (pieces * kSlots + 1) * p.w.in * Lanes<F>::kCount; }
    static int64_t bytes(const Problem& p, int64_t pieces) { return Arena::bytes<F>(size(p, pieces)); }

    POOLSWAP_INLINE ElementRow<F> at(const F* x, int64_t piece, int64_t index) const {
        return {x, powers + (1 + piece * kSlots + (index & (kSlots - 1))) * row};
    }
    // A row of no elements: powers of 0, with the exponents of an existing row of the window.
    POOLSWAP_INLINE ElementRow<F> none(const F* x) const { return {x, powers}; }
};

// The rows of one row of windows, and its walk. The first kOld rows are kept rows, the others are encoded, and the last
// kKeep of them kept.
template <Pass kPass, int kOld, int kKeep, class F>
struct ThreeRows {
    static constexpr int kCount = Lanes<F>::kCount;
    ElementRow<F> rows[3];
    int64_t pixel_pitch;

    POOLSWAP_INLINE WindowSum<kPass, F> column(int64_t c, Encoder<F>& encode, const Averaged<kPass, F>& average) const {
        Element<F> each[3];
        Vec<F> x[3];
#pragma GCC unroll 3
        for (int r = 0; r < 3; ++r) {
            x[r] = load(rows[r].x + c * pixel_pitch);
            if (r < kOld) {
                each[r] = encode.with_power(x[r], load(rows[r].power + c * kCount));
            } else {
                each[r] = encode(x[r]);
                if (r >= 3 - kKeep) store(rows[r].power + c * kCount, each[r].power);
            }
        }
        return WindowSum<kPass, F>::of(each, x, average);
    }

    // Calls use(j, sum) for every window.
    template <int kStride, class Use>
    POOLSWAP_INLINE void walk(const Axis& axis, Encoder<F>& encode_, const Averaged<kPass, F>& average_, Use&& use) const {
        using Sum = WindowSum<kPass, F>;
        const ThreeRows row = *this;  // local copies, which stores of vectors cannot change
        const Axis w = axis;
        const auto average = average_;
        auto encode = encode_, encode_edge = encode_;
        const auto clipped = [&row, &w, &encode_edge, &average_](int64_t c) __attribute__((noinline)) {
            return c >= 0 && c < w.in ? row.column(c, encode_edge, average_) : Sum::none();
        };
        Sum columns[3];
#pragma GCC unroll 2
        for (int k = 0; k < 3 - kStride; ++k) columns[k] = clipped(w.first(0) + k);
        const auto window = [&](int64_t j, auto&& column) POOLSWAP_LAMBDA {
#pragma GCC unroll 2
            for (int k = 3 - kStride; k < 3; ++k) columns[k] = column(w.first(j) + k);
            use(j, joined(columns, average));
#pragma GCC unroll 2
            for (int k = 0; k < 3 - kStride; ++k) columns[k] = columns[k + kStride];
        };
        // Windows before this one do not reach over the right edge.
        const int64_t inside = most(1, least(w.out, floor_div(w.in - 3 + w.padding, kStride) + 1));
        window(0, clipped);
        for (int64_t j = 1; j < inside; ++j)
            window(j, [&](int64_t c) POOLSWAP_LAMBDA { return row.column(c, encode, average); });
        for (int64_t j = inside; j < w.out; ++j) window(j, clipped);
        encode_.outside |= encode.outside | encode_edge.outside;
    }
};

template <int kStride, class F, class Tile>
class Three {
    template <int kOld, class Use>
    POOLSWAP_INLINE void walk_rows(const ElementRow<F> (&rows)[3], int64_t pixel_pitch, int64_t piece, Use&& use) {
        constexpr int kNew = 3 - kOld, kShared = kPass == Pass::kForward ? 3 - kStride : 3;
        const ThreeRows<kPass, kOld, (kShared < kNew ? kShared : kNew), F> three{{rows[0], rows[1], rows[2]}, pixel_pitch};
        Encoder<F> encode = encoder(piece);
        three.template walk<kStride>(p.w, encode, tile.average(piece), use);
        outside |= encode.outside;
    }

  protected:
    static constexpr Pass kPass = Tile::kPass;
    static constexpr int kCount = Lanes<F>::kCount;
    Tile& tile;
    const Problem& p;
    const KeptRows<F> kept;
    Bits<F> outside{};    // see safe()
    int64_t encoded = 0;  // rows of the slice

    explicit Three(Tile& tile_) : tile(tile_), p(tile_.p), kept(tile_.p, tile_.pieces.count, tile_.arena) {}

    POOLSWAP_INLINE Encoder<F> encoder(int64_t piece) const { return {tile.betas, tile.pieces.template offset<F>(piece)}; }

    // Sums the windows of row h: use(j, sum).
    template <class Use>
    POOLSWAP_INLINE void walk_windows(int64_t h, int64_t slice, int64_t piece, Use&& use) {
        const LaneView<F>& x = tile.x.view;
        const int64_t offset = tile.pieces.template offset<F>(piece);
        const int64_t first = p.h.first(h), begin = most(0, first), end = least(p.h.in, first + 3);
        ElementRow<F> rows[3];
        int old = 0;
        const F* const somewhere = x.row(slice, begin) + offset;
        for (int missing = int(3 - (end - begin)); old < missing; ++old) rows[old] = kept.none(somewhere);
        const int missing = old;
        for (int r = missing; r < 3; ++r) {
            const int64_t row = begin + r - missing;
            rows[r] = kept.at(x.row(slice, row) + offset, piece, row);
            if (row < encoded) ++old;
        }
        if (old == 3 - kStride)
            walk_rows<3 - kStride>(rows, x.pixel_pitch, piece, use);
        else if (old == 0)
            walk_rows<0>(rows, x.pixel_pitch, piece, use);
        else if (old == kStride)
            walk_rows<kStride>(rows, x.pixel_pitch, piece, use);
        else
            walk_rows<3>(rows, x.pixel_pitch, piece, use);
    }
    POOLSWAP_INLINE void windows_done(int64_t h) { encoded = least(p.h.in, p.h.first(h) + 3); }
};

template <int kStride, class F>
class ThreeForward : Three<kStride, F, ForwardTile<F>> {
    using Base = Three<kStride, F, ForwardTile<F>>;
    using Base::Base;

  public:
    static int64_t bytes(const Problem& p, Pieces pieces) { return KeptRows<F>::bytes(p, pieces.count); }

    static bool run(ForwardTile<F>& tile) {
        ThreeForward pool(tile);
        for (int64_t d = tile.d.begin; d < tile.d.end; ++d) {
            pool.encoded = 0;
            tile.x.start_slice();
            tile.y.start_slice();
            for (int64_t h = tile.h.begin; h < tile.h.end; ++h) {
                tile.x.fetch_until(d, least(tile.p.h.in, tile.p.h.first(h) + 3));
                for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
                    const int64_t offset = tile.pieces.template offset<F>(piece), pitch = tile.y.view.pixel_pitch;
                    F* const y = tile.y.view.row(d, h) + offset;
                    Bits<F> results{};
                    Ahead<F, false> x_ahead(tile.x.view, d, tile.p.h.first(h) + 3, piece * tile.p.w.in * kStride);
                    Ahead<F, true> y_ahead(tile.y.view, d, h + 1, piece * tile.p.w.out);
                    pool.walk_windows(h, d, piece, [=, &results](int64_t j, const auto& sum) mutable POOLSWAP_LAMBDA {
                        x_ahead.template step<kStride * kStride>();
                        y_ahead.template step<1>();
                        const Vec<F> mean = sum.mean();
                        results |= (Bits<F>)(mean - mean);
                        store(y + j * pitch, mean);
                    });
                    pool.outside |= results;
                }
                pool.windows_done(h);
                tile.y.commit_until(d, h + 1);
            }
        }
        return safe<F>(pool.outside);
    }
};

template <Pass kPass, int kStride, class F>
class ThreeBackward : Three<kStride, F, BackwardTile<kPass, F>> {
    using Base = Three<kStride, F, BackwardTile<kPass, F>>;
    using Base::encoder, Base::kCount, Base::kept, Base::p, Base::tile;
    using Part = Share<kPass, F>;
    static constexpr int kSlots = 4, kCover = kStride == 1 ? 3 : 2;  // rows of windows that hold one row of elements
    Part* const shares;  // of the windows of kSlots rows, for every piece; then of a row of none

    explicit ThreeBackward(BackwardTile<kPass, F>& tile_)
        : Base(tile_), shares(tile_.arena.template take<Part>(share_count(p, tile_.pieces.count))) {
        Part* const none = shares + tile.pieces.count * kSlots * p.w.out;
        for (int64_t j = 0; j < p.w.out; ++j) none[j] = Part::none();
    }
    static int64_t share_count(const Problem& p, int64_t pieces) { return (pieces * kSlots + 1) * p.w.out; }

    Part* share_row(int64_t h, int64_t piece) const {
        const bool exists = h >= tile.output_h.begin && h < tile.output_h.end;
        const int64_t slot = exists ? piece * kSlots + (h & (kSlots - 1)) : tile.pieces.count * kSlots;
        return shares + slot * p.w.out;
    }

    void share_out(int64_t d, int64_t h, int64_t piece) {
        const int64_t offset = tile.pieces.template offset<F>(piece), pitch = tile.g.view.pixel_pitch;
        const F* const g = tile.g.view.row(d, h) + offset;
        Part* const to = share_row(h, piece);
        Ahead<F, false> x_ahead(tile.x.view, d, p.h.first(h) + 3, piece * p.w.in * kStride);
        Ahead<F, false> g_ahead(tile.g.view, d, h + 1, piece * p.w.out);
        this->walk_windows(h, d, piece, [=](int64_t j, const auto& sum) mutable POOLSWAP_LAMBDA {
            x_ahead.template step<kStride * kStride>();
            g_ahead.template step<1>();
            to[j] = Part::of(sum, load(g + j * pitch));
        });
    }

    // dx of one row from the kRows rows of windows that hold it, the last one `last`.
    template <int kRows>
    void finish(int64_t d, int64_t row, int64_t last, int64_t piece) const {
        const int64_t offset = tile.pieces.template offset<F>(piece);
        const ElementRow<F> elements = kept.at(tile.x.view.row(d, row) + offset, piece, row);
        const int64_t x_pitch = tile.x.view.pixel_pitch, dx_pitch = tile.dx.view.pixel_pitch;
        F* const dx = tile.dx.view.row(d, row) + offset;
        const Part* from[kRows];
        for (int r = 0; r < kRows; ++r) from[r] = share_row(last - r, piece);
        const auto encode = encoder(piece);
        auto average = tile.average(piece), average_edge = average;
        const Axis w = p.w;
        const auto write_by = [&](int64_t c, const Part& share, auto& averaged) POOLSWAP_LAMBDA {
            const Vec<F> x = load(elements.x + c * x_pitch);
            const auto element = encode.with_power(x, load(elements.power + c * kCount));
            store(dx + c * dx_pitch, share.hand_to(element, x, averaged));
        };
        const auto write = [&](int64_t c, const Part& share) POOLSWAP_LAMBDA { write_by(c, share, average); };
        const auto down = [&](int64_t j) POOLSWAP_LAMBDA {
            Part each[kRows];
#pragma GCC unroll 3
            for (int r = 0; r < kRows; ++r) each[r] = from[r][j];
            return joined(each, average);
        };
        // A window finishes the columns that no window after it holds: its first ones.
        Ahead<F, true> dx_ahead(tile.dx.view, d, row + kStride, piece * w.in);
        Part older = Part::none(), old = older;  // of the windows two before and one before
        const auto window = [&](int64_t j, const Part& now, auto&& put) POOLSWAP_LAMBDA {
            const int64_t c = w.first(j);
            dx_ahead.template step<kStride>();
            if constexpr (kStride == 1) {
                put(c, joined<Part, 3>({older, old, now}, average));
                older = old;
            } else {
                put(c, joined<Part, 2>({old, now}, average));
                put(c + 1, now);
            }
            old = now;
        };
        const auto clipped = [&](int64_t c, const Part& share) {
            if (c >= 0 && c < w.in) write_by(c, share, average_edge);
        };
        const int64_t inside = most(1, least(w.out, floor_div(w.in - kStride + w.padding, kStride) + 1));
        window(0, down(0), clipped);
        for (int64_t j = 1; j < inside; ++j) window(j, down(j), write);
        int64_t j = inside;
        for (; j < w.out; ++j) window(j, down(j), clipped);
        for (; w.first(j) < w.in; ++j) window(j, Part::none(), clipped);
        tile.keep(average, piece);
        tile.keep(average_edge, piece);
    }

  public:
    static int64_t bytes(const Problem& p, Pieces pieces) {
        return KeptRows<F>::bytes(p, pieces.count) + Arena::bytes<Part>(share_count(p, pieces.count));
    }

    static bool run(BackwardTile<kPass, F>& tile) {
        ThreeBackward pool(tile);
        const Axis& axis = tile.p.h;
        for (int64_t d = tile.d.begin; d < tile.d.end; ++d) {
            pool.encoded = 0;
            tile.x.start_slice();
            tile.g.start_slice();
            tile.dx.start_slice();
            int64_t row = tile.h.begin;
            // Rows of windows, and those behind the last one, whose first rows still miss their gradient.
            for (int64_t h = tile.output_h.begin; row < tile.h.end; ++h) {
                const bool exists = h < tile.output_h.end;
                if (exists) {
                    tile.x.fetch_until(d, least(axis.in, axis.first(h) + 3));
                    tile.g.fetch_until(d, h + 1);
                }
                const int64_t first = axis.first(h), end = least(tile.h.end, first + kStride);
                for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
                    if (exists) pool.share_out(d, h, piece);
                    for (int64_t r = row; r < end; ++r) {
                        if (r >= (exists ? first + 3 : pool.encoded))
                            pool.clear(d, r, piece);
                        else if (kStride == 2 && r == first + 1)
                            pool.template finish<1>(d, r, h, piece);
                        else
                            pool.template finish<kCover>(d, r, h, piece);
                    }
                }
                if (exists) pool.windows_done(h);
                row = most(row, end);
                tile.dx.commit_until(d, row);
            }
        }
        return safe<F>(pool.outside);
    }

  private:
    void clear(int64_t d, int64_t row, int64_t piece) const {  // a row that no window holds
        F* const dx = tile.dx.view.row(d, row) + tile.pieces.template offset<F>(piece);
        for (int64_t c = 0; c < p.w.in; ++c) store(dx + c * tile.dx.view.pixel_pitch, Vec<F>{});
    }
};

}  // namespace poolswap::POOLSWAP_ISA
