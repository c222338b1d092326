// Cuts a problem into tiles, gives them to threads, and chooses the kernel.
//
// The tiles follow from the shapes alone and every element of the result is written by one tile, so the result does
// not depend on the number of threads.
#pragma once

#include <omp.h>

#include <cstdlib>
#if defined(POOLSWAP_X86)
#include <xmmintrin.h>
#endif

#include "disjoint.h"
#include "exact.h"
#include "separable.h"
#include "three.h"

namespace poolswap::POOLSWAP_ISA {

// Every kernel that serves only some geometries, values that an encoder takes (sums.h), and returns false if it met
// others. exact.h takes what they leave.
enum class Kernel { kDisjoint, kThreeByOne, kThreeByTwo, kSeparable };

inline Kernel choose(const Problem& p) {
    if (p.disjoint()) return Kernel::kDisjoint;
    if (is_three(p)) return p.h.stride == 1 ? Kernel::kThreeByOne : Kernel::kThreeByTwo;
    return Kernel::kSeparable;
}

template <class F>
bool run(Kernel kernel, ForwardTile<F>& tile) {
    switch (kernel) {
        case Kernel::kDisjoint:
            return Disjoint<F>::forward(tile);
        case Kernel::kThreeByOne:
            return ThreeForward<1, F>::run(tile);
        case Kernel::kThreeByTwo:
            return ThreeForward<2, F>::run(tile);
        case Kernel::kSeparable:
            break;
    }
    return Separable<F>::forward(tile);
}

template <Pass kPass, class F>
bool run(Kernel kernel, BackwardTile<kPass, F>& tile) {
    switch (kernel) {
        case Kernel::kDisjoint:
            return Disjoint<F>::backward(tile);
        case Kernel::kThreeByOne:
            return ThreeBackward<kPass, 1, F>::run(tile);
        case Kernel::kThreeByTwo:
            return ThreeBackward<kPass, 2, F>::run(tile);
        case Kernel::kSeparable:
            break;
    }
    return Separable<F>::backward(tile);
}

// Memory that a kernel takes for a tile of these ranges.
template <class F>
int64_t forward_bytes(Kernel kernel, const Problem& p, Pieces pieces, Range d, Range h, Range input_d, Range input_h) {
    switch (kernel) {
        case Kernel::kDisjoint:
            return 0;
        case Kernel::kThreeByOne:
        case Kernel::kThreeByTwo:
            return ThreeForward<1, F>::bytes(p, pieces);
        case Kernel::kSeparable:
            break;
    }
    return Separable<F>::forward_bytes(p, d, h, input_d, input_h);
}

template <Pass kPass, class F>
int64_t backward_bytes(Kernel kernel, const Problem& p, Pieces pieces, Range output_d, Range output_h, Range input_d,
                       Range input_h) {
    switch (kernel) {
        case Kernel::kDisjoint:
            return 0;
        case Kernel::kThreeByOne:
        case Kernel::kThreeByTwo:
            return ThreeBackward<kPass, 1, F>::bytes(p, pieces);
        case Kernel::kSeparable:
            break;
    }
    return Separable<F>::template backward_bytes<kPass>(p, output_d, output_h, input_d, input_h);
}

struct Memory {
    char* const data;

    explicit Memory(int64_t bytes) : data(static_cast<char*>(aligned_alloc(64, size_t(ceil_div(bytes, 64) * 64)))) {}
    ~Memory() { free(data); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    Arena arena() const { return {data}; }
};

// Lane groups, each cut along depth or, where that is 1, height.
struct Tiling {
    bool by_depth;
    int64_t groups, chunk, chunks, depth, height;

    // Cuts a region of `depth_` x `height_` rows of groups of `group_size` elements, into tiles of at most `most_` or
    // so; `reach` is the least chunk whose halo is worth its cost.
    Tiling(int64_t groups_, int64_t group_size, int64_t depth_, int64_t height_, int64_t reach, int64_t most_)
        : by_depth(depth_ > 1), groups(groups_), depth(depth_), height(height_) {
        constexpr int64_t kTiles = 16, kLeast = 8192;  // enough for every thread, if that leaves them some work
        const int64_t length = by_depth ? depth : height;
        const int64_t wanted = least(most_, most(kLeast, group_size * groups / kTiles));
        chunk = least(most(1, length), most(most(1, reach), ceil_div(length, ceil_div(group_size, wanted))));
        chunk = ceil_div(length, most(1, length / chunk));
        chunks = chunk > 0 ? ceil_div(length, chunk) : 0;
    }
    int64_t count() const { return groups * chunks; }

    Tile tile(int64_t index) const {
        const int64_t begin = index % chunks * chunk;
        const Range cut{begin, least(begin + chunk, by_depth ? depth : height)};
        return {index / chunks, by_depth ? cut : Range{0, depth}, by_depth ? Range{0, height} : cut};
    }
};

// While it lives, this thread takes denormal numbers, which are slow on many processors, for 0. They appear where an
// element weighs less than 2^-125 of its window's largest.
class FlushDenormals {
#if defined(POOLSWAP_X86)
    const unsigned before = _mm_getcsr();

  public:
    FlushDenormals() { _mm_setcsr(before | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;

  public:
    FlushDenormals() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before));
        __asm__ volatile("msr fpcr, %0" : : "r"(before | (uint64_t(1) << 24)));
    }
    ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#endif
};

// Calls work(i, arena) for every i below `count` on `threads` threads. Returns false if there is no memory.
template <class Work>
bool run_tiles(int64_t count, int64_t threads, int64_t bytes, Work&& work) {
    threads = most(1, least(threads, count));
    bytes = ceil_div(bytes, 4096) * 4096 + 64;  // threads begin at different lines of the cache
    const Memory memory(bytes * threads);
    if (!memory.data) return false;
    if (threads <= 1) {
        [[maybe_unused]] const FlushDenormals flush;
        for (int64_t i = 0; i < count; ++i) work(i, memory.arena());
    } else {
#pragma omp parallel num_threads(int(threads))
        {
            [[maybe_unused]] const FlushDenormals flush;
            const Arena arena{memory.data + bytes * omp_get_thread_num()};
            // Tiles that follow each other lie one behind the other in memory, mostly.
#pragma omp for schedule(guided)
            for (int64_t i = 0; i < count; ++i) work(i, arena);
        }
    }
    return true;
}

// A window that is the whole plane over one long row.
inline Problem flattened(const Problem& p) {
    const auto whole = [](const Axis& a) { return a.out == 1 && (a.dilation == 1 || a.in == 1) && a.taps(0).size() == a.in; };
    if (!whole(p.d) || !whole(p.h) || !whole(p.w)) return p;
    const int64_t size = p.d.in * p.h.in * p.w.in;
    return {p.planes, p.channels, {1, 1, 1, 1, 0, 1}, {1, 1, 1, 1, 0, 1}, {size, 1, size, 1, 0, 1}};
}

template <class T, bool kChannelsLast>
class Driver {
    using F = Compute<T>;
    using Tensor = Staged<T, kChannelsLast>;
    static constexpr int64_t kCount = Lanes<F>::kCount;
    const Problem p;
    const double* const betas;
    const int64_t beta_count;
    const Kernel kernel;
    const Pieces pieces;

    int64_t group_size() const { return p.d.in * p.h.in * p.w.in * pieces.count * kCount; }
    LaneBetas<F> betas_of(const Betas<F>& all, int64_t group) const { return all.from(kChannelsLast ? 0 : group * kCount); }

  public:
    Driver(const Problem& problem, const double* betas_, int64_t beta_count_)
        : p(flattened(problem)), betas(betas_), beta_count(beta_count_), kernel(choose(p)), pieces(Tensor::pieces(p)) {}

    // Both return false if there is no memory.
    bool forward(const T* x_data, T* y_data, int64_t threads) const {
        const Memory memory(Betas<F>::bytes(beta_count));
        if (!memory.data) return false;
        const Betas<F> all_betas(betas, beta_count, memory.arena());
        const Tensor x(p, x_data, false), y(p, y_data, true);
        const Axis& cut = p.d.out > 1 ? p.d : p.h;
        const Tiling tiling(Tensor::groups(p), group_size(), p.d.out, p.h.out, ceil_div(4 * (cut.extent() - cut.stride), cut.stride),
                            Tensor::most_elements(p));
        const auto bytes_of = [&](const Tile& tile) {
            const Range input_d = p.d.inputs_of(tile.d), input_h = p.h.inputs_of(tile.h);
            return x.bytes(input_d.size(), input_h.size()) + y.bytes(tile.d.size(), tile.h.size()) +
                   forward_bytes<F>(kernel, p, pieces, tile.d, tile.h, input_d, input_h);
        };
        return run_tiles(tiling.count(), threads, largest(tiling, bytes_of), [&](int64_t index, Arena arena) {
            const Tile t = tiling.tile(index);
            const Range input_d = p.d.inputs_of(t.d), input_h = p.h.inputs_of(t.h);
            // Built where it stays: small planes make tiny tiles, which copies of it would cost a tenth of their time.
            ForwardTile<F> tile{p, betas_of(all_betas, t.group), pieces, t.d, t.h, input_d, input_h,
                                Rows<F>::input(x, t.group, input_d, input_h, arena),
                                Rows<F>::output(y, t.group, t.d, t.h, arena), arena};
            if (!(kFused && run(kernel, tile))) Exact<F>::forward(tile);
        });
    }

    // `dbetas` are zeros, or null.
    bool backward(const T* g, const T* x, T* dx, double* dbetas, int64_t threads) const {
        return dbetas ? backward<Pass::kLearning>(g, x, dx, dbetas, threads)
                      : backward<Pass::kBackward>(g, x, dx, nullptr, threads);
    }

  private:
    template <Pass kPass>
    bool backward(const T* g_data, const T* x_data, T* dx_data, double* dbetas, int64_t threads) const {
        constexpr bool kLearns = kPass == Pass::kLearning;
        const Tensor g(p, g_data, true), x(p, x_data, false), dx(p, dx_data, false);
        const Axis& cut = p.d.in > 1 ? p.d : p.h;
        const Tiling tiling(Tensor::groups(p), group_size(), p.d.in, p.h.in, 4 * (cut.extent() - cut.stride),
                            Tensor::most_elements(p));
        const int64_t lanes = kLearns ? pieces.count * kCount : 0;
        const Memory memory(Betas<F>::bytes(beta_count) + Arena::bytes<double>(tiling.count() * lanes));
        if (!memory.data) return false;
        Arena shared = memory.arena();
        double* const learnt = shared.take<double>(tiling.count() * lanes);
        const Betas<F> all_betas(betas, beta_count, shared);
        const auto bytes_of = [&](const Tile& tile) {
            const Range output_d = p.d.outputs_of(tile.d), output_h = p.h.outputs_of(tile.h);
            const Range input_d = inputs_of(p.d, output_d, tile.d), input_h = inputs_of(p.h, output_h, tile.h);
            return x.bytes(input_d.size(), input_h.size()) + g.bytes(output_d.size(), output_h.size()) +
                   dx.bytes(tile.d.size(), tile.h.size()) + Arena::bytes<F>(lanes) +
                   backward_bytes<kPass, F>(kernel, p, pieces, output_d, output_h, input_d, input_h);
        };
        const bool enough = run_tiles(tiling.count(), threads, largest(tiling, bytes_of), [&](int64_t index, Arena arena) {
            const Tile t = tiling.tile(index);
            const Range output_d = p.d.outputs_of(t.d), output_h = p.h.outputs_of(t.h);
            const Range input_d = inputs_of(p.d, output_d, t.d), input_h = inputs_of(p.h, output_h, t.h);
            F* const centres = arena.take<F>(lanes);
            if (kLearns) x.centres(p, pieces, t.group, centres);
            double* const sums = learnt + index * lanes;
            set_all(sums, 0.0, lanes);
            BackwardTile<kPass, F> tile{p, betas_of(all_betas, t.group), pieces, t.d, t.h, output_d, output_h,
                                        input_d, input_h,
                                        Rows<F>::input(x, t.group, input_d, input_h, arena),
                                        Rows<F>::input(g, t.group, output_d, output_h, arena),
                                        Rows<F>::output(dx, t.group, t.d, t.h, arena), arena, centres, sums};
            if (kFused && run(kernel, tile)) return;
            set_all(sums, 0.0, lanes);
            Exact<F>::backward(tile);
        });
        if (kLearns && enough) collect(tiling, learnt, dbetas);
        return enough;
    }

    // Adds up what the tiles learnt, in their order.
    void collect(const Tiling& tiling, const double* learnt, double* dbetas) const {
        for (int64_t index = 0; index < tiling.count(); ++index)
            for (int64_t piece = 0; piece < pieces.count; ++piece, learnt += kCount) {
                const int64_t first = Tensor::first_of(pieces, tiling.tile(index).group, piece);
                const int64_t begin = kChannelsLast ? piece * kCount - first : 0;  // lanes before repeat the last piece's
                const int64_t end = least(kCount, Tensor::owners(p) - first);
                int64_t channel = (first + begin) % beta_count;
                for (int64_t lane = begin; lane < end; ++lane) {
                    dbetas[channel] += learnt[lane];
                    if (++channel == beta_count) channel = 0;
                }
            }
        for (int64_t i = 0; i < beta_count; ++i) dbetas[i] *= Averaged<Pass::kLearning, F>::unit(betas[i]);
    }
    // The elements of these windows, and those of the tile itself.
    static Range inputs_of(const Axis& a, Range outputs, Range own) {
        if (outputs.size() <= 0) return own;
        const Range inputs = a.inputs_of(outputs);
        return {least(inputs.begin, own.begin), most(inputs.end, own.end)};
    }
    // Tiles at the edges and between them differ.
    template <class Fn>
    static int64_t largest(const Tiling& tiling, Fn&& bytes_of) {
        int64_t bytes = 64;
        for (int64_t i = 0; i < tiling.chunks; ++i) bytes = most(bytes, bytes_of(tiling.tile(i)));
        return bytes;
    }
};

}  // namespace poolswap::POOLSWAP_ISA
