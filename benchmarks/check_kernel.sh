#!/bin/sh
# Checks of the C++ kernel that need a compiler and minutes:
#   benchmarks/check_kernel.sh witness             tries the shared shift's witness on all 2^32 floats
#   benchmarks/check_kernel.sh sanitize [seed] [n] n random geometries under ASan and UBSan
#   benchmarks/check_kernel.sh fuzz [seed] [n]     n hostile and n legal problems for the C interface, under both
# ISA=baseline, x86_64_v3 or x86_64_v4 takes another variant than this machine's best; CXX another compiler.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source="$here/../csrc"
check=${1:?witness, sanitize or fuzz}
shift
compiler=${CXX:-g++}
if [ -z "${ISA:-}" ]; then
    ISA=baseline
    if grep -qsw avx2 /proc/cpuinfo; then ISA=x86_64_v3; fi
    if grep -qsw avx512vl /proc/cpuinfo; then ISA=x86_64_v4; fi
fi
case $ISA in
    x86_64_v3) march="-march=x86-64-v3" ;;
    x86_64_v4) march="-march=x86-64-v4" ;;
    *) march="" ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
flags="-std=c++17 $march -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wall -Wno-psabi -fopenmp"
flags="$flags -I$source"
sanitized="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"

echo "$check, $ISA" >&2
case $check in
    witness)
        # shellcheck disable=SC2086
        $compiler $flags -DPOOLSWAP_ISA=$ISA -O3 "$here/prove_witness.cpp" -o "$folder/check"
        "$folder/check"
        ;;
    sanitize)
        # shellcheck disable=SC2086
        $compiler $flags -DPOOLSWAP_ISA=$ISA $sanitized \
            "$here/sanitize.cpp" "$source/kernel.cpp" -o "$folder/check"
        "$folder/check" "$@"
        ;;
    fuzz)
        # The interface's only variant here is called baseline, whichever instructions it has.
        # shellcheck disable=SC2086
        $compiler $flags -DPOOLSWAP_ISA=baseline $sanitized \
            "$here/fuzz.cpp" "$source/dispatch.cpp" "$source/kernel.cpp" -o "$folder/check"
        "$folder/check" "$@"
        ;;
    *)
        echo "unknown check $check: witness, sanitize or fuzz" >&2
        exit 2
        ;;
esac
