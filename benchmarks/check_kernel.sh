#!/bin/sh
# Checks of the C++ kernel that need a compiler:
#   benchmarks/check_kernel.sh agree [seed] [n]     n random problems against the definition in double
#   benchmarks/check_kernel.sh exponential          the encoder of csrc/sums.h on all 2^32 floats; minutes
#   benchmarks/check_kernel.sh sanitize [seed] [n]  n random problems under ASan and UBSan
#   benchmarks/check_kernel.sh fuzz [seed] [n]      n hostile and n legal problems for the C interface, under both
#   benchmarks/check_kernel.sh aarch64 [seed] [n]   `agree` for 64-bit ARM, under emulation; two minutes. On Debian:
#                                                   apt-get install g++-aarch64-linux-gnu qemu-user
# ISA=baseline, x86_64_v3 or x86_64_v4 takes another variant than this machine's best; CXX another compiler.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source="$here/../csrc"
check=${1:?agree, exponential, sanitize, fuzz or aarch64}
shift
compiler=${CXX:-g++}
if [ -z "${ISA:-}" ]; then
    ISA=baseline
    if grep -qsw avx2 /proc/cpuinfo; then ISA=x86_64_v3; fi
    if grep -qsw avx512vl /proc/cpuinfo; then ISA=x86_64_v4; fi
fi
[ "$check" != aarch64 ] || ISA=baseline
case $ISA in
    x86_64_v3) march="-march=x86-64-v3" ;;
    x86_64_v4) march="-march=x86-64-v4" ;;
    *) march="" ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
flags="-std=c++17 $march -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-signed-zeros"
flags="$flags -Wall -Wno-psabi -fopenmp -I$source"
sanitized="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"

echo "$check, $ISA" >&2
case $check in
    agree)
        # shellcheck disable=SC2086
        $compiler $flags -DPOOLSWAP_ISA=$ISA -O2 "$here/agree.cpp" "$source/kernel.cpp" -o "$folder/check"
        "$folder/check" "$@"
        ;;
    exponential)
        # shellcheck disable=SC2086
        $compiler $flags -DPOOLSWAP_ISA=$ISA -O3 "$here/prove_exponential.cpp" -o "$folder/check"
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
        ASAN_OPTIONS=allocator_may_return_null=1 "$folder/check" "$@"
        ;;
    aarch64)
        # shellcheck disable=SC2086
        ${CXX:-aarch64-linux-gnu-g++} $flags -DPOOLSWAP_ISA=$ISA -O2 -static \
            "$here/agree.cpp" "$source/kernel.cpp" -o "$folder/check"
        qemu-aarch64 "$folder/check" "${1:-0}" "${2:-400}"
        ;;
    *)
        echo "unknown check $check: agree, exponential, sanitize, fuzz or aarch64" >&2
        exit 2
        ;;
esac
