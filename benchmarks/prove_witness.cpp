// Proves the witness of the shared shift by trying all 2^32 floats: wherever it stays silent, e must be the right power
// and lie where no sum over a window can overflow or lose its small terms. benchmarks/check_kernel.sh builds and runs it.
#include <cmath>
#include <cstdio>

#include "vec.h"

using namespace poolswap::POOLSWAP_ISA;

namespace {

constexpr int kCount = Lanes<float>::kCount;

struct Verdict {
    long long silent = 0, wrong = 0;
    double worst = 0;  // relative error of e
};

// c is the integer that the exponent is shifted by, as in Shift::c.
template <int kRange>
Verdict try_all(float beta, float c) {
    const float slope = float(double(beta) * Lanes<double>::kLog2e);
    const double half_step = 0.5 / SharedExp<float, kRange>::Power::kSteps;
    long long silent = 0, wrong = 0;
    double worst = 0;
#pragma omp parallel for reduction(+ : silent, wrong) reduction(max : worst) schedule(dynamic)
    for (int chunk = 0; chunk < 1 << 16; ++chunk)
        for (uint32_t low = 0; low < 1u << 16; low += kCount) {
            float x[kCount], e[kCount];
            for (int lane = 0; lane < kCount; ++lane) {
                const uint32_t bits = uint32_t(chunk) << 16 | (low + uint32_t(lane));
                memcpy(&x[lane], &bits, sizeof bits);
            }
            SharedExp<float, kRange> exp(slope, c);
            store(e, exp(load(x)));
            const Bits<float> outside = exp.witness & ~uint32_t(2 * exp.kReach - 1);
            uint32_t witness[kCount];
            memcpy(witness, &outside, sizeof witness);
            for (int lane = 0; lane < kCount; ++lane) {
                if (witness[lane]) continue;
                ++silent;
                // The product is exact in double; c is subtracted with one rounding far below a float's.
                const double z = double(x[lane]) * double(slope) - double(c);
                const bool inside = std::isfinite(x[lane]) && z >= -kRange - half_step &&
                                    z <= kRange - half_step + 1e-6 && e[lane] >= std::ldexp(0.7f, -kRange) &&
                                    e[lane] <= std::ldexp(1.0f, kRange);
                wrong += !inside;
                if (inside && (std::fabs(c) > 1 || (low / kCount + unsigned(chunk)) % 61 == 0)) {
                    const double error = std::fabs(double(e[lane]) / std::exp2(z) - 1);
                    worst = error > worst ? error : worst;
                }
            }
        }
    return {silent, wrong, worst};
}

template <int kRange>
int report(float beta, float c) {
    const Verdict verdict = try_all<kRange>(beta, c);
    // Of normal floats: the polynomial's 7.5e-8 at most, and half a last bit for each rounding.
    const bool good = verdict.wrong == 0 && verdict.silent > 0 && verdict.worst < 3e-7;
    std::printf("range %2d  beta %-12g c %-8g  silent for %10lld  wrong %lld  worst relative error of e %.2e  %s\n", kRange,
                double(beta), double(c), verdict.silent, verdict.wrong, verdict.worst, good ? "ok" : "FAILED");
    std::fflush(stdout);
    return !good;
}

}  // namespace

int main() {
    int failed = 0;
    for (float beta : {1.0f, -1.0f, 0.37f, 100.0f, 0x1p-32f, 0x1p32f}) failed += report<64>(beta, 0);
    const float farthest = float(SharedExp<float, 64>::kFarthest);
    for (float c : {1.0f, -70.0f, farthest / 2 + 1, 1 - farthest}) failed += report<64>(1.0f, c);
    failed += report<8>(1.0f, 0) + report<8>(1.0f, farthest - 1) + report<8>(-0.01f, 300.0f);
    return failed != 0;
}
