// Hostile and legal problems for the C interface, under AddressSanitizer and UndefinedBehaviorSanitizer: whatever it is
// given, it returns a status or a result, and touches nothing but the tensors. benchmarks/check_kernel.sh builds and
// runs it: fuzz [seed] [problems of each kind]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <memory>

#include "problems.h"
#include "validate.h"

extern "C" void __sanitizer_set_death_callback(void (*)());
extern "C" int poolswap_forward(const poolswap::Spec*, const double*, const void*, void*, int64_t);
extern "C" int poolswap_backward(const poolswap::Spec*, const double*, const void*, const void*, void*, double*, int64_t);

namespace {

constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kElement[] = {4, 8, 2, 2};
const void* const kSomewhere = reinterpret_cast<const void*>(64);  // aligned, and never to be read

int64_t hostile_number() {
    switch (generator() % 4) {
        case 0:
            return int64_t(generator() % 16) - 8;
        case 1:
            return pick({0, -1, 1, kMin, kMin + 1, kMax, kMax - 1});
        case 2: {
            const int64_t power = int64_t(1) << (generator() % 63);
            return (generator() % 2 ? power : -power) + int64_t(generator() % 3) - 1;
        }
        default:
            return int64_t(generator() % 200);
    }
}

// A legal problem with some of its numbers exchanged, or nothing but such numbers.
poolswap::Spec hostile() {
    poolswap::Spec spec = draw();
    if (generator() % 8 == 0) {
        spec.planes = hostile_number();
        spec.channels = hostile_number();
        for (auto& axis : spec.axes)
            for (int64_t& number : axis) number = hostile_number();
    }
    for (uint64_t changes = 1 + generator() % 4; changes > 0; --changes) {
        const uint64_t which = generator() % 23;
        int64_t* const leading[] = {&spec.dtype, &spec.channels_last, &spec.planes, &spec.channels, &spec.betas};
        (which < 5 ? *leading[which] : spec.axes[(which - 5) / 6][(which - 5) % 6]) = hostile_number();
    }
    return spec;
}

struct Seen {
    int refused = 0, ran = 0, large = 0, empty = 0;
    double slowest = 0;
};

// A buffer of exactly this size, so that the byte behind it is poisoned.
std::unique_ptr<char[]> buffer(int64_t count, int64_t dtype) {
    return std::unique_ptr<char[]>(new char[size_t(count * kElement[dtype])]);
}

const poolswap::Spec* running;  // what a sanitizer's report is about

bool fail(const char* what, int status, const poolswap::Spec& spec) {
    std::printf("%s: status %d; dtype %ld last %ld planes %ld channels %ld", what, status, long(spec.dtype),
                long(spec.channels_last), long(spec.planes), long(spec.channels));
    for (const auto& a : spec.axes)
        std::printf(" | in %ld out %ld kernel %ld stride %ld padding %ld dilation %ld", long(a[0]), long(a[1]),
                    long(a[2]), long(a[3]), long(a[4]), long(a[5]));
    std::printf("\n");
    return false;
}

// Both entries refuse the problem with the same status, whatever else they are given, and read and write nothing.
bool is_refused(const poolswap::Spec& spec, int64_t threads, int status) {
    void* const nothing = const_cast<void*>(kSomewhere);
    const auto betas = static_cast<const double*>(kSomewhere);
    const int forward = poolswap_forward(&spec, betas, nothing, nothing, threads);
    const int backward = poolswap_backward(&spec, betas, nothing, nothing, nothing, nullptr, threads);
    return (forward == status && backward == status) || fail("not refused alike", forward, spec);
}

bool runs(const poolswap::Spec& spec, int64_t threads, Seen& seen) {
    const int64_t dtype = spec.dtype;
    const auto drawn = random_betas(spec, {1, 1, 1, 0, -1, 30, 1e-12, 3e38, INFINITY, -INFINITY, NAN});
    const std::unique_ptr<double[]> betas(new double[drawn.size()]), dbetas(new double[drawn.size()]);
    std::copy(drawn.begin(), drawn.end(), betas.get());
    double* const learnt = generator() % 2 ? dbetas.get() : nullptr;
    const auto x = random_tensor(input_count(spec), dtype, 1, 0, generator() % 5 == 0);
    const auto g = random_tensor(output_count(spec), dtype, 1, 0, false);
    const auto y = buffer(output_count(spec), dtype), dx = buffer(input_count(spec), dtype);
    if (poolswap_forward(&spec, betas.get(), nullptr, y.get(), threads) != poolswap::kBadPointer ||
        poolswap_forward(&spec, nullptr, x.data(), y.get(), threads) != poolswap::kBadPointer ||
        poolswap_backward(&spec, betas.get(), g.data(), x.data(), dx.get() + 1, learnt, threads) != poolswap::kBadPointer)
        return fail("a bad pointer is taken", 0, spec);
    running = &spec;
    const std::clock_t start = std::clock();
    const int forward = poolswap_forward(&spec, betas.get(), x.data(), y.get(), threads);
    const int backward = poolswap_backward(&spec, betas.get(), g.data(), x.data(), dx.get(), learnt, threads);
    const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;  // of all threads, on a busy machine too
    if (seconds > seen.slowest) seen.slowest = seconds;
    if (seconds > 30) return fail("too slow", 0, spec);
    ++seen.ran;
    return (forward <= poolswap::kNoMemory && backward <= poolswap::kNoMemory) || fail("refused", forward, spec);
}

bool survives(const poolswap::Spec& spec, int64_t threads, Seen& seen) {
    const poolswap::Status status = poolswap::validate(&spec, static_cast<const double*>(kSomewhere), {kSomewhere}, threads);
    if (status != poolswap::kDone) {
        ++seen.refused;
        return is_refused(spec, threads, status);
    }
    if (poolswap::is_empty(spec)) {
        ++seen.empty;
        return is_refused(spec, threads, poolswap::kDone);
    }
    if (input_count(spec) > kLargest || output_count(spec) > kLargest || spec.betas > kLargest) {  // sound, and too large to be tried here
        ++seen.large;
        return true;
    }
    return runs(spec, threads, seen);
}

}  // namespace

int main(int count, char** arguments) {
    const uint64_t seed = count > 1 ? strtoull(arguments[1], nullptr, 10) : 0;
    const int problems = count > 2 ? atoi(arguments[2]) : 2000;
    Seen bad, good;
    __sanitizer_set_death_callback([] {
        if (running) fail("a sanitizer's finding", 0, *running);
        std::fflush(stdout);
    });
    if (poolswap_forward(nullptr, nullptr, kSomewhere, const_cast<void*>(kSomewhere), 1) != poolswap::kBadPointer) return 1;
    for (int i = 0; i < problems; ++i) {
        generator.seed(seed * 1000003 + uint64_t(i));
        const int64_t threads = pick({1, 2, 3});
        if (!survives(hostile(), generator() % 16 ? threads : hostile_number(), bad)) return 1;
        const int refused = good.refused;
        const poolswap::Spec legal = draw();
        if (!survives(legal, threads, good)) return 1;
        if (good.refused != refused) return fail("a legal problem is refused", 0, legal), 1;
    }
    std::printf("hostile: %d refused, %d empty, %d ran, %d too large to try; slowest %.2f s\n", bad.refused, bad.empty,
                bad.ran, bad.large, bad.slowest);
    std::printf("legal: %d ran, %d too large to try; slowest %.2f s\n", good.ran, good.large, good.slowest);
    return 0;
}
