// The compiler's half precision type, under one name.
#pragma once

namespace poolswap {

#if defined(__aarch64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
using Float16 = __fp16;  // g++ 12 knows _Float16 in C alone there
#else
using Float16 = _Float16;
#endif

}  // namespace poolswap
