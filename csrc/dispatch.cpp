// Chooses the best variant that this processor can run, and lets nothing through that it could not serve.
#include <cstdlib>
#include <cstring>

#include "kernel.h"
#include "validate.h"

#if defined(_WIN32)
#define POOLSWAP_EXPORT extern "C" __declspec(dllexport)
#else
#define POOLSWAP_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace poolswap {

namespace baseline {
extern const Isa kIsa;
}
#if defined(POOLSWAP_X86)
namespace x86_64_v3 {
extern const Isa kIsa;
}
namespace x86_64_v4 {
extern const Isa kIsa;
}
#endif

namespace {

const Isa& choose() {
    const char* wanted = std::getenv("POOLSWAP_CPU_ISA");  // to test the others on one machine
    const auto takes = [&](const Isa& isa) { return !wanted || !*wanted || std::strcmp(wanted, isa.name) == 0; };
#if defined(POOLSWAP_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4") && takes(x86_64_v4::kIsa)) return x86_64_v4::kIsa;
    if (__builtin_cpu_supports("x86-64-v3") && takes(x86_64_v3::kIsa)) return x86_64_v3::kIsa;
#endif
    (void)takes;
    return baseline::kIsa;
}

const Isa& isa() {
    static const Isa& chosen = choose();
    return chosen;
}

}  // namespace
}  // namespace poolswap

POOLSWAP_EXPORT int poolswap_interface() { return poolswap::kInterface; }

POOLSWAP_EXPORT const char* poolswap_isa() { return poolswap::isa().name; }

// Both return a Status of validate.h. The tensors are dense, in the layout that `spec` describes.
POOLSWAP_EXPORT int poolswap_forward(const poolswap::Spec* spec, const double* betas, const void* x, void* y,
                                     int64_t threads) {
    const poolswap::Status status = poolswap::validate(spec, betas, {x, y}, threads);
    if (status != poolswap::kDone || poolswap::is_empty(*spec)) return status;
    return poolswap::isa().forward(spec, betas, x, y, threads);
}

POOLSWAP_EXPORT int poolswap_backward(const poolswap::Spec* spec, const double* betas, const void* g, const void* x,
                                      void* dx, double* dbetas, int64_t threads) {
    poolswap::Status status = poolswap::validate(spec, betas, {g, x, dx}, threads);
    if (status == poolswap::kDone && dbetas && !poolswap::is_aligned(dbetas, sizeof *dbetas)) status = poolswap::kBadPointer;
    if (status != poolswap::kDone) return status;
    if (dbetas) std::memset(dbetas, 0, size_t(spec->betas) * sizeof *dbetas);
    return poolswap::is_empty(*spec) ? status : poolswap::isa().backward(spec, betas, g, x, dx, dbetas, threads);
}
