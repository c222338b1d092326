// A tensor in its own element type, and a thread's copy of a tile of it in the type that is computed in.
#pragma once

#include "problem.h"
#include "storage.h"

namespace poolswap::POOLSWAP_ISA {

// One tensor of the problem: where its rows are, and a thread's copy of a tile's rows where the kernels need one.
template <class T, class F>
struct Tensor {
    T* data;
    int64_t depth, height, row;  // row: elements
    bool staged;
    int64_t pitch;

    // A copy's rows are whole vectors, unless the kernels see a plane as one run.
    Tensor(T* data_, int64_t depth_, int64_t height_, int64_t row_, bool narrow, bool run)
        : data(data_), depth(depth_), height(height_), row(row_), staged((narrow && !run) || !kSame<T, F>),
          pitch(run ? row_ : ceil_div(row_, Lanes<F>::kCount) * Lanes<F>::kCount) {}

    int64_t bytes(int64_t planes, int64_t slices, int64_t rows) const {
        return staged ? Arena::bytes<F>(planes * slices * rows * pitch) : 0;
    }
    View<F> view(const Tile& tile, Arena& arena) const {
        if constexpr (kSame<T, F>)
            if (!staged) return {data, depth * height * row, height * row, row};
        const int64_t slice = tile.h.size() * pitch;
        F* copy = arena.take<F>(tile.planes.size() * tile.d.size() * slice);
        return {copy, tile.d.size() * slice, slice, pitch, tile.planes.begin, tile.d.begin, tile.h.begin};
    }
    template <class Fn>
    POOLSWAP_INLINE void each_row(const Tile& tile, Fn&& fn) const {
        for (int64_t plane = tile.planes.begin; plane < tile.planes.end; ++plane)
            for (int64_t slice = tile.d.begin; slice < tile.d.end; ++slice)
                for (int64_t i = tile.h.begin; i < tile.h.end; ++i)
                    fn(data + ((plane * depth + slice) * height + i) * row, plane, slice, i);
    }
    // Repeats a row's last element behind it, so that the room there holds nothing the row does not.
    void fetch(const Tile& tile, const View<F>& view) const {
        if (staged)
            each_row(tile, [&](const T* from, int64_t plane, int64_t slice, int64_t i) {
                F* to = view.at(plane, slice, i);
                convert_row(to, from, row);
                set_all(to + row, to[row - 1], pitch - row);
            });
    }
    void commit(const Tile& tile, const View<F>& view) const {
        if (staged)
            each_row(tile, [&](T* to, int64_t plane, int64_t slice, int64_t i) {
                convert_row(to, view.at(plane, slice, i), row);
            });
    }
};

template <class F>
View<const F> constant(const View<F>& v) {
    return {v.base, v.plane_pitch, v.slice_pitch, v.row_pitch, v.plane0, v.slice0, v.row0};
}

}  // namespace poolswap::POOLSWAP_ISA
