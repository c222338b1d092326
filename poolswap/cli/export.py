"""`poolswap export`: a checkpoint as a file for another runtime, verified there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolswap.cli.following import following
from poolswap.cli.options import CheckpointArgument, ForceOption, TrustCodeOption
from poolswap.cli.output import Output

EXAMPLES = (
    "poolswap export soft.safetensors --to onnx",
    "poolswap export soft.safetensors --to pt2 --dynamic-size -o net.pt2",
    "poolswap export soft.safetensors --branch --bench",
    "poolswap export soft.safetensors --int8 photos/",
)

BATCH = 16


def export(
    checkpoint: CheckpointArgument,
    output: Output,
    form: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="onnx, pt2, aoti, openvino, state-dict or timm-folder.")
    ] = "onnx",
    opset: Annotated[int | None, typer.Option(min=18, help="onnx: the operator set.", show_default="20")] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Let height and width vary too; the batch size always may.")
    ] = False,
    fused: Annotated[
        bool, typer.Option("--fused", help="pt2: keep poolswap's own operator; loading then needs poolswap.")
    ] = False,
    branch: Annotated[
        bool,
        typer.Option(
            "--branch", help="onnx, openvino: a faster SoftPool while activations are below 80, decided at run time."
        ),
    ] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Run the file against the model.")] = True,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Relative difference that still passes.", show_default="1e-4 in float32"),
    ] = None,
    bench: Annotated[bool, typer.Option("--bench", help="Time it beside the stock model's export.")] = False,
    int8: Annotated[
        str | None,
        typer.Option(
            "--int8",
            metavar="DATA",
            help="onnx: 8 bits, calibrated on the training images of digits, a folder, ... and judged on the others.",
        ),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file.", show_default="the checkpoint's name", rich_help_panel="Output"
        ),
    ] = None,
    trust_code: TrustCodeOption = False,
    force: ForceOption = False,
) -> None:
    """Write a checkpoint for another runtime, and run it there."""
    from poolswap.adapt import check_data, load_data, make_loader
    from poolswap.checkpoint import load_checkpoint
    from poolswap.errors import InputError
    from poolswap.export import Images, check_export, default_path, export_model

    target = path or default_path(checkpoint, form, int8=int8 is not None)
    options = {"opset": opset, "dynamic_size": dynamic_size, "fused": fused, "branch": branch}
    written = check_export(target, form, force=force, int8=int8 is not None, **options)
    if target.resolve() == checkpoint.resolve():
        raise InputError(f"{target} is the checkpoint itself, which would be lost", "name another file with -o")
    if int8:
        check_data(int8)
    model, manifest = load_checkpoint(checkpoint, trust_code=trust_code)
    written.check_dtype(manifest.dtype, following("export", checkpoint, "--to", "pt2"))
    images = None
    if int8:
        data = load_data(int8, input_size=manifest.model.input_size, model=model)
        images = Images(make_loader(data, "plain", BATCH), make_loader(data, "val", BATCH))
    report = export_model(
        model,
        manifest,
        target,
        to=form,
        opset=opset,
        dynamic_size=dynamic_size,
        fused=fused,
        branch=branch,
        verify=verify,
        tolerance=tolerance,
        bench=bench,
        int8=images,
        force=force,
    )
    output.document(report)
    if report.parity:
        rows = [[p.input, p.batch, f"{p.difference:.1e}"] for p in report.parity]
        output.table(None, ["input", "batch", "relative difference"], rows)
    else:
        output.warn(f"{report.path} was not run against the model")
    if report.int8:
        eight = report.int8
        output.note(
            f"int8: top-1 {eight.top1:.2f}%, {eight.top1_float:.2f}% before, on {eight.images} images; "
            f"{eight.agreement:.2f}% the same answers"
        )
    if report.speed:
        speed = report.speed
        output.note(
            f"{speed.milliseconds:.1f} ms a batch, the stock model's export {speed.stock_milliseconds:.1f} ms: "
            f"{speed.ratio:.2f} times"
        )
    output.note(f"saved {report.path} ({report.format}, {report.bytes / 1e6:.1f} MB)")
