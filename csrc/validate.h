// Whether the kernel can serve what the caller passes. Nothing behind this header checks again.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernel.h"

namespace poolswap {

// What an entry of the C interface returns.
enum Status : int {
    kDone = 0,
    kNoMemory = 1,
    kBadDtype = 2,    // or a layout that is neither 0 nor 1
    kBadPointer = 3,  // null, or not aligned to its elements
    kBadCount = 4,    // of planes, channels, input elements or threads: negative, or beyond what can be addressed
    kBadWindow = 5,   // a kernel, stride, padding or dilation that no pooling layer has
    kBadOutput = 6,   // an output size whose last window starts behind the input's end, or leaves room for another
    kBadBetas = 7,    // neither one beta nor one for each channel
};

// Far above any tensor, far below where a product or a sum of the kernel's index arithmetic would overflow.
constexpr int64_t kMostElements = int64_t(1) << 44;
constexpr int64_t kMostExtent = int64_t(1) << 31;
constexpr int64_t kMostVoid = 64;  // taps of a window beyond as many as the input has elements: each costs time
constexpr int64_t kMostThreads = 1 << 12;

namespace detail {

inline bool between(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

// Axis {in, out, kernel, stride, leading padding, dilation}. torch's rule: padding of at most half the window, and the
// last window starts on an element or on leading padding. So each axis has at most in + padding windows.
inline Status check_axis(const int64_t (&axis)[6]) {
    const int64_t in = axis[0], out = axis[1], kernel = axis[2], stride = axis[3], padding = axis[4], dilation = axis[5];
    if (!between(in, 1, kMostElements)) return kBadCount;
    for (const int64_t size : {kernel, stride, dilation})
        if (!between(size, 1, kMostExtent)) return kBadWindow;
    const int64_t extent = (kernel - 1) * dilation + 1;  // below 2^62 by what was just checked
    if (extent > kMostExtent + kMostElements || !between(padding, 0, extent / 2)) return kBadWindow;
    if (!between(out, 1, (in + padding - 1) / stride + 1)) return kBadOutput;
    if (out * stride - padding + extent <= in) return kBadOutput;  // another window would lie within the input
    return kernel > in + kMostVoid ? kBadWindow : kDone;
}

// `total` times every size, or -1 beyond kMostElements.
inline int64_t product(int64_t total, std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes) {
        if (size > kMostElements / total) return -1;
        total *= size;
    }
    return total;
}

}  // namespace detail

// Whether there is nothing to compute: a batch, or channels, of none.
inline bool is_empty(const Spec& spec) { return spec.planes == 0 || spec.channels == 0; }

inline bool is_aligned(const void* pointer, int64_t size) {
    return pointer && reinterpret_cast<uintptr_t>(pointer) % uintptr_t(size) == 0;
}

inline Status validate(const Spec* spec, const double* betas, std::initializer_list<const void*> tensors, int64_t threads) {
    constexpr int64_t kSizes[] = {4, 8, 2, 2};  // bytes of an element, by dtype
    using detail::between;
    if (!spec) return kBadPointer;
    if (!between(spec->dtype, 0, 3) || !between(spec->channels_last, 0, 1)) return kBadDtype;
    if (!between(threads, 1, kMostThreads)) return kBadCount;
    if (!between(spec->planes, 0, kMostElements) || !between(spec->channels, 0, kMostElements)) return kBadCount;
    if (!spec->channels_last && spec->channels > 1) return kBadCount;  // planes of their own there
    if (spec->betas != 1) {  // one a channel: the same ones again and again through contiguous planes
        const bool fits = spec->channels_last ? spec->betas == spec->channels
                                              : spec->betas > 0 ? spec->planes % spec->betas == 0 : spec->betas == spec->planes;
        if (!fits) return kBadBetas;
    }
    if (is_empty(*spec)) return kDone;
    for (const auto& axis : spec->axes)
        if (const Status status = detail::check_axis(axis)) return status;
    const auto& [d, h, w] = spec->axes;
    const int64_t outer = detail::product(1, {spec->planes, spec->channels});
    if (outer < 0 || detail::product(outer, {d[0], h[0], w[0]}) < 0) return kBadCount;
    if (detail::product(outer, {d[1], h[1], w[1]}) < 0) return kBadOutput;
    for (const void* tensor : tensors)
        if (!is_aligned(tensor, kSizes[spec->dtype])) return kBadPointer;
    return is_aligned(betas, sizeof *betas) ? kDone : kBadPointer;
}

}  // namespace poolswap
