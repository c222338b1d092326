// Cuts a problem into tiles, gives them to threads, and takes each through the tiers until one is safe.
//
// The tiles follow from the shapes alone and every element of the result is written by one tile, so the result does
// not depend on the number of threads.
#pragma once

#include <omp.h>

#include <cstdlib>

#include "tiers.h"

namespace poolswap::POOLSWAP_ISA {

struct Memory {
    char* const data;

    explicit Memory(int64_t bytes) : data(static_cast<char*>(aligned_alloc(64, size_t(ceil_div(bytes, 64) * 64)))) {}
    ~Memory() { free(data); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    Arena arena() const { return {data}; }
};

struct Tiling {
    bool by_depth;          // which dimension is cut: d or h
    int64_t plane_size;     // elements of an input plane
    int64_t planes, chunk;  // planes of a tile, and its length in that dimension
    int64_t plane_tiles, chunk_tiles;
    int64_t depth, height;  // whole size of the region that is cut

    // Cuts planes of `depth` x `height` rows; `reach` is the least chunk whose halo is worth its cost.
    Tiling(const Problem& p, int64_t depth_, int64_t height_, int64_t reach)
        : by_depth(depth_ > 1), depth(depth_), height(height_) {
        const int64_t plane = plane_size = p.d.in * p.h.in * p.w.in * p.channels, length = by_depth ? depth : height;
        const int64_t wanted = most(kSmallTile, least(32768, plane * p.planes / 64));
        planes = least(p.planes, most(1, wanted / plane));
        const int64_t roomy = least(3 * reach, length * p.planes / 32);  // a smaller share of it is halo
        chunk = most(most(reach, roomy), ceil_div(length, ceil_div(plane, wanted)));
        chunk = ceil_div(length, most(1, length / chunk));
        plane_tiles = ceil_div(p.planes, planes);
        chunk_tiles = ceil_div(length, chunk);
    }
    int64_t count() const { return plane_tiles * chunk_tiles; }

    Tile tile(int64_t index, int64_t plane_count) const {
        const int64_t first = index / chunk_tiles * planes, begin = index % chunk_tiles * chunk;
        const Range cut{begin, least(begin + chunk, by_depth ? depth : height)};
        return {{first, least(first + planes, plane_count)},
                by_depth ? cut : Range{0, depth},
                by_depth ? Range{0, height} : cut};
    }
};

// Calls work(i, arena) for every i below `count` on `threads` threads. Returns false if there is no memory.
template <class Work>
bool run_tiles(int64_t count, int64_t threads, int64_t bytes, Work&& work) {
    threads = most(1, least(threads, count));
    bytes = ceil_div(bytes, 4096) * 4096;
    const Memory memory(bytes * threads);
    if (!memory.data) return false;
    if (threads <= 1) {
        for (int64_t i = 0; i < count; ++i) work(i, memory.arena());
    } else {
#pragma omp parallel num_threads(int(threads))
        {
            const Arena arena{memory.data + bytes * omp_get_thread_num()};
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < count; ++i) work(i, arena);
        }
    }
    return true;
}

template <class T, bool kLast>
class Driver {
    using F = Compute<T>;
    static constexpr bool kWidens = kSame<F, float>;
    const Problem p;
    const Tiers<T, kLast, F> tiers;
    const Tiers<T, kLast, double> wide;  // for tiles whose values a shared shift serves in double precision only

    static int64_t forward_reach(const Axis& cut) { return ceil_div(4 * cut.extent(), cut.stride); }
    static int64_t backward_reach(const Axis& cut) { return 4 * cut.extent(); }

  public:
    explicit Driver(const Problem& problem) : p(is_whole(problem) ? as_one_row(problem) : problem), tiers(p), wide(p) {}

    bool forward(const T* x, T* y, int64_t threads) const {
        const Tiling tiling(p, p.d.out, p.h.out, forward_reach(p.d.out > 1 ? p.d : p.h));
        const int64_t bytes = tiers.forward_bytes(tiling.planes, tiling.chunk, tiling.by_depth);
        return run_tiles(tiling.count(), threads, bytes, [&](int64_t index, Arena arena) {
            const Tile tile = tiling.tile(index, p.planes);
            if (tiers.forward(x, y, tile, arena, !kWidens)) return;
            const int64_t chunk = small_chunk(tiling, forward_reach(tiling.by_depth ? p.d : p.h));
            in_small_tiles(
                tile, tiling, chunk, wide.forward_bytes(tiling.planes, chunk, tiling.by_depth),
                [&](const Tile& part, Arena own) { return wide.forward(x, y, part, own, false); },
                [&](const Tile& part) { tiers.forward(x, y, part, arena, true); });
        });
    }

    bool backward(const T* g, const T* x, T* dx, int64_t threads) const {
        const Tiling tiling(p, p.d.in, p.h.in, backward_reach(p.d.in > 1 ? p.d : p.h));
        const int64_t bytes = tiers.backward_bytes(tiling.planes, tiling.chunk, tiling.by_depth);
        return run_tiles(tiling.count(), threads, bytes, [&](int64_t index, Arena arena) {
            const Tile tile = tiling.tile(index, p.planes);
            if (tiers.backward(g, x, dx, tile, arena, !kWidens)) return;
            const int64_t chunk = small_chunk(tiling, backward_reach(tiling.by_depth ? p.d : p.h));
            in_small_tiles(
                tile, tiling, chunk, wide.backward_bytes(tiling.planes, chunk, tiling.by_depth),
                [&](const Tile& part, Arena own) { return wide.backward(g, x, dx, part, own, false); },
                [&](const Tile& part) { tiers.backward(g, x, dx, part, arena, true); });
        });
    }

  private:
    static int64_t small_chunk(const Tiling& tiling, int64_t reach) {
        return tiling.plane_size <= kSmallTile ? tiling.chunk : least(tiling.chunk, reach);
    }

    // Cuts a tile that no shared shift could serve, so that hostile values slow down their surroundings only.
    template <class Wide, class Anyhow>
    static void in_small_tiles(const Tile& tile, const Tiling& tiling, int64_t chunk, int64_t bytes, Wide&& in_double,
                               Anyhow&& anyhow) {
        const int64_t planes = most(1, least(tiling.planes, kSmallTile / tiling.plane_size));
        const Memory memory(bytes);
        const Range& cut = tiling.by_depth ? tile.d : tile.h;
        for (int64_t plane = tile.planes.begin; plane < tile.planes.end; plane += planes)
            for (int64_t at = cut.begin; at < cut.end; at += chunk) {
                Tile part = tile;
                part.planes = Range{plane, least(plane + planes, tile.planes.end)};
                (tiling.by_depth ? part.d : part.h) = Range{at, least(at + chunk, cut.end)};
                if (!(memory.data && in_double(part, memory.arena()))) anyhow(part);
            }
    }
};

}  // namespace poolswap::POOLSWAP_ISA
