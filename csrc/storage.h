// Element types as they lie in memory, and their conversion to the type that is computed in.
#pragma once

#include "float16.h"
#include "vec.h"

namespace poolswap::POOLSWAP_ISA {

struct BFloat16 {
    uint16_t bits;

    POOLSWAP_INLINE static float widen(BFloat16 value) {
        const uint32_t word = uint32_t(value.bits) << 16;
        float wide;
        memcpy(&wide, &word, sizeof wide);
        return wide;
    }
    // Round to nearest even; NaN stays NaN.
    POOLSWAP_INLINE static BFloat16 narrow(float value) {
        uint32_t word;
        memcpy(&word, &value, sizeof word);
        const uint32_t rounded = (word + 0x7FFFu + ((word >> 16) & 1u)) >> 16;
        return {uint16_t((word & 0x7FFFFFFFu) > 0x7F800000u ? (word >> 16) | 0x40u : rounded)};
    }
};

template <class T>
struct Storage {
    using Compute = T;
};
template <>
struct Storage<BFloat16> {
    using Compute = float;
};
template <>
struct Storage<Float16> {
    using Compute = float;
};
template <class T>
using Compute = typename Storage<T>::Compute;

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

template <class To, class From>
POOLSWAP_INLINE To convert(From value) {
    if constexpr (kSame<From, BFloat16>)
        return To(BFloat16::widen(value));
    else if constexpr (kSame<To, BFloat16>)
        return BFloat16::narrow(value);
    else
        return To(value);
}

template <class To, class From>
POOLSWAP_INLINE void convert_row(To* to, const From* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = convert<To>(from[i]);
}

}  // namespace poolswap::POOLSWAP_ISA
