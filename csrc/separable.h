// Windows of any geometry, one axis after the other: elements are summed along the rows, then down the columns, then
// through the slices; for the gradient, the shares of the windows over an element are added up in the opposite order.
#pragma once

#include "tile.h"

namespace poolswap::POOLSWAP_ISA {

// One axis of a tile: elements `inputs` and windows `outputs`.
struct AxisTile {
    Axis axis;
    Range inputs, outputs;

    bool trivial() const {
        return axis.kernel == 1 && axis.stride == 1 && axis.padding == 0 && inputs.begin == outputs.begin &&
               inputs.end == outputs.end;
    }
};

// How the sums along one axis are formed, of elements for windows or, if `back`, of windows for elements. Operands and
// results are counted from the beginning of the tile's ranges.
template <class Sum>
class Line {
    using Average = typename Sum::Average;
    const AxisTile& along;
    const Average& average;
    const bool back, scans;
    int64_t *begins, *items;  // without a scan: the operands of every result
    Sum* ends;

  public:
    const int64_t operands, results;

    Line(const AxisTile& along_, const Average& average_, bool back_, Arena& arena)
        : along(along_), average(average_), back(back_), scans(is_scan(along_)), begins(nullptr), items(nullptr), ends(nullptr),
          operands(back_ ? along_.outputs.size() : along_.inputs.size()),
          results(back_ ? along_.inputs.size() : along_.outputs.size()) {
        if (scans)
            ends = arena.take<Sum>(least(along.axis.kernel, results));
        else
            list_operands(arena);
    }
    static int64_t bytes(const AxisTile& a) {
        const int64_t windows = a.outputs.size(), elements = a.inputs.size();
        if (is_scan(a)) return Arena::bytes<Sum>(least(a.axis.kernel, most(windows, elements)));
        return Arena::bytes<int64_t>(most(windows, elements) + 1) +
               Arena::bytes<int64_t>(windows * least(a.axis.kernel, elements));
    }

    // Calls put(r, sum) for every result; get(k) is operand k.
    template <class Get, class Put>
    POOLSWAP_INLINE void operator()(Get&& get, Put&& put) const {
        if (scans)
            scan(get, put);
        else
            add(get, put);
    }

  private:
    // From here on a scan is faster than adding up the operands.
    static bool is_scan(const AxisTile& a) { return a.axis.stride == 1 && a.axis.dilation == 1 && a.axis.kernel > 4; }

    void list_operands(Arena& arena) {
        const Axis& axis = along.axis;
        begins = arena.take<int64_t>(results + 1);
        items = arena.take<int64_t>(along.outputs.size() * least(axis.kernel, along.inputs.size()));
        int64_t count = 0;
        for (int64_t r = 0; r < results; ++r) {
            begins[r] = count;
            if (back) {
                const int64_t element = along.inputs.begin + r;
                const Range windows = axis.outputs_of({element, element + 1});
                for (int64_t o = most(windows.begin, along.outputs.begin); o < least(windows.end, along.outputs.end); ++o)
                    if ((element - axis.first(o)) % axis.dilation == 0) items[count++] = o - along.outputs.begin;
            } else {
                const int64_t window = along.outputs.begin + r;
                const Range taps = axis.taps(window);
                for (int64_t k = taps.begin; k < taps.end; ++k)
                    items[count++] = axis.first(window) + k * axis.dilation - along.inputs.begin;
            }
        }
        begins[results] = count;
    }

    template <class Get, class Put>
    POOLSWAP_INLINE void add(Get&& get, Put&& put) const {
        for (int64_t r = 0; r < results; ++r) {
            const int64_t *const from = items + begins[r], count = begins[r + 1] - begins[r];
            Sum all = Sum::none();
            if (count > 0) all.exponent = get(from[0]).exponent;
            for (int64_t k = 1; k < count; ++k) all.exponent = Sum::joint(all.exponent, get(from[k]).exponent);
            for (int64_t k = 0; k < count; ++k) all.add(get(from[k]), average);
            put(r, all);
        }
    }

    // Windows that step by 1 cost three additions a result whatever their length (van Herk 1992, Gil and Werman 1993):
    // with results in blocks as long as a window, the operands of a result are the end of one block of operands and
    // the beginning of the next.
    template <class Get, class Put>
    POOLSWAP_INLINE void scan(Get&& get, Put&& put) const {
        const int64_t length = along.axis.kernel;
        // Result r adds up the operands first + r .. first + r + length - 1, as far as they exist.
        const int64_t first = back ? along.inputs.begin + along.axis.padding - length + 1 - along.outputs.begin
                                   : along.axis.first(along.outputs.begin) - along.inputs.begin;
        for (int64_t begin = 0; begin < results; begin += length) {
            const int64_t at = first + begin, block = least(length, results - begin);
            Sum end = Sum::none();
            for (int64_t k = least(length, most(block, operands - at)) - 1; k >= 0; --k) {
                if (at + k >= 0 && at + k < operands) end = joined<Sum, 2>({get(at + k), end}, average);
                if (k < block) ends[k] = end;
            }
            put(begin, end);
            Sum next = Sum::none();
            for (int64_t k = 1; k < block; ++k) {
                const int64_t from = at + length + k - 1;
                if (from >= 0 && from < operands) next = joined<Sum, 2>({next, get(from)}, average);
                put(begin + k, joined<Sum, 2>({ends[k], next}, average));
            }
        }
    }
};

template <class F>
class Separable {
    // Sums down the columns and through the slices of a block of rows `width` wide: put(slice, row, column, sum). Where
    // there are slices to sum over, what the columns give goes into `other` first, and put may overwrite the block.
    template <class Sum, class Put>
    static POOLSWAP_INLINE void down(const AxisTile& d, const AxisTile& h, const typename Sum::Average& average, bool back,
                                     int64_t width, Sum* block, Sum* other, Arena arena, Put&& put) {
        const Line<Sum> rows(h, average, back, arena), slices(d, average, back, arena);
        const bool flat = d.trivial();
        const int64_t pitch = rows.results * width;
        for (int64_t slice = 0; slice < slices.operands; ++slice)
            for (int64_t c = 0; c < width; ++c) {
                const Sum* const from = block + slice * rows.operands * width + c;
                Sum* const to = other + slice * pitch + c;
                rows([&](int64_t k) POOLSWAP_LAMBDA -> const Sum& { return from[k * width]; },
                     [&](int64_t r, const Sum& sum) POOLSWAP_LAMBDA {
                         if (flat)
                             put(slice, r, c, sum);
                         else
                             to[r * width] = sum;
                     });
            }
        if (flat) return;
        for (int64_t row = 0; row < rows.results; ++row)
            for (int64_t c = 0; c < width; ++c) {
                const Sum* const from = other + row * width + c;
                slices([&](int64_t k) POOLSWAP_LAMBDA -> const Sum& { return from[k * pitch]; },
                       [&](int64_t r, const Sum& sum) POOLSWAP_LAMBDA { put(r, row, c, sum); });
            }
    }

    // Encodes the elements of a tile, and sums them along the rows: block[row][j]. keep(i, element) of every element.
    template <Pass kPass, class Keep>
    static POOLSWAP_INLINE void along_rows(const AxisTile& w, const LaneView<F>& x, int64_t offset, Range d, Range h,
                                           Encoder<F>& encode, const Averaged<kPass, F>& average,
                                           WindowSum<kPass, F>* row_sums, WindowSum<kPass, F>* block, Arena arena,
                                           Keep&& keep) {
        using Sum = WindowSum<kPass, F>;
        const Line<Sum> line(w, average, false, arena);
        int64_t i = 0;
        for (int64_t slice = d.begin; slice < d.end; ++slice)
            for (int64_t row = h.begin; row < h.end; ++row, block += line.results) {
                const F* const from = x.row(slice, row) + offset;
                for (int64_t c = 0; c < line.operands; ++c, ++i) {
                    __builtin_prefetch(from + c * x.pixel_pitch + 64 / sizeof(F));  // channels that follow
                    const Vec<F> value = load(from + c * x.pixel_pitch);
                    const auto element = encode(value);
                    keep(i, element);
                    row_sums[c] = {element.exponent, element.power, element.power * average.value(element, value, Vec<F>{})};
                }
                line([&](int64_t k) POOLSWAP_LAMBDA -> const Sum& { return row_sums[k]; },
                     [&](int64_t r, const Sum& sum) POOLSWAP_LAMBDA { block[r] = sum; });
            }
    }

    // Rows of the largest block between the elements and the windows.
    static int64_t most_rows(const AxisTile& d, const AxisTile& h) {
        return most(d.inputs.size(), d.outputs.size()) * most(h.inputs.size(), h.outputs.size());
    }
    static AxisTile whole_row(const Problem& p) { return {p.w, {0, p.w.in}, {0, p.w.out}}; }

    template <class Sum>
    static int64_t block_bytes(const Problem& p, const AxisTile& d, const AxisTile& h) {
        return 2 * Arena::bytes<Sum>(most_rows(d, h) * p.w.out) + Arena::bytes<Sum>(p.w.in) +
               2 * (Line<Sum>::bytes(d) + Line<Sum>::bytes(h) + Line<Sum>::bytes(whole_row(p)));
    }

  public:
    static int64_t forward_bytes(const Problem& p, Range d, Range h, Range input_d, Range input_h) {
        return block_bytes<WindowSum<Pass::kForward, F>>(p, {p.d, input_d, d}, {p.h, input_h, h});
    }
    template <Pass kPass>
    static int64_t backward_bytes(const Problem& p, Range d, Range h, Range input_d, Range input_h) {
        return block_bytes<WindowSum<kPass, F>>(p, {p.d, input_d, d}, {p.h, input_h, h}) +
               Arena::bytes<Element<F>>(input_d.size() * input_h.size() * p.w.in);
    }

    static bool forward(ForwardTile<F>& tile) {
        const Problem& p = tile.p;
        using Sum = WindowSum<Pass::kForward, F>;
        const AxisTile d{p.d, tile.input_d, tile.d}, h{p.h, tile.input_h, tile.h}, w = whole_row(p);
        Sum* const block = tile.arena.template take<Sum>(most_rows(d, h) * p.w.out);
        Sum* const other = tile.arena.template take<Sum>(most_rows(d, h) * p.w.out);
        Sum* const row_sums = tile.arena.template take<Sum>(p.w.in);
        Bits<F> outside{};
        const LaneView<F> y = tile.y.view;
        tile.x.fetch_all(tile.input_d);
        for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
            const int64_t offset = tile.pieces.template offset<F>(piece);
            Encoder<F> encode(tile.betas, offset);
            const auto average = tile.average(piece);
            along_rows(w, tile.x.view, offset, tile.input_d, tile.input_h, encode, average, row_sums, block, tile.arena,
                       [](int64_t, const Element<F>&) POOLSWAP_LAMBDA {});
            down(d, h, average, false, p.w.out, block, other, tile.arena,
                 [&](int64_t slice, int64_t row, int64_t c, const Sum& sum) POOLSWAP_LAMBDA {
                     const Vec<F> mean = sum.mean();
                     encode.watch_result(mean);
                     F* const to = y.row(tile.d.begin + slice, tile.h.begin + row) + c * y.pixel_pitch + offset;
                     __builtin_prefetch(to + 64 / sizeof(F), 1);
                     store(to, mean);
                 });
            outside |= encode.outside;
        }
        tile.y.commit_all(tile.d);
        return safe<F>(outside);
    }

    template <Pass kPass>
    static bool backward(BackwardTile<kPass, F>& tile) {
        const Problem& p = tile.p;
        using Sum = WindowSum<kPass, F>;
        using Part = Share<kPass, F>;
        const AxisTile d{p.d, tile.input_d, tile.output_d}, h{p.h, tile.input_h, tile.output_h}, w = whole_row(p);
        const AxisTile own_d{p.d, tile.d, tile.output_d}, own_h{p.h, tile.h, tile.output_h};
        static_assert(sizeof(Part) == sizeof(Sum), "shares of the gradient take the place of sums");
        Sum* const block = tile.arena.template take<Sum>(most_rows(d, h) * p.w.out);
        Sum* const other = tile.arena.template take<Sum>(most_rows(d, h) * p.w.out);
        Sum* const row_sums = tile.arena.template take<Sum>(p.w.in);
        Element<F>* const elements = tile.arena.template take<Element<F>>(tile.input_d.size() * tile.input_h.size() * p.w.in);
        Bits<F> outside{};
        const LaneView<F> g = tile.g.view;
        // Without slices to sum over, the sums of the windows come out of `block` while shares are put into `other`.
        Part* const shares = reinterpret_cast<Part*>(d.trivial() ? other : block);
        Part* const spare = reinterpret_cast<Part*>(d.trivial() ? block : other);
        tile.x.fetch_all(tile.input_d);
        tile.g.fetch_all(tile.output_d);
        for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
            const int64_t offset = tile.pieces.template offset<F>(piece);
            Encoder<F> encode(tile.betas, offset);
            const auto average = tile.average(piece);
            along_rows(w, tile.x.view, offset, tile.input_d, tile.input_h, encode, average, row_sums, block, tile.arena,
                       [&](int64_t i, const Element<F>& element) POOLSWAP_LAMBDA { elements[i] = element; });
            outside |= encode.outside;
            down(d, h, average, false, p.w.out, block, other, tile.arena,
                 [&](int64_t slice, int64_t row, int64_t c, const Sum& sum) POOLSWAP_LAMBDA {
                     const F* const from =
                         g.row(tile.output_d.begin + slice, tile.output_h.begin + row) + c * g.pixel_pitch + offset;
                     __builtin_prefetch(from + 64 / sizeof(F));
                     shares[(slice * tile.output_h.size() + row) * p.w.out + c] = Part::of(sum, load(from));
                 });
            back(tile, own_d, own_h, w, shares, spare, elements, piece);
        }
        tile.dx.commit_all(tile.d);
        return safe<F>(outside);
    }

  private:
    // From the shares of the windows to dx. `spare` is a second block.
    template <Pass kPass>
    static void back(const BackwardTile<kPass, F>& tile, const AxisTile& own_d, const AxisTile& own_h, const AxisTile& w,
                     Share<kPass, F>* shares, Share<kPass, F>* spare, const Element<F>* elements, int64_t piece) {
        using Part = Share<kPass, F>;
        const Problem& p = tile.p;
        const LaneView<F> x = tile.x.view, dx = tile.dx.view;
        const int64_t offset = tile.pieces.template offset<F>(piece);
        auto average = tile.average(piece);
        const int64_t width = p.w.out, heights = tile.h.size();
        Part* const complete = own_d.trivial() ? spare : shares;
        down(own_d, own_h, average, true, width, shares, spare, tile.arena,
             [&](int64_t slice, int64_t row, int64_t c, const Part& share) POOLSWAP_LAMBDA {
                 complete[(slice * heights + row) * width + c] = share;
             });
        Arena arena = tile.arena;
        const Line<Part> line(w, average, true, arena);
        const int64_t slice_pitch = tile.input_h.size() * p.w.in;
        for (int64_t slice = tile.d.begin; slice < tile.d.end; ++slice)
            for (int64_t row = tile.h.begin; row < tile.h.end; ++row) {
                const Part* const from = complete + ((slice - tile.d.begin) * heights + row - tile.h.begin) * width;
                const Element<F>* const element = elements + (slice - tile.input_d.begin) * slice_pitch +
                                                  (row - tile.input_h.begin) * p.w.in;
                const F* const x_row = x.row(slice, row) + offset;
                F* const to = dx.row(slice, row) + offset;
                line([&](int64_t k) POOLSWAP_LAMBDA -> const Part& { return from[k]; },
                     [&](int64_t c, const Part& share) POOLSWAP_LAMBDA {
                         __builtin_prefetch(to + c * dx.pixel_pitch + 64 / sizeof(F), 1);
                         store(to + c * dx.pixel_pitch, share.hand_to(element[c], load(x_row + c * x.pixel_pitch), average));
                         if (c % 64 == 63) tile.keep(average, piece);
                     });
                tile.keep(average, piece);
            }
    }
};

}  // namespace poolswap::POOLSWAP_ISA
