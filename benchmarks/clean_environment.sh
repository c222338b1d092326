#!/bin/sh
# What an empty environment makes of a wheel or a source archive, one line for each Python:
#   benchmarks/clean_environment.sh ARCHIVE PYTHON...
# pip installs it with what it depends on, the newest versions of that (5 GB, removed afterwards); resnet18 is converted,
# verified and run by the C++ kernel, and the OpenMP runtimes in that process are counted.
set -eu

archive=$(realpath "${1:?a wheel or a source archive}")
shift
for python in "$@"; do
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$python" -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$archive"
    cd "$folder" # not the checkout, which would be imported
    venv/bin/poolswap convert resnet18 --layers all --output soft.safetensors --quiet >/dev/null
    venv/bin/poolswap verify soft.safetensors --quiet >/dev/null
    venv/bin/python - "$(basename "$archive")" <<'END'
import platform
import sys
from pathlib import Path

import poolswap
import timm
import torch
import torchvision
from poolswap.ops import cpu

model, _ = poolswap.load_model("soft.safetensors")
model(torch.ones(2, 3, 224, 224))
loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
kernels = [path for path in loaded if "poolswap" in path and "site-packages" in path]
runtimes = [path for path in loaded if "libgomp" in path]
assert len(kernels) == len(runtimes) == 1, (kernels, runtimes)
libraries = ", ".join(f"{library.__name__} {library.__version__}" for library in (torch, torchvision, timm))
print(f"{sys.argv[1]}: Python {platform.python_version()}, {libraries}: {cpu.instruction_set()}, 1 libgomp", flush=True)
END
    cd /
    rm -rf "$folder"
done
