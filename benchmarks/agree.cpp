// Compares the kernel with the definition, computed in double, over random geometries, layouts, types and distributions
// of values, forward and gradient. Needs no torch, so it also runs where there is none (aarch64 under qemu).
// benchmarks/check_kernel.sh builds and runs it: agree [seed] [problems]
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "problems.h"

#define POOLSWAP_SPACE_(isa) poolswap::isa
#define POOLSWAP_SPACE(isa) POOLSWAP_SPACE_(isa)

namespace POOLSWAP_SPACE(POOLSWAP_ISA) {
extern const poolswap::Isa kIsa;
}

namespace {

using poolswap::Spec;

// Errors allowed (docs/cpu.md), of the window's largest |x|, or of the sum of the windows' largest shares of |g|. And what
// the smallest numbers of the type may add.
constexpr double kTolerance[] = {1e-6, 5e-15, 1.01 / 256, 1.01 / 2048};
constexpr double kSmallest[] = {1e-30, 1e-250, 1e-30, 1e-3};

double get(const std::vector<char>& bytes, int64_t at, int64_t dtype) {
    if (dtype == 0) return double(reinterpret_cast<const float*>(bytes.data())[at]);
    if (dtype == 1) return reinterpret_cast<const double*>(bytes.data())[at];
    if (dtype == 3) return double(reinterpret_cast<const poolswap::Float16*>(bytes.data())[at]);
    const uint32_t word = uint32_t(reinterpret_cast<const uint16_t*>(bytes.data())[at]) << 16;
    float value;
    __builtin_memcpy(&value, &word, sizeof value);
    return double(value);
}

struct Expected {
    std::vector<double> y, y_scale, dx, dx_scale;
};

// Every window by its own maximum, as poolswap/ops/reference.py.
Expected expected(const Spec& spec, double beta, const std::vector<char>& x, const std::vector<char>& g) {
    const int64_t channels = spec.channels, inputs = input_count(spec), outputs = output_count(spec);
    const auto &d = spec.axes[0], &h = spec.axes[1], &w = spec.axes[2];
    Expected e{std::vector<double>(size_t(outputs)), std::vector<double>(size_t(outputs)),
               std::vector<double>(size_t(inputs)), std::vector<double>(size_t(inputs))};
    std::vector<int64_t> elements;
    std::vector<double> weights, exponents;
    int64_t window = 0;
    for (int64_t plane = 0; plane < spec.planes; ++plane)
        for (int64_t od = 0; od < d[1]; ++od)
            for (int64_t oh = 0; oh < h[1]; ++oh)
                for (int64_t ow = 0; ow < w[1]; ++ow)
                    for (int64_t channel = 0; channel < channels; ++channel, ++window) {
                        elements.clear();
                        for (int64_t a = 0; a < d[2]; ++a)
                            for (int64_t b = 0; b < h[2]; ++b)
                                for (int64_t c = 0; c < w[2]; ++c) {
                                    const int64_t i = od * d[3] - d[4] + a * d[5], j = oh * h[3] - h[4] + b * h[5];
                                    const int64_t k = ow * w[3] - w[4] + c * w[5];
                                    if (i < 0 || i >= d[0] || j < 0 || j >= h[0] || k < 0 || k >= w[0]) continue;
                                    elements.push_back((((plane * d[0] + i) * h[0] + j) * w[0] + k) * channels + channel);
                                }
                        if (elements.empty()) {
                            e.y[size_t(window)] = -INFINITY;
                            continue;
                        }
                        double top = get(x, elements[0], spec.dtype), sum = 0, mean_x = 0, mean_t = 0;
                        double largest = 0, share = 0;
                        for (const int64_t i : elements) {
                            const double value = get(x, i, spec.dtype);
                            top = beta < 0 ? std::min(top, value) : std::max(top, value);
                        }
                        weights.clear();
                        exponents.clear();
                        for (const int64_t i : elements) {
                            const double t = beta * (get(x, i, spec.dtype) - top);
                            exponents.push_back(t);
                            weights.push_back(std::exp(t));
                            sum += weights.back();
                        }
                        for (size_t i = 0; i < elements.size(); ++i) {
                            const double value = get(x, elements[i], spec.dtype);
                            weights[i] /= sum;
                            mean_x += weights[i] * value;
                            mean_t += weights[i] > 0 ? weights[i] * exponents[i] : 0;
                            largest = std::max(largest, std::fabs(value));
                        }
                        e.y[size_t(window)] = mean_x;
                        e.y_scale[size_t(window)] = largest;
                        const double grad = get(g, window, spec.dtype);
                        for (size_t i = 0; i < elements.size(); ++i) {
                            const double t = weights[i] > 0 ? exponents[i] - mean_t : 0;
                            e.dx[size_t(elements[i])] += grad * weights[i] * (1 + t);
                            share = std::max(share, std::fabs(grad) * weights[i] * (1 + std::fabs(t)));
                        }
                        for (const int64_t i : elements) e.dx_scale[size_t(i)] += share;
                    }
    return e;
}

const char* const kDistributions[] = {"normal",      "normal x 1e4", "normal + 1e6",      "normal x 30 + 500",
                                      "lognormal",   "spikes of 1e4", "channels 0.1..100", "relu x 64"};

std::vector<char> values(const Spec& spec, int64_t count, int distribution) {
    std::vector<char> bytes(size_t(count * (spec.dtype == 0 ? 4 : spec.dtype == 1 ? 8 : 2)));
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < count; ++i) {
        const double r = normal(generator);
        const double each[] = {r,
                               r * 1e4,
                               r + 1e6,
                               r * 30 + 500,
                               std::exp(3 * r),
                               generator() % 50 ? 0 : 1e4,
                               r * std::pow(10, double(i % spec.channels % 4) - 1),
                               r > 0 ? 64 * r : 0};
        const double limit = spec.dtype == 3 ? 6e4 : 1e30;  // float16 ends at 65504
        put(bytes, i, spec.dtype, std::min(limit, std::max(-limit, each[distribution])));
    }
    return bytes;
}

// The largest error as a share of what is allowed.
double worst(const std::vector<char>& got, const std::vector<double>& want, const std::vector<double>& scale, int64_t dtype) {
    double largest = 0;
    for (size_t i = 0; i < want.size(); ++i) {
        const double value = get(got, int64_t(i), dtype);
        if (value == want[i]) continue;
        const double share = std::fabs(value - want[i]) / (kTolerance[dtype] * (scale[i] + kSmallest[dtype]));
        largest = share >= 0 ? std::max(largest, share) : INFINITY;  // NaN is as wrong as can be
    }
    return largest;
}

}  // namespace

int main(int count, char** arguments) {
    const uint64_t seed = count > 1 ? strtoull(arguments[1], nullptr, 10) : 0;
    const int problems = count > 2 ? atoi(arguments[2]) : 1000;
    constexpr int kKinds = int(sizeof kDistributions / sizeof *kDistributions);
    double forward[2][kKinds] = {}, backward[2][kKinds] = {};
    int failed = 0;
    for (int i = 0; i < problems; ++i) {
        generator.seed(seed * 1000003 + uint64_t(i));
        Spec spec = draw();
        while (input_count(spec) > 20000) spec = draw();
        const double betas[] = {1, 1, 1, 1, 0, -1, 0.1, 7};
        const double beta = betas[generator() % 8];
        const int kind = i % kKinds;
        const auto x = values(spec, input_count(spec), kind), g = values(spec, output_count(spec), 0);
        std::vector<char> y(g.size()), dx(x.size());
        const auto& isa = POOLSWAP_SPACE(POOLSWAP_ISA)::kIsa;
        if (isa.forward(&spec, beta, x.data(), y.data(), 1) || isa.backward(&spec, beta, g.data(), x.data(), dx.data(), 1)) {
            std::printf("problem %d was refused\n", i);
            return 1;
        }
        // The kernel computes in float, where it is not double, and takes beta so.
        const Expected e = expected(spec, spec.dtype == 1 ? beta : double(float(beta)), x, g);
        const double errors[] = {worst(y, e.y, e.y_scale, spec.dtype), worst(dx, e.dx, e.dx_scale, spec.dtype)};
        for (const double error : errors)
            if (!(error <= 1)) {
                std::printf("problem %d of seed %llu (%s, dtype %d): %.3g times the tolerance\n", i,
                            static_cast<unsigned long long>(seed), kDistributions[kind], int(spec.dtype), error);
                ++failed;
            }
        if (spec.dtype < 2) {
            forward[spec.dtype][kind] = std::max(forward[spec.dtype][kind], errors[0] * kTolerance[spec.dtype]);
            backward[spec.dtype][kind] = std::max(backward[spec.dtype][kind], errors[1] * kTolerance[spec.dtype]);
        }
    }
    std::printf("%-20s float forward, gradient; double forward, gradient\n", "largest errors");
    for (int k = 0; k < kKinds; ++k)
        std::printf("%-20s %.1e %.1e; %.1e %.1e\n", kDistributions[k], forward[0][k], backward[0][k], forward[1][k],
                    backward[1][k]);
    std::printf("%s, %d problems, %d failed\n", POOLSWAP_SPACE(POOLSWAP_ISA)::kIsa.name, problems, failed);
    return failed != 0;
}
