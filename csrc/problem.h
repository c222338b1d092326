// What is to be pooled, and the piece of it that one thread works on at a time.
#pragma once

#include <cstdint>

#include "vec.h"

namespace poolswap::POOLSWAP_ISA {

POOLSWAP_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
POOLSWAP_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
POOLSWAP_INLINE int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
POOLSWAP_INLINE int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

struct Range {
    int64_t begin, end;
    POOLSWAP_INLINE int64_t size() const { return end - begin; }
};

// One pooled dimension. Window o is the elements o * stride - padding + k * dilation that lie in [0, in).
struct Axis {
    int64_t in, out, kernel, stride, padding, dilation;

    POOLSWAP_INLINE int64_t extent() const { return (kernel - 1) * dilation + 1; }
    POOLSWAP_INLINE int64_t first(int64_t o) const { return o * stride - padding; }

    // The k of window o that hit an element.
    POOLSWAP_INLINE Range taps(int64_t o) const {
        const int64_t start = first(o);
        if (dilation == 1) {  // no division
            const int64_t from = most(0, -start);
            return {from, most(from, least(kernel, in - start))};
        }
        const int64_t begin = most(0, ceil_div(-start, dilation));
        return {begin, most(begin, least(kernel, floor_div(in - 1 - start, dilation) + 1))};
    }
    // The o whose element k exists.
    POOLSWAP_INLINE Range hits(int64_t k) const {
        const int64_t shift = k * dilation - padding;
        const int64_t begin = most(0, ceil_div(-shift, stride));
        return {begin, most(begin, least(out, floor_div(in - 1 - shift, stride) + 1))};
    }
    // Elements that the windows in `outputs` span.
    POOLSWAP_INLINE Range inputs_of(Range outputs) const {
        const int64_t begin = most(0, first(outputs.begin));
        return {begin, most(begin, least(in, first(outputs.end - 1) + extent()))};
    }
    // Windows that may hold an element in `inputs`.
    POOLSWAP_INLINE Range outputs_of(Range inputs) const {
        const int64_t begin = most(0, ceil_div(inputs.begin + padding - extent() + 1, stride));
        return {begin, most(begin, least(out, floor_div(inputs.end - 1 + padding, stride) + 1))};
    }
    // No element lies in two windows.
    POOLSWAP_INLINE bool disjoint() const { return kernel == 1 || (dilation == 1 && (out == 1 || kernel <= stride)); }
};

// `planes` blocks of d.in x h.in rows; a row is w.in pixels of `channels` neighbours each (1 unless channels_last).
struct Problem {
    int64_t planes, channels;
    Axis d, h, w;

    bool disjoint() const { return d.disjoint() && h.disjoint() && w.disjoint(); }
};

// What one thread works on at a time: forward the outputs to compute, backward the inputs whose gradient is computed,
// of one lane group (staging.h).
struct Tile {
    int64_t group;
    Range d, h;
};

// A thread's memory, handed out in aligned pieces.
struct Arena {
    char* next;

    template <class F>
    POOLSWAP_INLINE F* take(int64_t count) {
        F* piece = reinterpret_cast<F*>(next);
        next += bytes<F>(count);
        return piece;
    }
    template <class F>
    static constexpr int64_t bytes(int64_t count) {
        return (count * int64_t(sizeof(F)) + 63) / 64 * 64;
    }
};

template <class F>
POOLSWAP_INLINE void set_all(F* to, F value, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = value;
}

}  // namespace poolswap::POOLSWAP_ISA
