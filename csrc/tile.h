// What a kernel is given: one tile of the problem, its rows in vectors, and memory.
#pragma once

#include "staging.h"
#include "sums.h"

namespace poolswap::POOLSWAP_ISA {

template <class F>
struct ForwardTile {
    const Problem& p;
    Pieces pieces;
    Range d, h;                // outputs
    Range input_d, input_h;    // inputs of their windows
    Rows<F> x, y;
    Arena arena;
};

template <class F>
struct BackwardTile {
    const Problem& p;
    Pieces pieces;
    Range d, h;                // inputs whose gradient is computed
    Range output_d, output_h;  // windows that may hold them
    Range input_d, input_h;    // inputs of those windows
    Rows<F> x, g, dx;
    Arena arena;
};

}  // namespace poolswap::POOLSWAP_ISA
