"""A package that AOTInductor compiled for this machine's CPU."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.utils._pytree import tree_leaves

from poolswap.errors import InputError, first_line
from poolswap.export.job import Arguments, Job, Runner
from poolswap.export.trace import program, quiet


def write(job: Job, path: Path) -> None:
    """Compile and package. Raises InputError where there is no C++ compiler, or it fails."""
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        with quiet():
            get_cpp_compiler()
    except Exception as error:
        raise InputError("aoti needs a C++ compiler", "install g++, or try the format pt2") from error
    traced = program(job)
    try:
        with quiet():
            aoti_compile_and_package(
                traced,
                package_path=str(path),
                inductor_configs={"aot_inductor.metadata": job.metadata},
            )
    except Exception as error:
        raise InputError(f"AOTInductor cannot compile the model: {first_line(error)}", "try the format pt2") from error


def runner(job: Job, path: Path) -> Runner:
    """The loaded package."""
    from torch._inductor import aoti_load_package

    with quiet():
        package = aoti_load_package(str(path))

    def run(arguments: Arguments) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(package(*arguments)) if isinstance(leaf, Tensor)]

    return run
