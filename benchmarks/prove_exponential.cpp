// Proves what csrc/sums.h says of its encoder by trying all 2^32 floats: wherever it reports nothing, power 2^exponent is
// 2^(slope x) with the error that docs/cpu.md states, and NaN, infinities and values too far from 0 are all reported.
// benchmarks/check_kernel.sh builds and runs it.
#include <cmath>
#include <cstdio>

#include "sums.h"

using namespace poolswap::POOLSWAP_ISA;

namespace {

constexpr int kCount = Lanes<float>::kCount;
constexpr double kFar = 0x1p21;  // |z| up to which the bound holds
constexpr double kBound = 3e-7;

struct Verdict {
    long long silent = 0, wrong = 0;
    double error = 0;  // largest relative one of the exponential
};

Verdict try_all(float beta) {
    const double slope = slope_of<float>(beta);
    long long silent = 0, wrong = 0;
    double largest = 0;
#pragma omp parallel for reduction(+ : silent, wrong) reduction(max : largest) schedule(dynamic)
    for (int chunk = 0; chunk < 1 << 16; ++chunk)
        for (uint32_t low = 0; low < 1u << 16; low += kCount) {
            float x[kCount], exponent[kCount], power[kCount];
            for (int lane = 0; lane < kCount; ++lane) {
                const uint32_t bits = uint32_t(chunk) << 16 | (low + uint32_t(lane));
                memcpy(&x[lane], &bits, sizeof bits);
            }
            Encoder<float> encode(slope_of<float>(beta));
            const Element<float> element = encode(load(x));
            store(exponent, element.exponent);
            store(power, element.power);
            int32_t outside[kCount];
            memcpy(outside, &encode.outside, sizeof outside);
            for (int lane = 0; lane < kCount; ++lane) {
                const double z = double(x[lane]) * slope, n = double(exponent[lane]) - Lanes<float>::kMagic;
                if (outside[lane] & ~int32_t((1 << 22) - 1)) {
                    wrong += std::fabs(z) < kFar - 1;  // reported without need
                    continue;
                }
                ++silent;
                if (!(std::isfinite(x[lane]) && std::fabs(z) <= kFar + 1 && std::fabs(n - z) < 0.7)) {
                    ++wrong;
                    continue;
                }
                // exp2 is slow: of the values near 0, which are most, every 61st group is measured.
                if (std::fabs(z) < 0x1p-8 && (low / kCount + unsigned(chunk)) % 61) continue;
                largest = std::fmax(largest, std::fabs(double(power[lane]) / std::exp2(z - n) - 1));
            }
        }
    return {silent, wrong, largest};
}

}  // namespace

int main() {
    if (!kFused) {
        std::puts("this instruction set has no fused multiply-add, and does not use the encoder");
        return 0;
    }
    int failed = 0;
    for (float beta : {1.0f, -1.0f, 0.37f, 100.0f, 0x1p-32f, 0x1p32f, 0.6931472f}) {
        const Verdict v = try_all(beta);
        const bool good = v.wrong == 0 && v.silent > 0 && v.error <= kBound;
        std::printf("beta %-12g silent for %10lld  wrong %lld  relative error %.2e  %s\n", double(beta), v.silent, v.wrong,
                    v.error, good ? "ok" : "FAILED");
        std::fflush(stdout);
        failed += !good;
    }
    return failed != 0;
}
