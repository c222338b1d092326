// The plain C interface. Nothing here or below it knows of torch.
#pragma once

#include <cstdint>

namespace poolswap {

// Raised with every change of what the exported functions take, so that a caller of another version can tell.
constexpr int kInterface = 2;

// What the caller passes, every field an int64. An axis is {in, out, kernel, stride, leading padding, dilation}; the
// axes are depth, height, width, with {1, 1, 1, 1, 0, 1} for one that is not there.
struct Spec {
    int64_t dtype;          // 0 float32, 1 float64, 2 bfloat16, 3 float16
    int64_t channels_last;  // 0: planes x d x h x w. 1: planes x d x h x w x channels
    int64_t planes, channels;
    int64_t betas;  // 1 for all, or one a channel: of `channels`, or counted on through the planes again and again
    int64_t axes[3][6];
};

struct Isa {
    const char* name;
    int (*forward)(const Spec*, const double* betas, const void* x, void* y, int64_t threads);
    // dbetas: the gradient of every beta, or null where nobody wants it.
    int (*backward)(const Spec*, const double* betas, const void* g, const void* x, void* dx, double* dbetas,
                    int64_t threads);
};

}  // namespace poolswap
