"""The one table of export formats, and what the help, the docs and the tests are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from poolswap.errors import InputError, MissingExtraError, closest
from poolswap.export.job import Job, Runner


@dataclass(frozen=True)
class Format:
    """One format: its module has `write(job, path)`, which makes the file, and `runner(job, path)`, which loads it.

    `suffixes` are what its file may end in, the default first; none means a folder. `needs` are the packages that the
    extra brings. `options` are those of `export_model` that it heeds. `refuses` are dtypes that its runtime lacks.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    runtime: str
    extra: str | None = None
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()

    def check_available(self) -> None:
        """Raise MissingExtraError where a package is not installed."""
        for package in self.needs:
            if self.extra and find_spec(package) is None:
                raise MissingExtraError(package, self.extra)

    def check_name(self, path: Path) -> None:
        """Raise InputError for a name that does not end as the format's files do."""
        if self.suffixes and not path.name.endswith(self.suffixes):
            raise InputError(
                f"{path.name} must end in {' or '.join(self.suffixes)}", f"name it {path.stem}{self.suffixes[0]}"
            )

    def check_options(self, asked: dict[str, Any]) -> None:
        """Raise InputError for an option that the format has no use for."""
        for name in asked:
            if name not in self.options:
                takers = ", ".join(f.name for f in FORMATS.values() if name in f.options)
                raise InputError(f"{self.name} takes no {name}=", f"it is for {takers}")

    def check_dtype(self, dtype: str, hint: str = "the format pt2 keeps it") -> None:
        """Raise InputError for a precision that no file of this format could be run in."""
        if dtype in self.refuses:
            raise InputError(f"{self.runtime} does not run {dtype}, the checkpoint's precision", hint)

    def write(self, job: Job, path: Path) -> None:
        """Make the file, or the folder, at `path`; files that belong to it go beside it."""
        self._function("write")(job, path)

    def runner(self, job: Job, path: Path) -> Runner:
        """What runs the file in its own runtime."""
        made: Runner = self._function("runner")(job, path)
        return made

    def _function(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(f"poolswap.export.{self.name.replace('-', '_')}"), name)
        return function


_TABLE = (
    Format(
        "onnx",
        "ONNX, standard operators only",
        (".onnx",),
        "onnxruntime",
        extra="onnx",
        needs=("onnx", "onnxruntime", "onnxscript"),
        options=("opset", "dynamic_size", "branch", "int8"),
        refuses=("bfloat16",),
    ),
    Format("pt2", "torch.export program", (".pt2",), "torch.export.load", options=("dynamic_size", "fused")),
    Format("aoti", "compiled AOTInductor package", (".pt2",), "AOTInductor", options=("dynamic_size",)),
    Format(
        "openvino",
        "OpenVINO IR, .xml and .bin",
        (".xml",),
        "OpenVINO",
        extra="openvino",
        needs=("openvino", "onnx", "onnxscript"),
        options=("dynamic_size", "branch"),
        refuses=("bfloat16",),
    ),
    Format("state-dict", "bare weights", (".pt", ".safetensors"), "torch, strict load into the swapped model"),
    Format("timm-folder", "config.json, weights, model card", (), "poolswap.load_model"),
)
FORMATS = {format.name: format for format in _TABLE}


def find_format(name: str) -> Format:
    """The format of this name. Raises InputError with the closest names."""
    if name not in FORMATS:
        close = closest(name, FORMATS, n=2) or list(FORMATS)
        raise InputError(f"unknown format {name!r}", f"try one of: {', '.join(close)}")
    return FORMATS[name]
