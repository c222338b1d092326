// Brings every layout and element type into the one form that the kernels read and write: vectors whose lanes are pooled
// side by side, because they belong to different planes.
//
// A lane group is what is worked on together. Of contiguous tensors: as many planes as a vector has lanes, transposed,
// so that the vector of a pixel holds that pixel of every plane. Of channels_last tensors: one image; its channels are
// `pieces` vectors per pixel. channels_last tensors of float or double are used where they are; all others are copied,
// row by row, to and from a thread's own memory.
#pragma once

#include "problem.h"
#include "storage.h"

namespace poolswap::POOLSWAP_ISA {

// Where a lane group lies in memory, in bytes, and in which order it is read or written: as many vectors as a vector has
// lanes, `step` apart, then as many again from `block` behind the first one on.
struct Source {
    const char* base;
    int64_t slice, row;  // from one to the next
    int64_t step, block;
    int64_t copied;  // rows that are copied before a kernel comes to them
};

// One lane group of a tensor, or the part of it that a tile needs.
template <class F>
struct LaneView {
    F* base;
    int64_t slice_pitch, row_pitch, pixel_pitch;  // elements
    int64_t first_slice, first_row;               // that lie at base
    Source source;

    // Pixel 0 of a row.
    POOLSWAP_INLINE F* row(int64_t slice, int64_t row) const {
        return base + (slice - first_slice) * slice_pitch + (row - first_row) * row_pitch;
    }
};

// Fetches rows that come later, kLines lines of the cache a step, while a kernel works on others. The processor foresees
// neither the order of a kernel, one vector of each pixel after the other, nor that of copies from many planes, which
// wait for a dozen lines at once if they are fetched no sooner.
template <class F, bool kWritten>
class Ahead {
    static constexpr int kCount = Lanes<F>::kCount;
    const char* next;
    int64_t step_, rest, left = kCount;

  public:
    // From `vectors` behind the beginning of a row on.
    POOLSWAP_INLINE Ahead(const LaneView<F>& view, int64_t slice, int64_t row, int64_t vectors)
        : next(view.source.base + slice * view.source.slice + (row + view.source.copied) * view.source.row +
               vectors * view.source.step),
          step_(view.source.step), rest(view.source.block - kCount * view.source.step) {}

    // From now on vectors from `at` on, `pitch` elements apart.
    POOLSWAP_INLINE void follow(const F* at, int64_t pitch) {
        next = reinterpret_cast<const char*>(at);
        step_ = pitch * int64_t(sizeof(F));
        rest = 0;
    }

    template <int kLines>
    POOLSWAP_INLINE void step() {
#pragma GCC unroll 4
        for (int k = 0; k < kLines; ++k, next += step_) __builtin_prefetch(next, kWritten, 2);
        if ((left -= kLines) <= 0) {
            next += rest;
            left = kCount;
        }
    }
};

// The vectors of a pixel: where channels are no multiple of the lanes, the last vector overlaps its neighbour.
struct Pieces {
    int64_t count, last;  // `last`: offset of the last one

    template <class F>
    POOLSWAP_INLINE int64_t offset(int64_t piece) const {
        return least(piece * Lanes<F>::kCount, last);
    }
};

template <class T, class F>
POOLSWAP_INLINE Vec<F> load_as(const T* from) {
    if constexpr (kSame<T, F>) return load(from);
    F wide[Lanes<F>::kCount];
    convert_row(wide, from, Lanes<F>::kCount);
    return load(wide);
}
template <class T, class F>
POOLSWAP_INLINE void store_as(T* to, Vec<F> value) {
    if constexpr (kSame<T, F>) return store(to, value);
    F wide[Lanes<F>::kCount];
    store(wide, value);
    convert_row(to, wide, Lanes<F>::kCount);
}

// A tensor of `planes` x depth x height x width x channels elements of type T, computed in F.
template <class T, bool kChannelsLast>
class Staged {
    using F = Compute<T>;
    static constexpr int64_t kCount = Lanes<F>::kCount;
    T* data;
    int64_t planes, channels, depth, height;
    bool in_place;
    int64_t ahead;  // elements that are fetched ahead of what is read or written: of small planes, the next lane group

  public:
    const int64_t width;

    Staged(const Problem& p, const T* data_, bool output)
        : data(const_cast<T*>(data_)), planes(p.planes), channels(p.channels), depth(output ? p.d.out : p.d.in),
          height(output ? p.h.out : p.h.in), in_place(is_in_place(p)),
          width(output ? p.w.out : p.w.in) {
        const int64_t plane = depth * height * width, page = 4096 / int64_t(sizeof(T));
        ahead = plane <= page ? kCount * plane : page / 4;
    }

    static bool is_in_place(const Problem& p) { return kChannelsLast && kSame<T, F> && p.channels >= kCount; }
    // Of a tile: copies should stay in the cache of a core, the nearest one where windows repeat nothing at the seams.
    static int64_t most_elements(const Problem& p) { return is_in_place(p) ? 262144 : p.disjoint() ? 8192 : 32768; }
    static int64_t groups(const Problem& p) { return kChannelsLast ? p.planes : ceil_div(p.planes, kCount); }
    static Pieces pieces(const Problem& p) {
        if (!kChannelsLast) return {1, 0};
        const int64_t count = ceil_div(p.channels, kCount);
        return {count, is_in_place(p) ? p.channels - kCount : (count - 1) * kCount};
    }

    // Lanes belong to planes, or to the channels of one image: how many there are, and which one the first lane of a piece.
    static int64_t owners(const Problem& p) { return kChannelsLast ? p.channels : p.planes; }
    static int64_t first_of(const Pieces& pieces, int64_t group, int64_t piece) {
        return kChannelsLast ? pieces.template offset<F>(piece) : group * kCount;
    }
    // A number amid the elements of every lane: the median of the first, the middle and the last one, or 0 if it is too
    // large or not a number.
    void centres(const Problem& p, const Pieces& pieces, int64_t group, F* to) const {
        const int64_t size = depth * height * width;
        for (int64_t piece = 0; piece < pieces.count; ++piece)
            for (int64_t lane = 0; lane < kCount; ++lane, ++to) {
                const int64_t mine = least(first_of(pieces, group, piece) + lane, owners(p) - 1);
                *to = F(0);
                const T* const plane = kChannelsLast ? data + group * size * channels + mine : data + mine * size;
                const auto at = [&](int64_t i) { return convert<F>(plane[i * channels]); };
                const F a = at(0), b = at(size / 2), c = at(size - 1);
                const F median = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
                if (median > F(-0x1p60) && median < F(0x1p60)) *to = median;
            }
    }

    int64_t bytes(int64_t slices, int64_t rows) const {
        return in_place ? 0 : Arena::bytes<F>(slices * rows * width * pixel_pitch());
    }
    LaneView<F> view(int64_t group, Range slices, Range rows, Arena& arena) const {
        const int64_t row_pitch = width * pixel_pitch(), vector = kCount * int64_t(sizeof(T));
        // Of small planes a group is one run of memory, walked from end to end; of large ones each has its own place.
        const bool run = kChannelsLast || depth * height * width * int64_t(sizeof(T)) <= 4096;
        const int64_t row = width * channels * int64_t(sizeof(T)) * (kChannelsLast || !run ? 1 : kCount);
        T* const begin = pixel(kChannelsLast ? group : group * kCount, 0, 0);
        const Source source{reinterpret_cast<const char*>(begin), height * row, row,
                            run ? vector : depth * height * row,  run ? kCount * vector : vector, in_place ? 0 : batch()};
        if constexpr (kSame<T, F>)
            if (in_place) return {begin, height * row_pitch, row_pitch, channels, 0, 0, source};
        F* const copy = arena.take<F>(slices.size() * rows.size() * row_pitch);
        return {copy, rows.size() * row_pitch, row_pitch, pixel_pitch(), slices.begin, rows.begin, source};
    }
    // Rows that are copied at a time.
    int64_t batch() const { return ceil_div(128, width); }

    void fetch(int64_t group, int64_t slice, Range rows, const LaneView<F>& view) const {
        if (in_place || rows.size() <= 0) return;
        F* const to = view.row(slice, rows.begin);
        const int64_t pixels = rows.size() * width;
        if constexpr (kChannelsLast) {
            const T* from = pixel(group, slice, rows.begin);
            for (int64_t i = 0; i < pixels; ++i, from += channels) {
                F* const vectors = to + i * view.pixel_pitch;
                convert_row(vectors, from, channels);
                set_all(vectors + channels, vectors[channels - 1], view.pixel_pitch - channels);
            }
        } else {
            const T* from[kCount];
            for (int64_t lane = 0; lane < kCount; ++lane)
                from[lane] = pixel(least(group * kCount + lane, planes - 1), slice, rows.begin);
            const auto move_block = [&](int64_t i) {
                Vec<F> block[kCount];
#pragma GCC unroll 16
                for (int64_t lane = 0; lane < kCount; ++lane) {
                    __builtin_prefetch(from[lane] + i + ahead, 0, 2);
                    block[lane] = load_as<T, F>(from[lane] + i);
                }
                transpose<F>(block);
#pragma GCC unroll 16
                for (int64_t k = 0; k < kCount; ++k) store(to + (i + k) * kCount, block[k]);
            };
            in_blocks(pixels, move_block, [&](int64_t i) {
                for (int64_t lane = 0; lane < kCount; ++lane) to[i * kCount + lane] = convert<F>(from[lane][i]);
            });
        }
    }

    void commit(int64_t group, int64_t slice, Range rows, const LaneView<F>& view) const {
        if (in_place || rows.size() <= 0) return;
        const F* const from = view.row(slice, rows.begin);
        const int64_t pixels = rows.size() * width;
        if constexpr (kChannelsLast) {
            T* to = pixel(group, slice, rows.begin);
            for (int64_t i = 0; i < pixels; ++i, to += channels) convert_row(to, from + i * view.pixel_pitch, channels);
        } else {
            const int64_t lanes = least(kCount, planes - group * kCount);
            T* to[kCount];
            for (int64_t lane = 0; lane < kCount; ++lane)
                to[lane] = pixel(group * kCount + least(lane, lanes - 1), slice, rows.begin);
            const auto move_block = [&](int64_t i) {
                Vec<F> block[kCount];
#pragma GCC unroll 16
                for (int64_t k = 0; k < kCount; ++k) block[k] = load(from + (i + k) * kCount);
                transpose<F>(block);
                if (lanes == kCount) {
#pragma GCC unroll 16
                    for (int64_t lane = 0; lane < kCount; ++lane) {
                        __builtin_prefetch(to[lane] + i + ahead, 1, 2);
                        store_as<T, F>(to[lane] + i, block[lane]);
                    }
                } else {
                    for (int64_t lane = 0; lane < lanes; ++lane) store_as<T, F>(to[lane] + i, block[lane]);
                }
            };
            in_blocks(pixels, move_block, [&](int64_t i) {
                for (int64_t lane = 0; lane < lanes; ++lane) to[lane][i] = convert<T>(from[i * kCount + lane]);
            });
        }
    }

  private:
    int64_t pixel_pitch() const {
        if (!kChannelsLast) return kCount;
        return in_place ? channels : ceil_div(channels, kCount) * kCount;
    }
    T* pixel(int64_t plane, int64_t slice, int64_t row) const {
        return data + ((plane * depth + slice) * height + row) * width * channels;
    }
    // Calls block(i) for kCount pixels from i on, and one(i) for single ones, which cover 0..pixels together. Blocks may
    // overlap.
    template <class Block, class One>
    static POOLSWAP_INLINE void in_blocks(int64_t pixels, Block&& block, One&& one) {
        constexpr int64_t kFew = 3;  // one by one they are faster than a block
        int64_t i = 0;
        for (; i + kCount <= pixels; i += kCount) block(i);
        if (pixels - i > kFew && pixels >= kCount)
            block(pixels - kCount);
        else
            for (; i < pixels; ++i) one(i);
    }
};

// The rows of a tile as a kernel sees them, which need not know the tensor's element type. They are moved several at a
// time, because short rows would not fill the blocks of a transposition.
template <class F>
class Rows {
    using Move = void (*)(const void* tensor, int64_t group, int64_t slice, Range rows, const LaneView<F>& view);
    const void* tensor;
    int64_t group;
    Move move;
    Range all;
    int64_t batch;
    int64_t next;  // row that was not moved yet

    Rows(const void* tensor_, int64_t group_, Move move_, Range all_, int64_t batch_, const LaneView<F>& view_)
        : tensor(tensor_), group(group_), move(move_), all(all_), batch(batch_), next(all_.begin),
          view(view_) {}

  public:
    const LaneView<F> view;

    template <class T, bool kChannelsLast>
    static Rows input(const Staged<T, kChannelsLast>& tensor, int64_t group, Range slices, Range rows, Arena& arena) {
        const auto move = [](const void* from, int64_t g, int64_t slice, Range r, const LaneView<F>& to) {
            static_cast<const Staged<T, kChannelsLast>*>(from)->fetch(g, slice, r, to);
        };
        return {&tensor, group, move, rows, tensor.batch(), tensor.view(group, slices, rows, arena)};
    }
    template <class T, bool kChannelsLast>
    static Rows output(const Staged<T, kChannelsLast>& tensor, int64_t group, Range slices, Range rows, Arena& arena) {
        const auto move = [](const void* to, int64_t g, int64_t slice, Range r, const LaneView<F>& from) {
            static_cast<const Staged<T, kChannelsLast>*>(to)->commit(g, slice, r, from);
        };
        return {&tensor, group, move, rows, tensor.batch(), tensor.view(group, slices, rows, arena)};
    }

    void start_slice() { next = all.begin; }

    // Of an input: rows before `end` are needed now.
    void fetch_until(int64_t slice, int64_t end) {
        if (end <= next) return;
        end = least(all.end, most(end, next + batch));
        move(tensor, group, slice, {next, end}, view);
        next = end;
    }
    // Of an output: rows before `end` are complete.
    void commit_until(int64_t slice, int64_t end) {
        if (end < all.end && end < next + batch) return;
        move(tensor, group, slice, {next, end}, view);
        next = end;
    }
    void fetch_all(Range slices) {
        for (int64_t slice = slices.begin; slice < slices.end; ++slice) {
            start_slice();
            fetch_until(slice, all.end);
        }
    }
    void commit_all(Range slices) {
        for (int64_t slice = slices.begin; slice < slices.end; ++slice) {
            start_slice();
            commit_until(slice, all.end);
        }
    }
};

}  // namespace poolswap::POOLSWAP_ISA
