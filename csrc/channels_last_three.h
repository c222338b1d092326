// The gradient under one row of 3/2 or 3/1 windows of a channels_last image in one pass: p and q of its windows, and dx
// of the input rows that no later window row holds. See planar_backward.h for p, q and the formula.
#pragma once

#include "channels_last.h"
#include "gradient.h"

namespace poolswap::POOLSWAP_ISA {

// Fetches what will be read, or written, soon: from its beginning, kVectors a step.
template <int kVectors, bool kWritten>
class Ahead {
    const char* next;

  public:
    template <class F>
    explicit Ahead(const F* from) : next(reinterpret_cast<const char*>(from)) {}

    POOLSWAP_INLINE void step() {
#pragma GCC unroll 2
        for (int k = 0; k < kVectors; ++k, next += POOLSWAP_VECTOR_BYTES) __builtin_prefetch(next, kWritten);
    }
};

// What a window hands on to the next one: the sums of the columns that both hold, its own p and q, and p and q of the
// columns that more windows hold, added up over the window rows.
template <int kStride, class F>
struct Passed {
    Sums<F> columns[3 - kStride], own, open[2];
};

// One row of windows.
template <int kStride, bool kCentred, class F>
struct ThreeRow {
    static constexpr int kShared = 3 - kStride;  // rows, or columns, that two neighbouring windows share
    RowGroup<F, RowShape<kShared, 3, kStride, 1, true>> rows;
    F* dx[kStride];  // of the first rows
    const F* g;
    Sums<F>* shares;                // p and q: pieces of window 0, of window 1, ..
    const Sums<F>* above[kShared];  // the same of the window rows before that hold the first row
    F beta;

    // dx of the columns that no window after this one holds; its first column starts at `at`, or outside.
    template <bool kFirst, bool kLines>
    POOLSWAP_INLINE void complete(Passed<kStride, F>& passed, int64_t at, int64_t share_at, int64_t column,
                                  Vec<F> centre) const {
        Sums<F>(&open)[2] = passed.open;
        Sums<F> down = passed.own;
#pragma GCC unroll 2
        for (int k = 0; k < kShared; ++k) down.add(above[k][share_at]);
        if constexpr (kStride == 1) {
            if (kFirst) finish<0, kLines>(at, centre, down, open[0], open[1]);
            open[0] = open[1];
            open[1] = down;
        } else {
            if (kFirst) {
                finish<0, kLines>(at, centre, down, open[0]);
                finish<1, kLines>(at, centre, passed.own, open[1]);
            }
            finish<0, kLines>(at + column, centre, down);
            finish<1, kLines>(at + column, centre, passed.own);
            open[0] = down;
            open[1] = passed.own;
        }
    }

    template <int kRow, bool kLines = false, class... More>
    POOLSWAP_INLINE void finish(int64_t at, Vec<F> centre, Sums<F> all, const More&... more) const {
        (all.add(more), ...);
        Vec<F> x = load(rows.rows[kRow].x + at);
        if (kCentred) x -= centre;
        const Vec<F> value = load(rows.rows[kRow].e + at) * ((x * all.sum - all.moment) * beta + all.sum);
        if (kLines)
            store_line(dx[kRow] + at, value);
        else
            store(dx[kRow] + at, value);
    }
};

template <int kStride, bool kCentred, class F>
class ThreeRowGradient {
    using Windows = ThreeRow<kStride, kCentred, F>;
    // Windows that are walked for one piece before the next: what they hand on stays in registers. The memory of that
    // many is fetched in its own order meanwhile, because the processor does not foresee this one.
    static constexpr int64_t kBlock = 6;
    const Axis& w;
    const int64_t channels, pitch;  // pieces of a pixel
    Passed<kStride, F>* const passed;

  public:
    static constexpr int kShared = Windows::kShared;

    ThreeRowGradient(const Problem& p, Arena& arena)
        : w(p.w), channels(p.channels), pitch(piece_count<F>(p.channels)),
          passed(arena.take<Passed<kStride, F>>(pitch)) {}
    static int64_t bytes(const Problem& p) { return Arena::bytes<Passed<kStride, F>>(piece_count<F>(p.channels)); }

    // Windows of which only the first may lack its first column, and only the last its last one.
    static bool fits(const Axis& w) {
        return w.kernel == 3 && w.dilation == 1 && w.stride == kStride && w.padding <= 1 && w.out >= 3 &&
               w.first(w.out - 1) + 1 < w.in;
    }

    // dx is written by whole lines of the cache if `lines`.
    template <class Exp>
    POOLSWAP_INLINE void run(const Windows& row, Exp& exp, Vec<F> centre, GradientWitness<F>& witness,
                             bool lines) const {
        begin(row, exp, centre);
        walk<kNone, true>(row, {0, 1}, exp, centre, witness);
        if (w.first(0) < 0)
            walk<kCut, true>(row, {1, 2}, exp, centre, witness);
        else
            walk<kWhole, true>(row, {1, 2}, exp, centre, witness);
        const int64_t stop = w.first(w.out - 1) + 2 < w.in ? w.out : w.out - 1;
        for (int64_t j = 2; j < stop; j += kBlock) {
            const Range range{j, least(stop, j + kBlock)};
            if (kWritesLines && lines)
                walk<kWhole, true, kWritesLines>(row, range, exp, centre, witness);
            else
                walk<kWhole, true>(row, range, exp, centre, witness);
        }
        if (stop < w.out) walk<kWhole, false>(row, {stop, w.out}, exp, centre, witness);
        end(row, centre);
    }

  private:
    enum Before { kNone, kCut, kWhole };  // the window before: none, one without its first column, one with it

    // The columns that the first window would share with one before it.
    template <class Exp>
    POOLSWAP_INLINE void begin(const Windows& row, Exp& exp, Vec<F> centre) const {
        pieces<F>(channels, [&](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
            Passed<kStride, F> now{};
            for (int64_t k = most(0, -w.first(0)); k < kShared; ++k)
                row.rows.template add<kCentred>((w.first(0) + k) * channels + v, exp, centre, now.columns[k].sum,
                                                now.columns[k].moment);
            passed[piece] = now;
        });
    }

    // p and q of some windows, the last one without its last column if not kLast, and dx of what those before them
    // complete.
    template <Before kBefore, bool kLast, bool kLines = false, class Exp>
    POOLSWAP_INLINE void walk(const Windows& row_, Range range, Exp& exp_, Vec<F> centre,
                              GradientWitness<F>& witness_) const {
        constexpr int kNew = kLast ? kStride : kStride - 1;
        const Windows row = row_;  // local variables, which no store of a vector can change
        auto exp = exp_;
        auto witness = witness_;
        const int64_t column = channels, step = kStride * column, share_step = pitch;
        const int64_t begin = w.first(range.begin) * column, next = begin + kBlock * step;
        Ahead<1, false> g_ahead(row.g + (range.begin + kBlock) * column);
        Ahead<kStride, false> x_ahead(row.rows.rows[kShared].x + next + kShared * column);
        Ahead<kStride, false> last_x_ahead(row.rows.rows[2].x + next + kShared * column);
        Ahead<kStride, true> dx_ahead(row.dx[0] + next), last_dx_ahead(row.dx[kStride - 1] + next);
        pieces<F>(column, [&](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
            Passed<kStride, F> now = passed[piece];
            int64_t at = begin + v, share_at = range.begin * share_step + piece;
            const F* g = row.g + range.begin * column + v;
            for (int64_t j = range.begin; j < range.end; ++j) {
                g_ahead.step();
                x_ahead.step();
                if (kStride == 2) last_x_ahead.step();
                if (!kLines) {
                    dx_ahead.step();
                    if (kStride == 2) last_dx_ahead.step();
                }
                Sums<F> total = now.columns[0], fresh[kStride]{};
                if constexpr (kShared == 2) total.add(now.columns[1]);
#pragma GCC unroll 2
                for (int k = 0; k < kNew; ++k) {
                    row.rows.template add<kCentred>(at + (kShared + k) * column, exp, centre, fresh[k].sum,
                                                    fresh[k].moment);
                    total.add(fresh[k]);
                }
                if constexpr (kShared == 2) now.columns[0] = now.columns[1];
                now.columns[kShared - 1] = fresh[kStride - 1];
                // The division takes its time: meanwhile, the window before.
                const Vec<F> grad = load(g), inverse = F(1) / total.sum;
                if constexpr (kBefore != kNone)
                    row.template complete<kBefore == kWhole, kLines>(now, at - step, share_at - share_step, column,
                                                                     centre);
                const Vec<F> share = grad * inverse;
                witness.add(grad);
                row.shares[share_at] = now.own = {share, share * (total.moment * inverse)};
                at += step;
                share_at += share_step;
                g += column;
            }
            passed[piece] = now;
        });
        exp_.witness = exp.witness;
        witness_ = witness;
    }

    // The columns that the last window completes, and those behind it.
    POOLSWAP_INLINE void end(const Windows& row, Vec<F> centre) const {
        const int64_t first = w.first(w.out - 1), column = channels;
        pieces<F>(column, [&](int64_t piece, int64_t v) POOLSWAP_LAMBDA {
            Passed<kStride, F> now = passed[piece];
            const int64_t at = first * column + v, last = at + 2 * column;
            row.template complete<true, false>(now, at, (w.out - 1) * pitch + piece, column, centre);
            if constexpr (kStride == 1) row.template finish<0>(at + column, centre, now.open[0], now.open[1]);
            if (first + 2 < w.in) {
                row.template finish<0>(last, centre, now.open[kStride == 1 ? 1 : 0]);
                if constexpr (kStride == 2) row.template finish<1>(last, centre, now.open[1]);
            }
        });
        const int64_t rest = least(w.in, first + 3);
        for (F* to : row.dx) set_all(to + rest * column, F(0), (w.in - rest) * column);
    }
};

}  // namespace poolswap::POOLSWAP_ISA
