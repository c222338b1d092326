// Windows that are the whole plane (global pooling), in both layouts. e is not kept: the gradient computes it anew.
#pragma once

#include "gradient.h"
#include "shift.h"

namespace poolswap::POOLSWAP_ISA {

inline bool is_whole(const Axis& a) { return a.out == 1 && (a.dilation == 1 || a.in == 1) && a.taps(0).size() == a.in; }
inline bool is_whole(const Problem& p) { return is_whole(p.d) && is_whole(p.h) && is_whole(p.w); }

// The same windows over one long row.
inline Problem as_one_row(const Problem& p) {
    const int64_t size = p.d.in * p.h.in * p.w.in;
    return {p.planes, p.channels, {1, 1, 1, 1, 0, 1}, {1, 1, 1, 1, 0, 1}, {size, 1, size, 1, 0, 1}, p.beta};
}

// A sum of many terms that loses no more than its last bit.
template <class F>
struct LongSum {
    Vec<F> sum{}, lost{};

    POOLSWAP_INLINE void add(Vec<F> value) {
        const Vec<F> corrected = value - lost, next = sum + corrected;
        lost = (next - sum) - corrected;
        sum = next;
    }
};

// Contiguous planes: as many at a time as a vector has lanes, as one run of elements. Where a vector holds the end of
// one plane and the beginning of the next, masks give each its own; sums across lanes are formed for all planes
// together.
template <bool kCentred, class F, int kRange>
class WholePlanes {
    static constexpr int kCount = Lanes<F>::kCount;
    static constexpr int64_t kSmall = 1024, kRun = 64 * kCount;  // elements; runs are added up without compensation
    const View<const F>& x;
    SharedExp<F, kRange> exp;
    const Vec<F> centre;
    const int64_t size, pitch;
    F* const kept;                              // e of small planes, for the gradient
    typename Lanes<F>::Word lanes[2 * kCount];  // all bits set, then none

  public:
    WholePlanes(const Problem& p, const View<const F>& x_, const Shift<F>& shift, Arena arena)
        : x(x_), exp(shift.slope, shift.c), centre(fill<F>(shift.centre)), size(p.w.in), pitch(x_.plane_pitch),
          kept(arena.take<F>(kCount * kSmall)) {
        for (int k = 0; k < 2 * kCount; ++k) lanes[k] = k < kCount ? ~typename Lanes<F>::Word(0) : 0;
    }
    static int64_t bytes() { return Arena::bytes<F>(kCount * kSmall); }

    bool safe() const { return exp.safe(); }
    bool small() const { return pitch <= kSmall; }

    // Sums of e and of e (x - centre) of `planes` planes, one a lane.
    template <bool kKeep>
    POOLSWAP_INLINE void sums(int64_t plane, int64_t planes, Vec<F>& sum, Vec<F>& moment) {
        Vec<F> each_sum[kCount], each_moment[kCount];
        for (int64_t k = planes; k < kCount; ++k) each_sum[k] = each_moment[k] = Vec<F>{};
        const F* const from = x.at(plane, 0, 0);
        const int64_t length = size, step = pitch, count = (planes - 1) * pitch + size;
        F* const keep = kept;
        auto own = exp;
        const Vec<F> middle = centre;
        Vec<F> e{}, moment_{};  // of the last vector
        const auto weigh = [&](int64_t i, Vec<F> x_) POOLSWAP_LAMBDA {
            e = own(x_);
            if (kKeep) store(keep + i, e);
            if (kCentred) x_ -= middle;
            moment_ = e * x_;
        };
        int64_t i = 0;  // where the next vector begins
        for (int64_t k = 0; k < planes; ++k) {
            const int64_t begin = k * step, end = begin + length;
            Vec<F> s{}, m{};
            if (begin < i) {
                const Bits<F> mask = ~below(begin + kCount - i) & (end < i ? below(end + kCount - i) : ~Bits<F>{});
                s = masked<F>(e, mask);
                m = masked<F>(moment_, mask);
            }
            const auto add_run = [&](int64_t stop) POOLSWAP_LAMBDA {
                for (; i + kCount <= stop; i += kCount) {
                    weigh(i, load(from + i));
                    s += e;
                    m += moment_;
                }
            };
            if (length <= kRun) {
                add_run(end);
            } else {
                LongSum<F> long_sum, long_moment;
                while (i + kCount <= end) {
                    long_sum.add(s);
                    long_moment.add(m);
                    s = m = Vec<F>{};
                    add_run(least(end, i + kRun));
                }
                long_sum.add(s);
                long_moment.add(m);
                s = long_sum.sum;
                m = long_moment.sum;
            }
            if (i < end) {
                weigh(i, i + kCount <= count ? load(from + i) : load_rest(from + i, count - i));
                const Bits<F> mask = below(end - i);
                s += masked<F>(e, mask);
                m += masked<F>(moment_, mask);
                i += kCount;
            }
            each_sum[k] = s;
            each_moment[k] = m;
        }
        exp.witness = own.witness;
        sum = across_lanes<F>(each_sum);
        moment = across_lanes<F>(each_moment);
    }

    // dx of plane k after `plane`, from its p and q; see planar_backward.h.
    template <bool kKept>
    POOLSWAP_INLINE void gradient(int64_t plane, int64_t k, F p, F q, F beta, F* dx) const {
        const F *const from = x.at(plane + k, 0, 0), *const keep = kept + k * pitch;
        const Vec<F> middle = centre;
        auto own = exp;
        strips<F>(size, [&](int64_t i) POOLSWAP_LAMBDA {
            Vec<F> x_ = load(from + i);
            const Vec<F> e = kKept ? load(keep + i) : own(x_);
            if (kCentred) x_ -= middle;
            store(dx + i, e * ((x_ * p - q) * beta + p));
        });
    }

  private:
    // The lanes before this one.
    POOLSWAP_INLINE Bits<F> below(int64_t lane) const {
        return (Bits<F>)load(reinterpret_cast<const F*>(lanes) + kCount - lane);
    }
};

template <bool kCentred, class F>
POOLSWAP_ONCE bool whole_planes_forward(const Problem& p, View<const F> x, View<F> y, const Tile& tile,
                                        const Shift<F>& shift, Arena arena) {
    constexpr int64_t kCount = Lanes<F>::kCount;
    WholePlanes<kCentred, F, kForwardRange<F>> pool(p, x, shift, arena);
    for (int64_t plane = tile.planes.begin; plane < tile.planes.end; plane += kCount) {
        const int64_t planes = least(kCount, tile.planes.end - plane);
        Vec<F> sum, moment;
        pool.template sums<false>(plane, planes, sum, moment);
        Vec<F> mean = moment / sum;
        if (kCentred) mean += fill<F>(shift.centre);
        if (planes == kCount && y.plane_pitch == 1)
            store(y.at(plane, 0, 0), mean);
        else
            for (int64_t i = 0; i < planes; ++i) *y.at(plane + i, 0, 0) = mean[i];
    }
    return pool.safe();
}

template <bool kCentred, class F>
POOLSWAP_ONCE bool whole_planes_backward(const Problem& p, View<const F> x, View<const F> g, View<F> dx,
                                         const Tile& tile, const Shift<F>& shift, Arena arena) {
    constexpr int64_t kCount = Lanes<F>::kCount;
    WholePlanes<kCentred, F, kBackwardRange<F>> pool(p, x, shift, arena);
    GradientWitness<F> witness;
    const auto walk = [&](auto keep) POOLSWAP_LAMBDA {
        for (int64_t plane = tile.planes.begin; plane < tile.planes.end; plane += kCount) {
            const int64_t planes = least(kCount, tile.planes.end - plane);
            Vec<F> sum, moment, grad{};
            pool.template sums<keep()>(plane, planes, sum, moment);
            for (int64_t i = 0; i < planes; ++i) grad[i] = *g.at(plane + i, 0, 0);
            witness.add(grad);
            const Vec<F> share = grad / sum, share_mean = share * (moment / sum);
            for (int64_t i = 0; i < planes; ++i)
                pool.template gradient<keep()>(plane, i, share[i], share_mean[i], shift.beta, dx.at(plane + i, 0, 0));
        }
    };
    if (pool.small())
        walk(std::true_type{});
    else
        walk(std::false_type{});
    return pool.safe() && witness.safe();
}

// channels_last images: pixels stream by, several at a time, and are added to the sums of all channels.
template <bool kCentred, class F, int kRange>
class WholeImages {
    static constexpr int64_t kCount = Lanes<F>::kCount, kPixels = 8, kRun = 64;  // pixels; as in WholePlanes
    const int64_t channels, pixels, strip_count;
    SharedExp<F, kRange> exp;
    const Vec<F> centre;
    LongSum<F>*const sum, *const moment;  // one a strip: strips overlap, their sums do not

    POOLSWAP_INLINE int64_t strip_start(int64_t strip) const { return least(strip * kCount, channels - kCount); }

    // `count` pixels, at most kPixels: those of one channel often share a set of the cache, which holds eight lines.
    template <bool kFew>
    POOLSWAP_INLINE void add_pixels(const F* from, int64_t count, bool first) {
        auto own = exp;
        const Vec<F> middle = centre;
        const int64_t row = channels;
        for (int64_t strip = 0; strip < strip_count; ++strip) {
            const F* at = from + strip_start(strip);
            Vec<F> s{}, m{};
            for (int64_t k = 0; k < count; ++k, at += row) {
                __builtin_prefetch(at + 4 * kCount);  // more streams than the processor follows
                Vec<F> x_ = load(at);
                const Vec<F> e = own(x_);
                if (kCentred) x_ -= middle;
                s += e;
                m += e * x_;
            }
            if (first) {
                sum[strip] = LongSum<F>{s, {}};
                moment[strip] = LongSum<F>{m, {}};
            } else if (kFew) {
                sum[strip].sum += s;
                moment[strip].sum += m;
            } else {
                sum[strip].add(s);
                moment[strip].add(m);
            }
        }
        exp.witness = own.witness;
    }

    template <bool kFew>
    POOLSWAP_INLINE void add_all(const F* from) {
        const int64_t groups = ceil_div(pixels, kPixels);
        for (int64_t group = 0, begin = 0; group < groups; ++group) {
            const int64_t end = (group + 1) * pixels / groups;
            add_pixels<kFew>(from + begin * channels, end - begin, group == 0);
            begin = end;
        }
    }

  public:
    WholeImages(const Problem& p, const Shift<F>& shift, Arena arena)
        : channels(p.channels), pixels(p.w.in), strip_count(ceil_div(channels, kCount)), exp(shift.slope, shift.c),
          centre(fill<F>(shift.centre)), sum(arena.take<LongSum<F>>(strip_count)),
          moment(arena.take<LongSum<F>>(strip_count)) {}

    static int64_t bytes(const Problem& p) { return 2 * Arena::bytes<LongSum<F>>(ceil_div(p.channels, kCount)); }

    bool safe() const { return exp.safe(); }

    POOLSWAP_INLINE void add_image(const F* from) {
        if (pixels <= kRun)
            add_all<true>(from);
        else
            add_all<false>(from);
    }

    void means(F* y) const {
        for (int64_t strip = 0; strip < strip_count; ++strip) {
            Vec<F> mean = moment[strip].sum / sum[strip].sum;
            if (kCentred) mean += centre;
            store(y + strip_start(strip), mean);
        }
    }

    // p and q take the places of the sums.
    bool share_out(const F* g) {
        GradientWitness<F> witness;
        for (int64_t strip = 0; strip < strip_count; ++strip) {
            const Vec<F> grad = load(g + strip_start(strip)), share = grad / sum[strip].sum;
            witness.add(grad);
            moment[strip].sum = share * (moment[strip].sum / sum[strip].sum);
            sum[strip].sum = share;
        }
        return witness.safe();
    }

    POOLSWAP_INLINE void gradient(const F* from, F beta, F* dx) const {
        auto own = exp;
        const Vec<F> middle = centre;
        for (int64_t pixel = 0; pixel < pixels; ++pixel)
            for (int64_t strip = 0; strip < strip_count; ++strip) {
                const int64_t at = pixel * channels + strip_start(strip);
                const Vec<F> p = sum[strip].sum, q = moment[strip].sum;
                Vec<F> x_ = load(from + at);
                const Vec<F> e = own(x_);
                if (kCentred) x_ -= middle;
                store(dx + at, e * ((x_ * p - q) * beta + p));
            }
    }
};

template <bool kCentred, class F>
POOLSWAP_ONCE bool whole_images_forward(const Problem& p, View<const F> x, View<F> y, const Tile& tile,
                                        const Shift<F>& shift, Arena arena) {
    WholeImages<kCentred, F, kForwardRange<F>> pool(p, shift, arena);
    for (int64_t plane = tile.planes.begin; plane < tile.planes.end; ++plane) {
        pool.add_image(x.at(plane, 0, 0));
        pool.means(y.at(plane, 0, 0));
    }
    return pool.safe();
}

template <bool kCentred, class F>
POOLSWAP_ONCE bool whole_images_backward(const Problem& p, View<const F> x, View<const F> g, View<F> dx,
                                         const Tile& tile, const Shift<F>& shift, Arena arena) {
    WholeImages<kCentred, F, kBackwardRange<F>> pool(p, shift, arena);
    for (int64_t plane = tile.planes.begin; plane < tile.planes.end; ++plane) {
        const F* const from = x.at(plane, 0, 0);
        pool.add_image(from);
        if (!pool.share_out(g.at(plane, 0, 0))) return false;
        pool.gradient(from, shift.beta, dx.at(plane, 0, 0));
    }
    return pool.safe();
}

}  // namespace poolswap::POOLSWAP_ISA
