"""`poolswap bench`: the operator, or a whole model, against what torch has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolswap.cli.options import ForceOption, TrustCodeOption
from poolswap.cli.output import Output

if TYPE_CHECKING:
    from poolswap.bench import Case


EXAMPLES = (
    "poolswap bench --shape 8,64,112,112 --kernel 3 --stride 2 --padding 1",
    "poolswap bench --model resnet50 --batch-size 8 --plot resnet50.png",
)


def bench(
    output: Output,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="N,C,H,W",
            help="Input of the operator; also N,C,L and N,C,T,H,W.",
            show_default="seven usual",
        ),
    ] = None,
    kernel: Annotated[int, typer.Option("--kernel", min=1, help="Kernel size, with --shape.")] = 3,
    stride: Annotated[
        int | None, typer.Option("--stride", min=1, help="Stride, with --shape.", show_default="the kernel")
    ] = None,
    padding: Annotated[int, typer.Option("--padding", min=0, help="Padding, with --shape.")] = 0,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="MODEL", help="A whole model before and after the swap.")
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", min=1, help="Images in a batch, with --model.", show_default="1, 8"),
    ] = None,
    layers: Annotated[str, typer.Option(metavar="SELECTOR", help="As in convert, with --model.")] = "all",
    repeats: Annotated[int, typer.Option(min=2, help="Rounds; each times every contestant once.")] = 21,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to time it.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.", show_default="torch's choice")] = None,
    compile_peer: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Time torch.compile of the formula in average pools too.")
    ] = True,
    csv: Annotated[Path | None, typer.Option(help="Write every row as CSV.", rich_help_panel="Output")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the medians: .png, .svg, .pdf.", rich_help_panel="Output")
    ] = None,
    trust_code: TrustCodeOption = False,
    force: ForceOption = False,
) -> None:
    """Time SoftPool against torch's pools, alone or in a model."""
    from poolswap.surgery.syntax import check_selector

    check_selector(layers)  # before torch is imported
    from poolswap.bench import STANDARD_CASES, bench_model, bench_operator, report
    from poolswap.bench.environment import environment
    from poolswap.bench.environment import threads as with_threads
    from poolswap.environment import find_device
    from poolswap.errors import InputError
    from poolswap.files import atomic_path, check_writable, write_text

    find_device(device)
    if model and shape:
        raise InputError("--model and --shape are two benchmarks", "run them one after the other")
    for path in filter(None, (csv, plot)):
        check_writable(path, force=force)
    if plot:
        report.check_plot(plot)
    cases = [_case(text, kernel, stride, padding) for text in shape] if shape else list(STANDARD_CASES)
    with with_threads(threads):
        about = environment(device)
        rows: report.Rows
        if model:
            sizes = batch_size or [1, 8]
            with output.progress("models", 2 * len(sizes) * len(model)) as advance:
                rows = [
                    row
                    for name in model
                    for row in bench_model(
                        name,
                        sizes,
                        layers=layers,
                        device=device,
                        repeats=repeats,
                        trust_code=trust_code,
                        progress=advance,
                    )
                ]
            output.table(str(about), report.MODEL_COLUMNS, report.model_table(rows), spare=report.MODEL_SPARE)
        else:
            with output.progress("operator", sum(len(case.layouts) for case in cases)) as advance:
                rows = bench_operator(cases, device=device, repeats=repeats, compiled=compile_peer, progress=advance)
            if output.whole:
                table = report.operator_table(rows)
                output.table(str(about), report.OPERATOR_COLUMNS, table, spare=report.OPERATOR_SPARE)
            else:
                table = report.summary_table(rows)
                output.table(str(about), report.SUMMARY_COLUMNS, table, spare=report.SUMMARY_SPARE)
                output.note("best, worst: soft_pool's time over max pooling's, by the values in the tensors")
                output.note("every contestant with each of them: -v, or --csv FILE")
    output.document({"environment": about, "rows": rows})
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
