// Cuts a problem into tiles, gives them to threads, and takes each through the tiers until one is safe.
//
// The tiles follow from the shapes alone and every element of the result is written by one tile, so the result does
// not depend on the number of threads.
#pragma once

#include <omp.h>

#include <cstdlib>
#include <type_traits>

#include "channels_last_backward.h"
#include "channels_last_pairs.h"
#include "planar_backward.h"
#include "planar_pairs.h"
#include "planar_same.h"
#include "problem.h"
#include "storage.h"
#include "whole.h"
#include "window_max.h"

namespace poolswap::POOLSWAP_ISA {

struct Tiling {
    bool by_depth;                      // which dimension is cut: d or h
    int64_t planes, chunk;              // planes of a tile, and its length in that dimension
    int64_t plane_tiles, chunk_tiles;
    int64_t depth, height;              // whole size of the region that is cut

    // Cuts planes of `depth` x `height` rows; `reach` is the least chunk whose halo is worth its cost.
    Tiling(const Problem& p, int64_t depth_, int64_t height_, int64_t reach)
        : by_depth(depth_ > 1), depth(depth_), height(height_) {
        const int64_t plane = p.d.in * p.h.in * p.w.in * p.channels, length = by_depth ? depth : height;
        const int64_t wanted = most(4096, least(32768, plane * p.planes / 64));
        planes = least(p.planes, most(1, wanted / plane));
        const int64_t roomy = least(3 * reach, length * p.planes / 32);  // a smaller share of it is halo
        chunk = most(most(reach, roomy), ceil_div(length, ceil_div(plane, wanted)));
        chunk = ceil_div(length, most(1, length / chunk));
        plane_tiles = ceil_div(p.planes, planes);
        chunk_tiles = ceil_div(length, chunk);
    }
    int64_t count() const { return plane_tiles * chunk_tiles; }
    int64_t rows() const { return by_depth ? chunk * height : chunk * depth; }

    Tile tile(int64_t index, int64_t plane_count) const {
        const int64_t first = index / chunk_tiles * planes, begin = index % chunk_tiles * chunk;
        const Range cut{begin, least(begin + chunk, by_depth ? depth : height)};
        return {{first, least(first + planes, plane_count)}, by_depth ? cut : Range{0, depth},
                by_depth ? Range{0, height} : cut};
    }
};

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

// Calls work(i, arena) for every i below `count` on `threads` threads. Returns false if there is no memory.
template <class Work>
bool run_tiles(int64_t count, int64_t threads, int64_t bytes, Work&& work) {
    threads = least(threads, count);
    bytes = ceil_div(bytes, 4096) * 4096;
    char* memory = static_cast<char*>(aligned_alloc(64, size_t(bytes * most(threads, 1))));
    if (!memory) return false;
    if (threads <= 1) {
        for (int64_t i = 0; i < count; ++i) work(i, Arena{memory});
    } else {
#pragma omp parallel num_threads(int(threads))
        {
            const Arena arena{memory + bytes * omp_get_thread_num()};
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < count; ++i) work(i, arena);
        }
    }
    free(memory);
    return true;
}

template <class T, bool kLast>
struct Driver {
    using F = Compute<T>;
    const bool whole;
    const Problem p;
    const bool same, pairs;  // windows that have kernels of their own

    Driver(const Problem& problem)
        : whole(is_whole(problem)), p(whole ? as_one_row(problem) : problem),
          same(!kLast && planar_same_fits(p, Lanes<F>::kCount)),
          pairs(kLast ? channels_last_pairs_fit(p) : planar_pairs_fit(p, Lanes<F>::kCount)) {}

    Tensor<T, F> input(const T* data) const {
        return {const_cast<T*>(data), p.d.in, p.h.in, p.w.in * p.channels, p.w.in * p.channels < Lanes<F>::kCount,
                same};
    }
    Tensor<T, F> output(const T* data) const {
        const int64_t least_run = kLast ? p.channels : whole ? Lanes<F>::kCount : p.w.out;
        return {const_cast<T*>(data), p.d.out, p.h.out, p.w.out * p.channels, least_run < Lanes<F>::kCount, same};
    }
    // Whether a shared shift can serve these windows at all.
    bool regular() const {
        if (whole) return !kLast || p.channels >= Lanes<F>::kCount;
        return p.d.kernel * p.h.kernel <= kMaxRows && p.w.kernel <= 4096 && p.d.every_window_filled() &&
               p.h.every_window_filled() && p.w.every_window_filled() && !(kLast && p.channels < Lanes<F>::kCount);
    }

    // Tries fn(shift, whether it is centred) with one shift for the tile, then with another; false if neither is safe.
    template <int kRange, class Fn>
    bool with_shared_shift(const View<const F>& x, const Tile& inputs, Fn&& fn) const {
        Shift<F> shift(p.beta);
        if (shift.worth_trying() && fn(shift, std::false_type{})) return true;
        Extremes<F> extremes;
        for (int64_t plane = inputs.planes.begin; same && plane < inputs.planes.end; ++plane)
            extremes.add(x.at(plane, 0, 0), p.h.in * p.w.in);
        for (int64_t plane = inputs.planes.begin; !same && plane < inputs.planes.end; ++plane)
            for (int64_t slice = inputs.d.begin; slice < inputs.d.end; ++slice)
                for (int64_t row = inputs.h.begin; row < inputs.h.end; ++row)
                    extremes.add(x.at(plane, slice, row), p.w.in * p.channels);
        constexpr bool kBackward = kRange == kBackwardRange;
        if (!extremes.finite() || !shift.centre_on(extremes.lowest(), extremes.highest(), kRange, kBackward)) return false;
        return shift.centre == F(0) ? fn(shift, std::false_type{}) : fn(shift, std::true_type{});
    }

    int64_t forward_bytes() const {
        const int64_t fast = whole   ? whole_bytes()
                             : same  ? PlanarSame<false, F, kForwardRange>::bytes(p)
                             : kLast ? channels_last_forward_bytes<F>(p)
                                     : planar_forward_bytes<F>(p);
        return most(LaneRows<F>::bytes(), regular() ? fast : 0);
    }
    int64_t whole_bytes() const { return kLast ? WholeImages<false, F, kForwardRange>::bytes(p) : 0; }
    bool fast_gradient() const {
        return regular() && (whole || (kLast ? channels_last_gradient_fits(p) : planar_gradient_fits(p)));
    }
    int64_t backward_bytes() const {
        const int64_t fast = whole   ? whole_bytes()
                             : same  ? PlanarSame<false, F, kBackwardRange>::bytes(p)
                             : kLast ? ChannelsLastGradient<false, F>::bytes(p)
                                     : planar_backward_bytes<F>(p);
        return most(LaneRows<F>::bytes(), fast_gradient() ? fast : 0);
    }

    bool forward(const T* x_data, T* y_data, int64_t threads) const {
        const Axis& cut = p.d.out > 1 ? p.d : p.h;
        const Tiling tiling(p, p.d.out, p.h.out, ceil_div(4 * cut.extent(), cut.stride));
        const Tensor<T, F> x = input(x_data), y = output(y_data);
        const bool fast = regular();
        const int64_t length = least(cut.in, (tiling.chunk - 1) * cut.stride + cut.extent());
        const int64_t in_rows = tiling.by_depth ? length * p.h.in : length * p.d.in;
        const int64_t bytes = x.bytes(tiling.planes, 1, in_rows) + y.bytes(tiling.planes, 1, tiling.rows());
        return run_tiles(tiling.count(), threads, bytes + forward_bytes(), [&](int64_t index, Arena arena) {
            const Tile outputs = tiling.tile(index, p.planes);
            const Tile inputs{outputs.planes, p.d.inputs_of(outputs.d), p.h.inputs_of(outputs.h)};
            const View<F> from = x.view(inputs, arena), to = y.view(outputs, arena);
            x.fetch(inputs, from);
            const View<const F> seen = constant(from);
            if (!(fast && with_shared_shift<kForwardRange>(seen, inputs, [&](const Shift<F>& shift, auto centred) {
                      constexpr bool kCentred = centred();
                      if constexpr (kLast)
                          return whole ? whole_images_forward<kCentred>(p, seen, to, outputs, shift, arena)
                                       : channels_last_forward<kCentred>(p, seen, to, outputs, shift, arena);
                      else
                          return whole   ? whole_planes_forward<kCentred>(p, seen, to, outputs, shift)
                                 : same  ? planar_same_forward<kCentred>(p, seen, to, outputs, shift, arena)
                                 : pairs ? planar_pairs_forward<kCentred>(p, seen, to, outputs, shift)
                                         : planar_forward<kCentred>(p, seen, to, outputs, shift, arena);
                  })))
                window_max_forward<kLast>(p, seen, to, outputs, arena);
            y.commit(outputs, to);
        });
    }

    bool backward(const T* g_data, const T* x_data, T* dx_data, int64_t threads) const {
        const Axis& cut = p.d.in > 1 ? p.d : p.h;
        const Tiling tiling(p, p.d.in, p.h.in, 4 * cut.extent());
        const Tensor<T, F> x = input(x_data), dx = input(dx_data), g = output(g_data);
        const bool fast = fast_gradient();
        const int64_t length = least(cut.in, tiling.chunk + 2 * (cut.extent() - 1));
        const int64_t in_rows = tiling.by_depth ? length * p.h.in : length * p.d.in;
        const int64_t out_length = least(cut.out, ceil_div(tiling.chunk + cut.extent() - 1, cut.stride) + 1);
        const int64_t out_rows = tiling.by_depth ? out_length * p.h.out : out_length * p.d.out;
        const int64_t bytes = x.bytes(tiling.planes, 1, in_rows) + dx.bytes(tiling.planes, 1, tiling.rows()) +
                              g.bytes(tiling.planes, 1, out_rows);
        return run_tiles(tiling.count(), threads, bytes + backward_bytes(), [&](int64_t index, Arena arena) {
            const Tile own = tiling.tile(index, p.planes);
            const Tile outputs{own.planes, p.d.outputs_of(own.d), p.h.outputs_of(own.h)};
            const View<F> to = dx.view(own, arena);
            if (outputs.d.size() > 0 && outputs.h.size() > 0)
                gradient(own, outputs, x, g, dx, to, fast, arena);
            else
                clear(dx, own, to);
            dx.commit(own, to);
        });
    }

  private:
    static void clear(const Tensor<T, F>& dx, const Tile& own, const View<F>& to) {
        dx.each_row(own, [&](T*, int64_t plane, int64_t slice, int64_t i) {
            set_all(to.at(plane, slice, i), F(0), dx.row);
        });
    }

    void gradient(const Tile& own, const Tile& outputs, const Tensor<T, F>& x, const Tensor<T, F>& g,
                  const Tensor<T, F>& dx, const View<F>& to, bool fast, Arena arena) const {
        const Tile inputs{own.planes, p.d.inputs_of(outputs.d), p.h.inputs_of(outputs.h)};
        const View<F> from = x.view(inputs, arena), grad = g.view(outputs, arena);
        const View<const F> seen = constant(from), given = constant(grad);
        x.fetch(inputs, from);
        g.fetch(outputs, grad);
        if (fast && with_shared_shift<kBackwardRange>(seen, inputs, [&](const Shift<F>& shift, auto centred) {
                constexpr bool kCentred = centred();
                if constexpr (kLast)
                    return whole   ? whole_images_backward<kCentred>(p, seen, given, to, own, shift, arena)
                           : pairs ? ChannelsLastPairs<kCentred, F>(p, seen, shift, arena).run(given, to, outputs, own)
                                   : ChannelsLastGradient<kCentred, F>(p, seen, shift, arena).run(given, to, outputs, own);
                else
                    return whole   ? whole_planes_backward<kCentred>(p, seen, given, to, own, shift)
                           : same  ? planar_same_backward<kCentred>(p, seen, given, to, own, shift, arena)
                           : pairs ? planar_pairs_backward<kCentred>(p, seen, given, to, outputs, own, shift, arena)
                                   : planar_backward<kCentred>(p, seen, given, to, outputs, own, shift, arena);
            }))
            return;
        clear(dx, own, to);
        window_max_backward<kLast>(p, seen, given, to, outputs, own, arena);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
