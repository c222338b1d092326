// Any geometry and any values, among them NaN, infinities and the largest floats: windows one by one, with the window's
// own maximum (minimum for beta < 0) as the shift. Slow, and needed only for tiles with values that no encoder takes, and
// without fused multiply-add.
//
// As in ops/reference.py, everything is written in h = x / 2 - centre / 2, which cannot overflow. -inf is left out; a
// window with +inf, or with nothing but -inf, is its own maximum and has no gradient.
#pragma once

#include "tile.h"

namespace poolswap::POOLSWAP_ISA {

template <class F>
constexpr F kInfinity = F(__builtin_inf());

template <class F>
class Exact {
    const Problem& p;
    const LaneView<F> x;
    const int64_t offset;
    Vec<F> beta, slope;  // slope: exponent of 2 per unit of h
    Bits<F> negative;

    struct Window {
        Vec<F> top, low;                 // largest and smallest element; low: of those that are not -inf
        Vec<F> half_centre, sum, mean;   // mean: of h
    };

    Exact(const Problem& p_, const LaneView<F>& x_, const LaneBetas<F>& betas, int64_t offset_)
        : p(p_), x(x_), offset(offset_), beta(betas.at(betas.beta, offset_)) {
        constexpr F kLimit = sizeof(F) == 4 ? F(__FLT_MAX__ / 4) : F(__DBL_MAX__ / 4);
        const auto limited = [](Vec<F> value) {  // NaN stays
            value = value > kLimit ? fill<F>(kLimit) : value;
            return value < -kLimit ? fill<F>(-kLimit) : value;
        };
        negative = beta < F(0);
        beta = limited(beta);
        slope = limited(beta * F(2 * 1.44269504088896340736));
    }

    // Calls fn(x, slice, row, column) for every element of window (d, h, j).
    template <class Fn>
    POOLSWAP_INLINE void each(int64_t d, int64_t h, int64_t j, Fn&& fn) const {
        const Range slices = p.d.taps(d), rows = p.h.taps(h), columns = p.w.taps(j);
        for (int64_t kd = slices.begin; kd < slices.end; ++kd)
            for (int64_t kh = rows.begin; kh < rows.end; ++kh)
                for (int64_t kw = columns.begin; kw < columns.end; ++kw) {
                    const int64_t slice = p.d.first(d) + kd * p.d.dilation, row = p.h.first(h) + kh * p.h.dilation;
                    const int64_t column = p.w.first(j) + kw * p.w.dilation;
                    fn(load(x.row(slice, row) + column * x.pixel_pitch + offset), slice, row, column);
                }
    }

    static POOLSWAP_INLINE Bits<F> infinite(Vec<F> top) { return (top == kInfinity<F>) | (top == -kInfinity<F>); }

    // e = exp(beta (x - centre)) and h; both 0 where x is -inf or e would be no normal number.
    POOLSWAP_INLINE void weigh(Vec<F> x_, Vec<F> half, Vec<F>& e, Vec<F>& h) const {
        h = x_ * F(0.5) - half;
        const Vec<F> z = h * slope;
        const Bits<F> keep = (z > Lanes<F>::kLowest) & (z < F(1));  // -inf has z = inf where beta < 0
        h = keep ? h : Vec<F>{};
        e = keep ? exp2_of<F>(keep ? z : Vec<F>{}) : Vec<F>{};
    }

    Window window(int64_t d, int64_t h, int64_t j) const {
        Window w{fill<F>(-kInfinity<F>), fill<F>(kInfinity<F>), Vec<F>{}, Vec<F>{}, Vec<F>{}};
        each(d, h, j, [&](Vec<F> v, int64_t, int64_t, int64_t) POOLSWAP_LAMBDA {
            w.top = ((v > w.top) | (v != v)) ? v : w.top;  // NaN stays
            w.low = ((v < w.low) & (v != -kInfinity<F>)) ? v : w.low;
        });
        const Vec<F> centre = negative ? w.low : w.top;
        w.half_centre = infinite(w.top) ? Vec<F>{} : centre * F(0.5);
        // Where a sum of several h could overflow, they are added up in units of 2^30.
        constexpr F kLarge = sizeof(F) == 4 ? F(0x1p96) : F(0x1p960);
        const Vec<F> scale = ((w.top > kLarge) | (w.low < -kLarge)) ? fill<F>(F(0x1p-30)) : fill<F>(F(1));
        Vec<F> sum{}, moment{};
        int64_t count = 0;
        each(d, h, j, [&](Vec<F> v, int64_t, int64_t, int64_t) POOLSWAP_LAMBDA {
            Vec<F> e, half;
            weigh(v, w.half_centre, e, half);
            sum += e;
            moment += e * (half * scale);
            if (++count % 64 == 0) {
                w.sum += sum;
                w.mean += moment;
                sum = moment = Vec<F>{};
            }
        });
        w.sum += sum;
        w.mean = (w.mean + moment) / w.sum / scale;
        return w;
    }

  public:
    static void forward(ForwardTile<F>& tile) {
        tile.x.fetch_all(tile.input_d);
        for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
            const int64_t offset = tile.pieces.template offset<F>(piece);
            const Exact pool(tile.p, tile.x.view, tile.betas, offset);
            for (int64_t d = tile.d.begin; d < tile.d.end; ++d)
                for (int64_t h = tile.h.begin; h < tile.h.end; ++h)
                    for (int64_t j = 0; j < tile.p.w.out; ++j) {
                        const Window w = pool.window(d, h, j);
                        const Vec<F> centre = pool.negative ? w.low : w.top;
                        const Vec<F> y = (infinite(w.top) | (w.top != w.top)) ? w.top : (centre + w.mean) + w.mean;
                        store(tile.y.view.row(d, h) + j * tile.y.view.pixel_pitch + offset, y);
                    }
        }
        tile.y.commit_all(tile.d);
    }

    template <Pass kPass>
    static void backward(BackwardTile<kPass, F>& tile) {
        const LaneView<F> dx = tile.dx.view;
        tile.x.fetch_all(tile.input_d);
        tile.g.fetch_all(tile.output_d);
        for (int64_t piece = 0; piece < tile.pieces.count; ++piece) {
            const int64_t offset = tile.pieces.template offset<F>(piece);
            const Exact pool(tile.p, tile.x.view, tile.betas, offset);
            const Vec<F> twice = 2 * pool.beta;
            auto average = tile.average(piece);
            for (int64_t slice = tile.d.begin; slice < tile.d.end; ++slice)
                for (int64_t row = tile.h.begin; row < tile.h.end; ++row)
                    for (int64_t c = 0; c < tile.p.w.in; ++c)
                        store(dx.row(slice, row) + c * dx.pixel_pitch + offset, Vec<F>{});
            for (int64_t d = tile.output_d.begin; d < tile.output_d.end; ++d)
                for (int64_t h = tile.output_h.begin; h < tile.output_h.end; ++h)
                    for (int64_t j = 0; j < tile.p.w.out; ++j) {
                        const Window w = pool.window(d, h, j);
                        const Vec<F> g = load(tile.g.view.row(d, h) + j * tile.g.view.pixel_pitch + offset);
                        const Vec<F> q = infinite(w.top) ? Vec<F>{} : w.top != w.top ? w.top : g / w.sum;
                        pool.each(d, h, j, [&](Vec<F> v, int64_t slice, int64_t row, int64_t c) POOLSWAP_LAMBDA {
                            if (slice < tile.d.begin || slice >= tile.d.end || row < tile.h.begin || row >= tile.h.end)
                                return;
                            Vec<F> e, half;
                            pool.weigh(v, w.half_centre, e, half);
                            const Bits<F> weighs = (q != Vec<F>{}) & (e != Vec<F>{});
                            const Vec<F> share = q * e * (F(1) + (half - w.mean) * twice);
                            F* const at = dx.row(slice, row) + c * dx.pixel_pitch + offset;
                            store(at, load(at) + (q != Vec<F>{} ? share : Vec<F>{}));
                            if constexpr (kPass == Pass::kLearning) {
                                const Vec<F> deviation = q * e * (half - w.mean) * average.per_half(pool.slope);
                                average.learn(weighs ? deviation : Vec<F>{}, weighs ? v : Vec<F>{});
                            }
                        });
                    }
            tile.keep(average, piece);
        }
        tile.dx.commit_all(tile.d);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
