"""Swapped model -> a file in one of the formats, verified before it is given its name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from poolswap.errors import CheckError, InputError, first_line
from poolswap.export.formats import Format, find_format
from poolswap.export.int8 import Images, Int8, judge, quantize
from poolswap.export.job import Job
from poolswap.export.parity import LONGER, TOLERANCE, Parity, measure_parity
from poolswap.export.speed import Speed, measure_speed
from poolswap.export.timm_folder import WEIGHTS
from poolswap.files import check_writable, exists_already, partial_folder, put
from poolswap.inputs import evaluating, fitted, make_inputs, outputs_of
from poolswap.manifest import Manifest, read_manifest
from poolswap.surgery.swap import restore
from poolswap.versions import versions


class ExportReport(BaseModel):
    """What was written, how far it is from the model, and how fast it runs; kept beside the file as PATH.json.

    `options` are those that were asked for, of `opset`, `dynamic_size`, `fused` and `branch`. `parity` is empty where
    nothing was verified; in 8 bits it is of the file before it was quantised.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    format: str
    runtime: str
    options: dict[str, int | bool] = {}
    bytes: int
    parity: tuple[Parity, ...]
    tolerance: float
    int8: Int8 | None = None
    speed: Speed | None = None
    versions: dict[str, str]

    @property
    def difference(self) -> float | None:
        """The largest relative difference, or None where nothing was verified."""
        return max((p.difference for p in self.parity), default=None)


def default_path(checkpoint: Path, to: str, *, int8: bool = False) -> Path:
    """The checkpoint's name with the format's suffix, beside it."""
    suffixes = find_format(to).suffixes
    stem = checkpoint.name.removesuffix(".safetensors")
    suffix = ".aoti.pt2" if to == "aoti" else suffixes[0] if suffixes else "-timm"
    return checkpoint.with_name(stem + ".int8" * int8 + suffix)


def check_export(path: Path, to: str, *, force: bool = False, **options: int | bool | None) -> Format:
    """The format of this name. Raises what `export_model` would without the model: for names, options, packages."""
    form = find_format(to)
    form.check_options(_asked(options))
    if options.get("branch") and options.get("dynamic_size"):
        raise InputError("the branch is made for known sizes", "leave out branch=True or dynamic_size=True")
    form.check_name(path)
    form.check_available()
    _check_place(path, form, force=force)
    return form


def _asked(options: dict[str, int | bool | None]) -> dict[str, int | bool]:
    return {name: value for name, value in options.items() if value}


def export_model(
    model: nn.Module,
    manifest: Manifest,
    path: Path | str,
    *,
    to: str = "onnx",
    opset: int | None = None,
    dynamic_size: bool = False,
    fused: bool = False,
    branch: bool = False,
    verify: bool = True,
    tolerance: float | None = None,
    bench: bool = False,
    int8: Images | None = None,
    force: bool = False,
) -> ExportReport:
    """Write the model as `load_checkpoint` or `save_checkpoint` know it, and hold the file against it.

    `opset`, `dynamic_size`, `fused` and `branch` are options of some formats (`poolswap.export.FORMATS`); `branch` puts
    a cheaper form of SoftPool under a condition on its input. `tolerance` is relative to the largest output; its
    default depends on the dtype. `int8` are the images that ONNX in 8 bits is calibrated on and judged by. Raises
    CheckError beyond the tolerance, and then leaves no file; InputError for what cannot be exported, named or written;
    MissingExtraError.
    """
    path = Path(path)
    options = {"opset": opset, "dynamic_size": dynamic_size, "fused": fused, "branch": branch}
    form = check_export(path, to, force=force, int8=int8 is not None, **options)
    form.check_dtype(manifest.dtype)
    if int8 and manifest.dtype != "float32":
        raise InputError(f"8 bits are made of float32, and the checkpoint is {manifest.dtype}", "leave out int8=")
    allowed = TOLERANCE[manifest.dtype] if tolerance is None else tolerance
    with evaluating(model), _folder_for(path, form, force=force) as folder:
        arguments = _arguments(model, manifest, dynamic_size=dynamic_size)
        job = Job(model, manifest, arguments, opset, dynamic_size, fused, branch)
        _check_sizes(job)
        draft = folder / path.name
        form.write(job, draft)
        parity = _verified(form, job, draft, allowed) if verify else []
        quantized = _quantized(form, job, draft, int8) if int8 else None
        report = ExportReport(
            path=str(path),
            format=form.name,
            runtime=form.runtime,
            options=_asked(options),
            bytes=sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
            parity=tuple(parity),
            tolerance=allowed,
            int8=quantized,
            speed=_speed(form, job, draft, int8) if bench else None,
            versions=versions(),
        )
        beside = report.model_copy(update={"path": path.name})
        (folder / f"{path.name}.json").write_text(beside.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def _check_sizes(job: Job) -> None:
    """Raise InputError where sizes are to vary, and the model itself takes one alone."""
    if job.dynamic_size:
        try:
            outputs_of(job.model, (job.resized(2, longer=LONGER), {}))
        except Exception as error:
            raise InputError(
                f"{job.manifest.model.reference} does not run {LONGER} longer than its input size: {first_line(error)}",
                "leave out dynamic_size=True",
            ) from error


def _verified(form: Format, job: Job, draft: Path, tolerance: float) -> list[Parity]:
    try:
        run = form.runner(job, draft)
    except Exception as error:
        hint = "the format pt2 runs wherever torch does; verify=False writes the file without running it"
        raise CheckError(f"{form.runtime} does not load the exported file: {first_line(error)}", hint) from error
    parity = measure_parity(job, run)
    worst = max(parity, key=lambda p: p.difference)
    if worst.difference > tolerance:
        raise CheckError(
            f"the exported file differs by {worst.difference:.1e} (relative) on {worst.input}, batch {worst.batch}",
            f"more than {tolerance:g} is not accepted, and nothing was written; tolerance= accepts more",
        )
    return parity


def _quantized(form: Format, job: Job, draft: Path, images: Images) -> Int8:
    """The file rewritten in 8 bits, and what that cost."""
    before = form.runner(job, draft)
    count = quantize(draft, images, job.manifest.plan.paths)
    return judge(before, form.runner(job, draft), images, count)


def _speed(form: Format, job: Job, draft: Path, int8: Images | None) -> Speed:
    """Against the stock model, exported and run in the same way."""
    stock = deepcopy(job.model)
    restore(stock)
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / draft.name
        baseline = replace(job, model=stock)
        form.write(baseline, other)
        if int8:
            quantize(other, int8)
        return measure_speed(form.runner(job, draft), form.runner(baseline, other), job.arguments)


def _arguments(model: nn.Module, manifest: Manifest, *, dynamic_size: bool) -> tuple[Tensor, ...]:
    """Two of what forward takes: noise of the input size, or of the example's, if that is batches of one size."""
    inputs, name = manifest.inputs, manifest.model.reference
    if inputs is None:
        args, kwargs = fitted(model, make_inputs(model, manifest.model.input_size, 2))
        if kwargs or not all(isinstance(x, Tensor) for x in args):
            raise InputError(f"{name} takes more than tensors, which no format here holds")
        return tuple(args)
    given = tree_leaves(inputs)
    nested = len(given) > 1 and not (isinstance(inputs, (list, tuple)) and len(inputs) == len(given))
    if nested or not all(isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 1 for x in given):
        raise InputError(f"{name} takes more than batches of images, which no format here holds")
    if len({len(x) for x in given}) > 1:
        raise InputError(f"the inputs of {name} are batches of different sizes, which no format here holds")
    if dynamic_size and len(given) > 1:
        raise InputError(f"the sizes of the {len(given)} inputs of {name} cannot vary", "leave out dynamic_size=True")
    args, _ = fitted(model, (tuple(torch.randn(2, *x.shape[1:]) for x in given), {}))
    return tuple(args)


@contextmanager
def _folder_for(path: Path, form: Format, *, force: bool) -> Iterator[Path]:
    """An empty folder beside `path`; what the block leaves there is moved out when it ends well, `path` last.

    Nothing is removed from a folder that is there already: its files are replaced by those of the same names.
    """
    _check_place(path, form, force=force)
    with partial_folder(path) as folder:
        yield folder
        for file in folder.rglob("*"):
            place = path.parent / file.relative_to(folder)
            if file.is_file() and place.parent.is_dir():
                check_writable(place, force=force)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            put(file, path.parent / file.name, force=force)


def _check_place(path: Path, form: Format, *, force: bool) -> None:
    if form.suffixes or not path.exists():
        check_writable(path, force=force)
    elif not force:
        raise exists_already(path)
    elif path.is_dir():
        _check_exported(path)
    else:
        raise InputError(f"{path} is a file, where {form.name} makes a folder", "name another place")


def _check_exported(folder: Path) -> None:
    """Raise InputError for a folder that holds something, but no checkpoint of poolswap's: it is somebody else's."""
    if not any(folder.iterdir()):
        return
    try:
        read_manifest(folder / WEIGHTS)
    except InputError as error:
        raise InputError(f"{folder} is a folder that no export made", "name another place") from error
