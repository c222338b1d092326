"""List the innermost vector loops of a kernel's object file, with the cycles that their operations take at least.

    cmake -S csrc -B build && cmake --build build
    python benchmarks/loops.py build/CMakeFiles/x86_64_v4.dir/kernel.cpp.o 'ThreeForward<2, float>'

Needs objdump. The bound is for a processor of the Zen 4 family, by throughputs measured there for 512 bits: in a cycle
it begins one multiplication (fused or not), one addition or comparison, and two operations in all. A load takes a
cycle, a store two, and `vscalefps` occupies the adders for two.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections import Counter
from collections.abc import Iterator

KINDS = {
    "multiply": re.compile(r"vf?n?m(add|sub)|vmul"),
    "scale": re.compile(r"vscalef"),
    "add": re.compile(r"vadd|vsub|vmax|vmin|vcmp|vrcp"),
}
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")


def kind_of(name: str, operands: str) -> str:
    """What an instruction occupies: `move` is renaming alone."""
    if name.startswith(("vmov", "vbroadcast")):
        return "move" if "(" not in operands else "store" if operands.rstrip().endswith(")") else "load"
    return next((kind for kind, pattern in KINDS.items() if pattern.match(name)), "other")


def innermost(function: str, least: int) -> Iterator[list[tuple[int, str, str]]]:
    """The instructions of every loop with `least` vector instructions that contains no other such loop."""
    matches = [m for line in function.splitlines()[1:] if (m := INSTRUCTION.match(line))]
    code = [(int(m[1], 16), m[2], m[3]) for m in matches]
    at = {address: index for index, (address, _, _) in enumerate(code)}
    loops = []
    for index, (_, name, operands) in enumerate(code):
        target = re.match(r"([0-9a-f]+)\b", operands) if name.startswith("j") else None
        begin = at.get(int(target[1], 16), index) if target else index
        if sum(name.startswith("v") for _, name, _ in code[begin:index]) >= least:
            loops.append((begin, index))
    for begin, end in loops:
        if not any((a, b) != (begin, end) and begin <= a and b <= end for a, b in loops):
            yield code[begin : end + 1]


def cycles(count: Counter[str]) -> float:
    """The least that one turn of a loop takes."""
    adders = count["add"] + 2 * count["scale"]
    slots = (count["multiply"] + adders + count["other"]) / 2
    return max(count["multiply"], adders, slots, count["load"], 2 * count["store"])


def main() -> None:
    """Print a line for each loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("object", help="what the compiler made of kernel.cpp for x86_64_v4")
    parser.add_argument("function", help="part of its name")
    parser.add_argument("--least", type=int, default=30, metavar="N", help="vector instructions of a loop to be shown")
    options = parser.parse_args()
    command = ["objdump", "-dC", "--no-show-raw-insn", options.object]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for function in re.split(r"\n(?=[0-9a-f]+ <)", listing):
        if options.function not in function.partition("\n")[0]:
            continue
        for loop in innermost(function, options.least):
            vector = [(name, operands) for _, name, operands in loop if name.startswith("v")]
            count = Counter(kind_of(name, operands) for name, operands in vector)
            count["load"] += sum("(" in operands for name, operands in vector if kind_of(name, operands) in KINDS)
            kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(count.items()) if kind != "move")
            print(f"{loop[0][0]:#x}: {kinds}; at least {cycles(count):.0f} cycles")


if __name__ == "__main__":
    main()
