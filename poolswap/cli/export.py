"""`poolswap export`: a checkpoint as a file for another runtime, verified there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poolswap.cli.options import ForceOption, TrustCodeOption
from poolswap.cli.output import JsonOption, Output, QuietOption

if TYPE_CHECKING:
    from poolswap.export import ExportReport


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A poolswap checkpoint.")],
    to: Annotated[str, typer.Option(help="onnx, pt2, aoti, openvino, state-dict or timm-folder.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The file. [the checkpoint's name, the format's suffix]")
    ] = None,
    opset: Annotated[int | None, typer.Option(min=18, help="onnx: the operator set. [20]")] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Let height and width vary too; the batch size always may.")
    ] = False,
    fused: Annotated[
        bool, typer.Option("--fused", help="pt2: keep poolswap's own operator; loading then needs poolswap.")
    ] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not run the file against the model.")] = False,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="Relative difference that still passes. [1e-4 in float32]")
    ] = None,
    bench: Annotated[bool, typer.Option("--bench", help="Time it beside the stock model's export.")] = False,
    trust_code: TrustCodeOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a checkpoint for another runtime, and run it there against the model before it gets its name."""
    from poolswap.checkpoint import load_checkpoint
    from poolswap.export import export_model
    from poolswap.export.export import default_path

    output = Output(json=as_json, quiet=quiet)
    target = out or default_path(checkpoint, to)
    model, manifest = load_checkpoint(checkpoint, trust_code=trust_code)
    report = export_model(
        model,
        manifest,
        target,
        to=to,
        opset=opset,
        dynamic_size=dynamic_size,
        fused=fused,
        verify=not no_verify,
        tolerance=tolerance,
        bench=bench,
        force=force,
    )
    output.json(report)
    print_report(output, report)


def print_report(output: Output, report: ExportReport) -> None:
    """The parity table, and what it comes to."""
    if report.parity:
        rows = [[p.input, p.batch, f"{p.difference:.1e}"] for p in report.parity]
        output.table(None, ["input", "batch", "relative difference"], rows)
    else:
        output.warn(f"{report.path} was not run against the model")
    if report.speed:
        speed = report.speed
        output.note(
            f"{speed.milliseconds:.1f} ms a batch, the stock model's export {speed.stock_milliseconds:.1f} ms: "
            f"{speed.ratio:.2f} times"
        )
    output.note(f"saved {report.path} ({report.format}, {report.bytes / 1e6:.1f} MB)")
