// Random problems, and tensors for them, for the checks of benchmarks/check_kernel.sh to share.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <vector>

#include "float16.h"
#include "kernel.h"

namespace {

constexpr int64_t kLargest = 200000;  // elements of an input

std::mt19937_64 generator;

[[maybe_unused]] int64_t pick(std::initializer_list<int64_t> values) {
    return values.begin()[generator() % values.size()];
}

// {in, out, kernel, stride, padding, dilation}; the output size is torch's, with or without ceil_mode.
[[maybe_unused]] bool draw_axis(int64_t (&axis)[6], bool usual, int64_t usual_kernel, int64_t usual_stride) {
    const int64_t in = pick({1, 2, 3, 4, 5, 7, 8, 13, 14, 15, 16, 17, 28, 31, 32, 33, 35, 56, 64, 65, 70, 112});
    const bool whole = !usual && generator() % 6 == 0;
    const int64_t kernel = whole ? in : usual ? usual_kernel : pick({1, 2, 3, 3, 4, 5, 7});
    const int64_t stride = usual ? usual_stride : pick({1, 1, 2, 2, 3, 4, 7});
    const int64_t dilation = usual || whole ? 1 : pick({1, 1, 1, 2, 3});
    const int64_t extent = (kernel - 1) * dilation + 1;
    const int64_t padding = whole ? 0 : usual ? int64_t(generator() % 2) : int64_t(generator() % uint64_t(extent / 2 + 1));
    const int64_t slack = in + 2 * padding - extent;
    if (slack < 0) return false;
    int64_t out = slack / stride + 1;
    if (generator() % 3 == 0 && slack % stride && out * stride < in + padding) ++out;
    const int64_t values[6] = {in, out, kernel, stride, padding, dilation};
    for (int i = 0; i < 6; ++i) axis[i] = values[i];
    return true;
}

inline int64_t input_count(const poolswap::Spec& spec) {
    return spec.planes * spec.channels * spec.axes[0][0] * spec.axes[1][0] * spec.axes[2][0];
}

inline int64_t output_count(const poolswap::Spec& spec) {
    return spec.planes * spec.channels * spec.axes[0][1] * spec.axes[1][1] * spec.axes[2][1];
}

[[maybe_unused]] poolswap::Spec draw() {
    poolswap::Spec spec{};
    for (;;) {
        const int dims = int(pick({1, 2, 2, 2, 3}));
        const bool usual = generator() % 2;
        const int64_t kernel = pick({2, 3, 3}), stride = kernel == 2 ? 2 : pick({1, 2});
        bool fits = true;
        for (int i = 0; i < 3; ++i) {
            const int64_t none[6] = {1, 1, 1, 1, 0, 1};
            for (int k = 0; k < 6; ++k) spec.axes[i][k] = none[k];
            if (i >= 3 - dims) fits &= draw_axis(spec.axes[i], usual, kernel, stride);
        }
        spec.dtype = pick({0, 0, 0, 1, 2, 3});
        spec.channels_last = int64_t(generator() % 2);
        spec.planes = pick({1, 2, 3, 5, 17, 40});
        spec.channels = spec.channels_last ? pick({1, 3, 8, 16, 17, 33, 64, 300}) : 1;
        const int64_t channels = spec.channels_last ? spec.channels : spec.planes % 4 ? spec.planes : spec.planes / 4;
        spec.betas = generator() % 2 ? 1 : channels;
        if (fits && input_count(spec) < kLargest) return spec;
    }
}

// A float in the spec's element type.
[[maybe_unused]] void put(std::vector<char>& bytes, int64_t at, int64_t dtype, double value) {
    const float single = float(value);
    if (dtype == 0) reinterpret_cast<float*>(bytes.data())[at] = single;
    if (dtype == 1) reinterpret_cast<double*>(bytes.data())[at] = value;
    if (dtype == 2) {
        uint32_t word;
        __builtin_memcpy(&word, &single, sizeof word);
        reinterpret_cast<uint16_t*>(bytes.data())[at] = uint16_t(word >> 16);
    }
    if (dtype == 3) reinterpret_cast<poolswap::Float16*>(bytes.data())[at] = poolswap::Float16(single);
}

// As many betas as the spec asks for.
[[maybe_unused]] std::vector<double> random_betas(const poolswap::Spec& spec, std::initializer_list<double> from) {
    std::vector<double> betas(size_t(spec.betas));
    for (double& beta : betas) beta = from.begin()[generator() % from.size()];
    return betas;
}

[[maybe_unused]] std::vector<char> random_tensor(int64_t count, int64_t dtype, double scale, double offset, bool special) {
    std::vector<char> bytes(size_t(count * (dtype == 0 ? 4 : dtype == 1 ? 8 : 2)));
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < count; ++i) {
        double value = normal(generator) * scale + offset;
        if (special && generator() % 50 == 0) value = generator() % 2 ? INFINITY : -INFINITY;
        if (special && generator() % 99 == 0) value = NAN;
        put(bytes, i, dtype, value);
    }
    return bytes;
}

}  // namespace
