"""`poolswap bench`: the operator, or a whole model, against what torch has."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poolswap.cli.options import ForceOption
from poolswap.cli.output import JsonOption, Output, QuietOption

if TYPE_CHECKING:
    from poolswap.bench import Case


class Device(StrEnum):
    """`--device`."""

    CPU = "cpu"
    CUDA = "cuda"


def bench(
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="N,C,H,W", help="Input of the operator; also N,C,L and N,C,T,H,W. [four usual]"
        ),
    ] = None,
    kernel: Annotated[int, typer.Option("--kernel", min=1, help="Kernel size, with --shape.")] = 3,
    stride: Annotated[int | None, typer.Option("--stride", min=1, help="Stride, with --shape. [the kernel]")] = None,
    padding: Annotated[int, typer.Option("--padding", min=0, help="Padding, with --shape.")] = 0,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="MODEL", help="A whole model before and after the swap.")
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option("--batch-size", min=1, help="Batch size, with --model. [1, 8]")
    ] = None,
    layers: Annotated[str, typer.Option(help="Sites to swap, with --model: as in convert.")] = "all",
    repeats: Annotated[int, typer.Option(min=2, help="Rounds; each times every contestant once.")] = 21,
    device: Annotated[Device, typer.Option(help="Where to time it.")] = Device.CPU,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads. [torch's own choice]")] = None,
    compile_peer: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Time torch.compile of the formula in average pools too.")
    ] = True,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every row as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the medians: .png, .svg, .pdf.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time SoftPool against max and average pooling: the operator, or whole models with --model."""
    import torch

    from poolswap.bench import STANDARD_CASES, bench_model, bench_operator, report
    from poolswap.bench.environment import environment
    from poolswap.bench.environment import threads as with_threads
    from poolswap.errors import InputError
    from poolswap.files import atomic_path, check_writable, write_text

    output = Output(json=as_json, quiet=quiet)
    if device is Device.CUDA and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA or ROCm device", "poolswap env lists the devices")
    if model and shape:
        raise InputError("--model and --shape are two benchmarks", "run them one after the other")
    for path in filter(None, (csv, plot)):
        check_writable(path, force=force)
    cases = [_case(text, kernel, stride, padding) for text in shape] if shape else list(STANDARD_CASES)
    with with_threads(threads):
        about = environment(device.value)
        rows: report.Rows
        if model:
            sizes = batch_size or [1, 8]
            with output.progress("models", 2 * len(sizes) * len(model)) as advance:
                rows = [
                    row
                    for name in model
                    for row in bench_model(
                        name, sizes, layers=layers, device=device.value, repeats=repeats, progress=advance
                    )
                ]
            output.table(str(about), report.MODEL_COLUMNS, report.model_table(rows))
        else:
            with output.progress("operator", sum(len(case.layouts) for case in cases)) as advance:
                rows = bench_operator(
                    cases, device=device.value, repeats=repeats, compiled=compile_peer, progress=advance
                )
            output.table(str(about), report.OPERATOR_COLUMNS, report.operator_table(rows))
    output.json({"environment": about, "rows": rows})
    if csv:
        write_text(csv, report.to_csv(rows), force=force)
    if plot:
        with atomic_path(plot, force=force) as temporary:
            report.save_picture(rows, temporary)


def _case(text: str, kernel: int, stride: int | None, padding: int) -> Case:
    from poolswap.bench import Case
    from poolswap.errors import InputError

    sizes = text.replace("x", ",").split(",")
    if len(sizes) not in (3, 4, 5) or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(f"--shape {text!r} is not N,C,H,W", "write for example --shape 8,64,112,112")
    case = Case(tuple(int(size) for size in sizes), kernel, stride or kernel, padding)
    try:
        case.geometry().output_size(case.shape[2:])
    except ValueError as error:
        raise InputError(f"{case}: {error}", "choose --kernel, --stride and --padding that fit the shape") from error
    return case
