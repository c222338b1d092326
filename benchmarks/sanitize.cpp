// Runs the kernels over random geometries with buffers of exactly the tensors' sizes, for AddressSanitizer and
// UndefinedBehaviorSanitizer to watch. benchmarks/check_kernel.sh builds and runs it: sanitize [seed] [problems]
#include <cstdio>
#include <cstdlib>

#include "problems.h"

#define POOLSWAP_SPACE_(isa) poolswap::isa
#define POOLSWAP_SPACE(isa) POOLSWAP_SPACE_(isa)

namespace POOLSWAP_SPACE(POOLSWAP_ISA) {
extern const poolswap::Isa kIsa;
}

int main(int count, char** arguments) {
    const uint64_t seed = count > 1 ? strtoull(arguments[1], nullptr, 10) : 0;
    const int problems = count > 2 ? atoi(arguments[2]) : 2000;
    for (int i = 0; i < problems; ++i) {
        generator.seed(seed * 1000003 + uint64_t(i));
        const poolswap::Spec spec = draw();
        const double scale = pick({1, 1, 1, 20, 1000}), offset = double(pick({0, 0, 0, 50, -3000}));
        const auto betas = random_betas(spec, {1, 1, 1, 0, -1, 30, 1e-12, 3e38});
        const bool special = generator() % 5 == 0;
        const auto x = random_tensor(input_count(spec), spec.dtype, scale, offset, special);
        const auto g = random_tensor(output_count(spec), spec.dtype, generator() % 9 == 0 ? 1e30 : 1, 0, special);
        std::vector<char> y(g.size()), dx(x.size());
        std::vector<double> dbetas(generator() % 2 ? betas.size() : 0);
        const int64_t threads = pick({1, 2, 3});
        const auto& isa = POOLSWAP_SPACE(POOLSWAP_ISA)::kIsa;
        if (isa.forward(&spec, betas.data(), x.data(), y.data(), threads) ||
            isa.backward(&spec, betas.data(), g.data(), x.data(), dx.data(), dbetas.empty() ? nullptr : dbetas.data(), threads)) {
            std::printf("problem %d of seed %llu was refused\n", i, static_cast<unsigned long long>(seed));
            return 1;
        }
    }
    std::printf("%d problems without a finding\n", problems);
    return 0;
}
