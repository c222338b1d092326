// One tile of one problem: which kernel serves it, with which shift, and how much memory that takes.
#pragma once

#include <type_traits>

#include "channels_last_backward.h"
#include "channels_last_pairs.h"
#include "planar_backward.h"
#include "planar_pairs.h"
#include "planar_same.h"
#include "planar_stem.h"
#include "tensor.h"
#include "whole.h"
#include "window_max.h"

namespace poolswap::POOLSWAP_ISA {

// Elements of type T, computed in F.
template <class T, bool kLast, class F>
struct Tiers {
    const Problem& p;
    const bool whole, same, pairs, stem;  // windows that have kernels of their own
    const bool regular, gradient_fits;    // a shared shift can serve these windows, or their gradient, at all

    explicit Tiers(const Problem& p_)
        : p(p_), whole(is_whole(p)), same(!kLast && planar_same_fits(p, Lanes<F>::kCount)),
          pairs(kLast ? channels_last_pairs_fit(p) : planar_pairs_fit(p, Lanes<F>::kCount)),
          stem(!kLast && is_stem(p.w, Lanes<F>::kCount)), regular(is_regular()),
          gradient_fits(regular && (whole || (kLast ? channels_last_gradient_fits(p) : planar_gradient_fits(p)))) {}

    // Memory for tiles of `planes` planes that are cut, in depth or else in height, to `chunk`.
    int64_t forward_bytes(int64_t planes, int64_t chunk, bool by_depth) const {
        const Axis& cut = by_depth ? p.d : p.h;
        const int64_t length = least(cut.in, (chunk - 1) * cut.stride + cut.extent());
        const int64_t fast = whole   ? whole_bytes()
                             : same  ? PlanarSame<false, F, kForwardRange<F>>::bytes(p)
                             : stem  ? planar_stem_bytes<F>(p)
                             : kLast ? channels_last_forward_bytes<F>(p)
                                     : planar_forward_bytes<F>(p);
        return input(nullptr).bytes(planes, by_depth ? length : p.d.in, by_depth ? p.h.in : length) +
               output(nullptr).bytes(planes, by_depth ? chunk : p.d.out, by_depth ? p.h.out : chunk) +
               most(LaneRows<F>::bytes(), regular ? fast : 0);
    }
    int64_t backward_bytes(int64_t planes, int64_t chunk, bool by_depth) const {
        const Axis& cut = by_depth ? p.d : p.h;
        const int64_t length = least(cut.in, chunk + 2 * (cut.extent() - 1));
        const int64_t outputs = least(cut.out, ceil_div(chunk + cut.extent() - 1, cut.stride) + 1);
        const int64_t fast = whole  ? whole_bytes()
                             : same ? PlanarSame<false, F, kBackwardRange<F>>::bytes(p)
                             : kLast
                                 ? most(ChannelsLastGradient<false, F>::bytes(p), ChannelsLastPairs<false, F>::bytes(p))
                                 : planar_backward_bytes<F>(p);
        return input(nullptr).bytes(planes, by_depth ? length : p.d.in, by_depth ? p.h.in : length) +
               input(nullptr).bytes(planes, by_depth ? chunk : p.d.in, by_depth ? p.h.in : chunk) +
               output(nullptr).bytes(planes, by_depth ? outputs : p.d.out, by_depth ? p.h.out : outputs) +
               most(LaneRows<F>::bytes(), gradient_fits ? fast : 0);
    }

    // Pools the windows `outputs`. Where no shared shift is safe: by the windows' maxima if `anyhow`, else false.
    bool forward(const T* x_data, T* y_data, const Tile& outputs, Arena arena, bool anyhow) const {
        if (!(kFused && regular) && !anyhow) return false;
        const Tensor<T, F> x = input(x_data), y = output(y_data);
        const Tile inputs{outputs.planes, p.d.inputs_of(outputs.d), p.h.inputs_of(outputs.h)};
        const View<F> from = x.view(inputs, arena), to = y.view(outputs, arena);
        x.fetch(inputs, from);
        const View<const F> seen = constant(from);
        [[maybe_unused]] const auto pool = [&](const Shift<F>& shift, auto centred) {
            constexpr bool kCentred = centred();
            if constexpr (kLast)
                return whole ? whole_images_forward<kCentred>(p, seen, to, outputs, shift, arena)
                             : channels_last_forward<kCentred>(p, seen, to, outputs, shift, arena);
            else
                return whole   ? whole_planes_forward<kCentred>(p, seen, to, outputs, shift, arena)
                       : same  ? planar_same_forward<kCentred>(p, seen, to, outputs, shift, arena)
                       : pairs ? planar_pairs_forward<kCentred>(p, seen, to, outputs, shift)
                       : stem  ? planar_stem_forward<kCentred>(p, seen, to, outputs, shift, arena)
                               : planar_forward<kCentred>(p, seen, to, outputs, shift, arena);
        };
        bool done = false;
        if constexpr (kFused) done = regular && with_shared_shift(seen, inputs, kForwardRange<F>, false, pool);
        if (!done) {
            if (!anyhow) return false;
            window_max_forward<kLast>(p, seen, to, outputs, arena);
        }
        y.commit(outputs, to);
        return true;
    }

    // The same for the gradient of the inputs `own`.
    bool backward(const T* g_data, const T* x_data, T* dx_data, const Tile& own, Arena arena, bool anyhow) const {
        if (!(kFused && gradient_fits) && !anyhow) return false;
        const Tensor<T, F> g = output(g_data), x = input(x_data), dx = input(dx_data);
        const Tile outputs{own.planes, p.d.outputs_of(own.d), p.h.outputs_of(own.h)};
        const Tile inputs{own.planes, p.d.inputs_of(outputs.d), p.h.inputs_of(outputs.h)};
        const View<F> to = dx.view(own, arena);
        const auto clear = [&] {
            dx.each_row(own, [&](T*, int64_t plane, int64_t slice, int64_t row) {
                set_all(to.at(plane, slice, row), F(0), dx.row);
            });
        };
        if (outputs.d.size() == 0 || outputs.h.size() == 0) {
            clear();
            dx.commit(own, to);
            return true;
        }
        const View<F> from = x.view(inputs, arena), grad = g.view(outputs, arena);
        const View<const F> seen = constant(from), given = constant(grad);
        x.fetch(inputs, from);
        g.fetch(outputs, grad);
        [[maybe_unused]] const auto pool = [&](const Shift<F>& shift, auto centred) {
            constexpr bool kCentred = centred();
            if constexpr (kLast)
                return whole   ? whole_images_backward<kCentred>(p, seen, given, to, own, shift, arena)
                       : pairs ? ChannelsLastPairs<kCentred, F>(p, seen, shift, arena).run(given, to, outputs, own)
                               : ChannelsLastGradient<kCentred, F>(p, seen, shift, arena)
                                     .run(given, to, outputs, own, !dx.staged && larger_than_caches());
            else
                return whole   ? whole_planes_backward<kCentred>(p, seen, given, to, own, shift, arena)
                       : same  ? planar_same_backward<kCentred>(p, seen, given, to, own, shift, arena)
                       : pairs ? planar_pairs_backward<kCentred>(p, seen, given, to, outputs, own, shift, arena)
                               : planar_backward<kCentred>(p, seen, given, to, outputs, own, shift, arena);
        };
        bool done = false;
        if constexpr (kFused) done = gradient_fits && with_shared_shift(seen, inputs, kBackwardRange<F>, true, pool);
        if (!done) {
            if (!anyhow) return false;
            clear();
            window_max_backward<kLast>(p, seen, given, to, outputs, own, arena);
        }
        dx.commit(own, to);
        return true;
    }

  private:
    // Whether x and its gradient together are: what is written first has left them before anybody reads it.
    bool larger_than_caches() const {
        return 2 * p.planes * p.channels * p.d.in * p.h.in * p.w.in * int64_t(sizeof(T)) > kLastCache;
    }

    Tensor<T, F> input(const T* data) const {
        return {
            const_cast<T*>(data), p.d.in, p.h.in, p.w.in * p.channels, p.w.in * p.channels < Lanes<F>::kCount, same};
    }
    Tensor<T, F> output(const T* data) const {
        const int64_t least_run = kLast ? p.channels : whole ? Lanes<F>::kCount : p.w.out;
        return {const_cast<T*>(data), p.d.out, p.h.out, p.w.out * p.channels, least_run < Lanes<F>::kCount, same};
    }
    int64_t whole_bytes() const {
        return kLast ? WholeImages<false, F, kForwardRange<F>>::bytes(p)
                     : WholePlanes<false, F, kForwardRange<F>>::bytes();
    }

    bool is_regular() const {
        if (kLast && p.channels < Lanes<F>::kCount) return false;
        return whole || (p.d.kernel * p.h.kernel <= kMaxRows && p.w.kernel <= 4096 && p.d.every_window_filled() &&
                         p.h.every_window_filled() && p.w.every_window_filled());
    }

    Extremes<F> extremes_of(const View<const F>& x, const Tile& tile) const {
        Extremes<F> extremes;
        for (int64_t plane = tile.planes.begin; plane < tile.planes.end; ++plane) {
            if (same) {  // one run, whose rows may be shorter than a vector
                extremes.add(x.at(plane, 0, 0), p.h.in * p.w.in);
                continue;
            }
            for (int64_t slice = tile.d.begin; slice < tile.d.end; ++slice)
                for (int64_t row = tile.h.begin; row < tile.h.end; ++row)
                    extremes.add(x.at(plane, slice, row), p.w.in * p.channels);
        }
        return extremes;
    }

    // Calls fn(shift, whether it is centred) with one shift for the tile, then with another; false if neither is safe.
    template <class Fn>
    bool with_shared_shift(const View<const F>& x, const Tile& inputs, int range, bool always_centred, Fn&& fn) const {
        // In double, where a subtraction more does not matter, all are centred: half the code.
        using MaybeCentred = std::bool_constant<sizeof(F) == 8>;
        Shift<F> shift(p.beta);
        if (shift.worth_trying() && fn(shift, MaybeCentred{})) return true;
        const Extremes<F> extremes = extremes_of(x, inputs);
        if (!extremes.finite() || !shift.centre_on(extremes.lowest(), extremes.highest(), range, always_centred))
            return false;
        return shift.centre == F(0) ? fn(shift, MaybeCentred{}) : fn(shift, std::true_type{});
    }
};

}  // namespace poolswap::POOLSWAP_ISA
