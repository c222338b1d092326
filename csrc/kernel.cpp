// One instruction set's variant of the kernels; CMake compiles this file once for each.
#include <omp.h>

#include "driver.h"
#include "kernel.h"

#define POOLSWAP_STRING_(x) #x
#define POOLSWAP_STRING(x) POOLSWAP_STRING_(x)

namespace poolswap::POOLSWAP_ISA {
namespace {

Axis axis(const int64_t (&a)[6]) { return {a[0], a[1], a[2], a[3], a[4], a[5]}; }

// Calls fn(driver) with the element type and layout of `spec`; 0 done, 1 out of memory, 2 unknown dtype.
template <class Fn>
int dispatch(const Spec& spec, const double* betas, Fn&& fn) {
    const Problem problem{spec.planes, spec.channels, axis(spec.axes[0]), axis(spec.axes[1]), axis(spec.axes[2])};
    if (problem.planes * problem.channels == 0) return 0;
    const auto layout = [&](auto zero) {
        using T = decltype(zero);
        return spec.channels_last ? fn(Driver<T, true>(problem, betas, spec.betas), zero)
                                  : fn(Driver<T, false>(problem, betas, spec.betas), zero);
    };
    switch (spec.dtype) {
        case 0:
            return layout(float{}) ? 0 : 1;
        case 1:
            return layout(double{}) ? 0 : 1;
        case 2:
            return layout(BFloat16{}) ? 0 : 1;
        case 3:
            return layout(Float16{}) ? 0 : 1;
        default:
            return 2;
    }
}

int forward(const Spec* spec, const double* betas, const void* x, void* y, int64_t threads) {
    return dispatch(*spec, betas, [&](const auto& driver, auto zero) {
        using T = decltype(zero);
        return driver.forward(static_cast<const T*>(x), static_cast<T*>(y), threads);
    });
}

int backward(const Spec* spec, const double* betas, const void* g, const void* x, void* dx, double* dbetas,
             int64_t threads) {
    return dispatch(*spec, betas, [&](const auto& driver, auto zero) {
        using T = decltype(zero);
        return driver.backward(static_cast<const T*>(g), static_cast<const T*>(x), static_cast<T*>(dx), dbetas, threads);
    });
}

}  // namespace

extern const Isa kIsa;
const Isa kIsa{POOLSWAP_STRING(POOLSWAP_ISA), forward, backward};

}  // namespace poolswap::POOLSWAP_ISA
