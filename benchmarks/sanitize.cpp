// Runs the kernels over random geometries with buffers of exactly the tensors' sizes, for AddressSanitizer and
// UndefinedBehaviorSanitizer to watch. benchmarks/check_kernel.sh builds and runs it: sanitize [seed] [problems]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "kernel.h"

#define POOLSWAP_SPACE_(isa) poolswap::isa
#define POOLSWAP_SPACE(isa) POOLSWAP_SPACE_(isa)

namespace POOLSWAP_SPACE(POOLSWAP_ISA) {
extern const poolswap::Isa kIsa;
}

namespace {

std::mt19937_64 generator;

int64_t pick(std::initializer_list<int64_t> values) {
    return values.begin()[generator() % values.size()];
}

// {in, out, kernel, stride, padding, dilation}; the output size is torch's, with or without ceil_mode.
bool draw_axis(int64_t (&axis)[6], bool usual, int64_t usual_kernel, int64_t usual_stride) {
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

poolswap::Spec draw() {
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
        const int64_t size = spec.planes * spec.channels * spec.axes[0][0] * spec.axes[1][0] * spec.axes[2][0];
        if (fits && size < 200000) return spec;
    }
}

// A float in the spec's element type.
void put(std::vector<char>& bytes, int64_t at, int64_t dtype, double value) {
    const float single = float(value);
    if (dtype == 0) reinterpret_cast<float*>(bytes.data())[at] = single;
    if (dtype == 1) reinterpret_cast<double*>(bytes.data())[at] = value;
    if (dtype == 2) {
        uint32_t word;
        __builtin_memcpy(&word, &single, sizeof word);
        reinterpret_cast<uint16_t*>(bytes.data())[at] = uint16_t(word >> 16);
    }
    if (dtype == 3) reinterpret_cast<_Float16*>(bytes.data())[at] = _Float16(single);
}

std::vector<char> random_tensor(int64_t count, int64_t dtype, double scale, double offset, bool special) {
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

int main(int count, char** arguments) {
    const uint64_t seed = count > 1 ? strtoull(arguments[1], nullptr, 10) : 0;
    const int problems = count > 2 ? atoi(arguments[2]) : 2000;
    for (int i = 0; i < problems; ++i) {
        generator.seed(seed * 1000003 + uint64_t(i));
        const poolswap::Spec spec = draw();
        int64_t in = spec.planes * spec.channels, out = in;
        for (const auto& axis : spec.axes) {
            in *= axis[0];
            out *= axis[1];
        }
        const double scale = pick({1, 1, 1, 20, 1000}), offset = double(pick({0, 0, 0, 50, -3000}));
        const double betas[] = {1, 1, 1, 0, -1, 30, 1e-12, 3e38};
        const double beta = betas[generator() % 8];
        const bool special = generator() % 5 == 0;
        const auto x = random_tensor(in, spec.dtype, scale, offset, special);
        const auto g = random_tensor(out, spec.dtype, generator() % 9 == 0 ? 1e30 : 1, 0, special);
        std::vector<char> y(g.size()), dx(x.size());
        const int64_t threads = pick({1, 2, 3});
        const auto& isa = POOLSWAP_SPACE(POOLSWAP_ISA)::kIsa;
        if (isa.forward(&spec, beta, x.data(), y.data(), threads) ||
            isa.backward(&spec, beta, g.data(), x.data(), dx.data(), threads)) {
            std::printf("problem %d of seed %llu was refused\n", i, static_cast<unsigned long long>(seed));
            return 1;
        }
    }
    std::printf("%d problems without a finding\n", problems);
    return 0;
}
