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

// Errors allowed (docs/cpu.md), of the window's largest |x|, or of the sum of the windows' largest shares of |g|, or of the
// sum over the windows of |g| times the plane's range times the window's deviation, or times 1 / |beta| where that is more
// (the range again, for |beta| below 1 / 4096; there dx loses a factor of |beta| times the range, too). And what the
// smallest numbers of the type may add.
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
    std::vector<double> y, y_scale, dx, dx_scale, both_scale, dbeta, dbeta_scale;
};

// Every window by its own maximum, as poolswap/ops/reference.py.
Expected expected(const Spec& spec, const std::vector<double>& betas, const std::vector<char>& x, const std::vector<char>& g) {
    const int64_t channels = spec.channels, inputs = input_count(spec), outputs = output_count(spec);
    const auto &d = spec.axes[0], &h = spec.axes[1], &w = spec.axes[2];
    Expected e{std::vector<double>(size_t(outputs)), std::vector<double>(size_t(outputs)),
               std::vector<double>(size_t(inputs)),  std::vector<double>(size_t(inputs)),
               std::vector<double>(size_t(inputs)),  std::vector<double>(betas.size()),
               std::vector<double>(betas.size())};
    std::vector<double> ranges;
    const int64_t size = d[0] * h[0] * w[0];
    for (int64_t plane = 0; plane < spec.planes; ++plane)
        for (int64_t channel = 0; channel < channels; ++channel) {
            double low = INFINITY, high = -INFINITY;
            for (int64_t i = 0; i < size; ++i) {
                const double value = get(x, (plane * size + i) * channels + channel, spec.dtype);
                low = std::min(low, value), high = std::max(high, value);
            }
            ranges.push_back(high - low);
        }
    std::vector<int64_t> elements;
    std::vector<double> weights, exponents;
    int64_t window = 0;
    for (int64_t plane = 0; plane < spec.planes; ++plane)
        for (int64_t od = 0; od < d[1]; ++od)
            for (int64_t oh = 0; oh < h[1]; ++oh)
                for (int64_t ow = 0; ow < w[1]; ++ow)
                    for (int64_t channel = 0; channel < channels; ++channel, ++window) {
                        const size_t which = size_t((spec.channels_last ? channel : plane) % spec.betas);
                        const double beta = betas[which];
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
                        double top = get(x, elements[0], spec.dtype), largest = 0, share = 0;
                        long double sum = 0, mean_x = 0, mean_t = 0;  // of windows as large as a plane
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
                            weights[i] /= double(sum);
                            mean_x += weights[i] * value;
                            mean_t += weights[i] > 0 ? weights[i] * exponents[i] : 0;
                            largest = std::max(largest, std::fabs(value));
                        }
                        e.y[size_t(window)] = double(mean_x);
                        e.y_scale[size_t(window)] = largest;
                        const double grad = get(g, window, spec.dtype);
                        for (size_t i = 0; i < elements.size(); ++i) {
                            const double t = weights[i] > 0 ? exponents[i] - double(mean_t) : 0;
                            e.dx[size_t(elements[i])] += grad * weights[i] * (1 + t);
                            share = std::max(share, std::fabs(grad) * weights[i] * (1 + std::fabs(t)));
                        }
                        for (const int64_t i : elements) e.dx_scale[size_t(i)] += share;
                        double below = 0, variance = 0;  // counted from the top: equal values have none
                        for (size_t i = 0; i < elements.size(); ++i) below += weights[i] * (get(x, elements[i], spec.dtype) - top);
                        for (size_t i = 0; i < elements.size(); ++i) {
                            const double deviation = get(x, elements[i], spec.dtype) - top - below;
                            variance += weights[i] * deviation * deviation;
                        }
                        const double range = ranges[size_t(plane * channels + channel)];
                        const bool near_zero = std::fabs(beta) < 1.0 / 4096;
                        const double step = near_zero ? range : 1 / std::fabs(beta);
                        const double reach = near_zero ? std::max(1.0, std::fabs(beta) * range) : 1.0;
                        for (const int64_t i : elements) e.both_scale[size_t(i)] += share * reach;
                        e.dbeta[which] += grad * variance;
                        e.dbeta_scale[which] += std::fabs(grad) * range * std::max(std::sqrt(variance), step);
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
template <class At>
double worst_of(At&& at, const std::vector<double>& want, const std::vector<double>& scale, double tolerance, double smallest) {
    double largest = 0;
    for (size_t i = 0; i < want.size(); ++i) {
        const double value = at(int64_t(i));
        if (value == want[i]) continue;
        const double share = std::fabs(value - want[i]) / (tolerance * (scale[i] + smallest));
        largest = share >= 0 ? std::max(largest, share) : INFINITY;  // NaN is as wrong as can be
    }
    return largest;
}
double worst(const std::vector<char>& got, const std::vector<double>& want, const std::vector<double>& scale, int64_t dtype) {
    return worst_of([&](int64_t i) { return get(got, i, dtype); }, want, scale, kTolerance[dtype], kSmallest[dtype]);
}
// The gradient of beta is computed in float or double, and stored as double.
double worst(const std::vector<double>& got, const std::vector<double>& want, const std::vector<double>& scale, int64_t dtype) {
    return worst_of([&](int64_t i) { return got[size_t(i)]; }, want, scale, kTolerance[dtype == 1], kSmallest[dtype == 1]);
}

}  // namespace

int main(int count, char** arguments) {
    const uint64_t seed = count > 1 ? strtoull(arguments[1], nullptr, 10) : 0;
    const int problems = count > 2 ? atoi(arguments[2]) : 1000;
    constexpr int kKinds = int(sizeof kDistributions / sizeof *kDistributions);
    double forward[2][kKinds] = {}, backward[2][kKinds] = {}, learnt[2][kKinds] = {};
    int failed = 0;
    for (int i = 0; i < problems; ++i) {
        generator.seed(seed * 1000003 + uint64_t(i));
        Spec spec = draw();
        while (input_count(spec) > 20000) spec = draw();
        auto betas = random_betas(spec, {1, 1, 1, 1, 0, -1, 0.1, 7, 1e-3, 1e-5});
        const int kind = i % kKinds;
        const auto x = values(spec, input_count(spec), kind), g = values(spec, output_count(spec), 0);
        std::vector<char> y(g.size()), dx(x.size()), both(x.size());
        std::vector<double> dbetas(betas.size());
        const auto& isa = POOLSWAP_SPACE(POOLSWAP_ISA)::kIsa;
        if (isa.forward(&spec, betas.data(), x.data(), y.data(), 1) ||
            isa.backward(&spec, betas.data(), g.data(), x.data(), dx.data(), nullptr, 1) ||
            isa.backward(&spec, betas.data(), g.data(), x.data(), both.data(), dbetas.data(), 1)) {
            std::printf("problem %d was refused\n", i);
            return 1;
        }
        // The kernel computes in float, where it is not double, and takes beta so.
        if (spec.dtype != 1)
            for (double& beta : betas) beta = double(float(beta));
        const Expected e = expected(spec, betas, x, g);
        const double errors[] = {worst(y, e.y, e.y_scale, spec.dtype), worst(dx, e.dx, e.dx_scale, spec.dtype),
                                 worst(both, e.dx, e.both_scale, spec.dtype), worst(dbetas, e.dbeta, e.dbeta_scale, spec.dtype)};
        const char* const names[] = {"y", "dx", "dx with dbeta", "dbeta"};
        for (int which = 0; which < 4; ++which)
            if (!(errors[which] <= 1)) {
                std::printf("problem %d of seed %llu (%s, dtype %d): %s %.3g times the tolerance\n", i,
                            static_cast<unsigned long long>(seed), kDistributions[kind], int(spec.dtype), names[which],
                            errors[which]);
                ++failed;
            }
        if (spec.dtype < 2) {
            forward[spec.dtype][kind] = std::max(forward[spec.dtype][kind], errors[0] * kTolerance[spec.dtype]);
            backward[spec.dtype][kind] = std::max(backward[spec.dtype][kind], errors[1] * kTolerance[spec.dtype]);
            learnt[spec.dtype][kind] = std::max(learnt[spec.dtype][kind], errors[3] * kTolerance[spec.dtype]);
        }
    }
    std::printf("%-20s float forward, gradients of x and beta; double\n", "largest errors");
    for (int k = 0; k < kKinds; ++k)
        std::printf("%-20s %.1e %.1e %.1e; %.1e %.1e %.1e\n", kDistributions[k], forward[0][k], backward[0][k], learnt[0][k],
                    forward[1][k], backward[1][k], learnt[1][k]);
    std::printf("%s, %d problems, %d failed\n", POOLSWAP_SPACE(POOLSWAP_ISA)::kIsa.name, problems, failed);
    return failed != 0;
}
