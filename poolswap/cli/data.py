"""Options of the commands that run on images, and what they name: a model with its plan, and its data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolswap.cli.options import load

if TYPE_CHECKING:
    from torch import nn

    from poolswap.adapt import Data, EpochRow, Evaluation, FinetuneResult, Recipe
    from poolswap.cli.output import Output
    from poolswap.models.load import ModelSpec
    from poolswap.surgery.plan import Plan


class OnBadImage(StrEnum):
    """`--on-bad-image`."""

    FATAL = "fatal"
    SKIP = "skip"
    COUNT = "count"


DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="digits, a folder with train/CLASS/ and val/CLASS/, or a reader of timm: hfds/NAME, torch/NAME, wds/...",
        show_default=False,
    ),
]
RootOption = Annotated[Path | None, typer.Option("--root", metavar="DIR", help="Where a reader keeps its data.")]
DownloadOption = Annotated[bool, typer.Option("--download", help="Let a reader fetch its data.")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images in a batch.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Processes that read images.")]
OnBadImageOption = Annotated[
    OnBadImage, typer.Option("--on-bad-image", help="An image that cannot be read ends the command, or is left out.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ... [cuda where there is one]")]


def load_all(
    model: str,
    data: str,
    *,
    root: Path | None,
    download: bool,
    fit_classes: bool = False,
    trust_code: bool = False,
    **options: Any,
) -> tuple[nn.Module, ModelSpec, Plan, Data]:
    """(model, its spec, the plan it was swapped by, data of its size).

    `fit_classes` gives a new model as many classes as the data has; `options` are those of `poolswap.cli.options.load`.
    """
    from poolswap.adapt import load_data
    from poolswap.load import is_checkpoint_path
    from poolswap.manifest import read_manifest
    from poolswap.surgery.plan import Plan

    place: dict[str, Any] = {"root": root, "download": download}
    if fit_classes and options.get("num_classes") is None and not is_checkpoint_path(model):
        options["num_classes"] = load_data(data, **place).num_classes
    net, spec = load(model, trust_code=trust_code, **options)
    if is_checkpoint_path(model):
        plan = read_manifest(model).plan
        plan.run_files()  # as loading it did
    else:
        plan = Plan(model=spec.reference, input_size=spec.input_size)
    images = load_data(data, input_size=spec.input_size, model=net, num_classes=spec.num_classes, **place)
    return net, spec, plan, images


def default_device(device: str | None) -> str:
    """The device that was asked for, or the GPU, or the CPU. Raises InputError for a name that torch does not know."""
    import torch

    from poolswap.errors import InputError, first_line

    try:
        torch.empty(0, device=torch.device(device or "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {first_line(error)}", "poolswap env lists the devices") from None
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def is_first_process() -> bool:
    """Whether this is the process that prints, where accelerate launch or torchrun started several."""
    return os.environ.get("RANK", "0") == "0"


EVALUATION_COLUMNS = ["top-1", "top-5", "loss", "shift consistency", "calibration error", "images/s"]


def evaluation_row(found: Evaluation) -> list[object]:
    """The columns of EVALUATION_COLUMNS."""
    return [found.top1, found.top5, found.loss, found.shift_consistency, found.ece, found.throughput]


def train(
    output: Output,
    net: nn.Module,
    data: Data,
    recipe: Recipe,
    out: Path,
    *,
    spec: ModelSpec,
    plan: Plan,
    **options: Any,
) -> FinetuneResult:
    """Run `finetune` with a bar, a line for every epoch, and the learning curve where matplotlib is installed."""
    from poolswap.adapt import finetune
    from poolswap.adapt.curve import draw_curve
    from poolswap.errors import MissingExtraError

    def show(row: EpochRow) -> None:
        beta = "" if row.beta is None else f"  mean beta {row.beta:.3g}"
        output.note(
            f"epoch {row.epoch:>{len(str(recipe.epochs))}}/{recipe.epochs}  loss {row.train_loss:.4f}  "
            f"validation {row.val_loss:.4f}  top-1 {row.top1:.2f}%{beta}  {row.seconds:.1f} s"
        )

    updates = recipe.epochs * (len(data.train) // recipe.batch_size)
    with output.progress("training", updates) as advance:
        result = finetune(net, data, recipe, out, spec=spec, plan=plan, on_epoch=show, advance=advance, **options)
    if is_first_process():
        try:
            draw_curve(result.rows, out / "curve.png", title=f"{spec.reference} on {data.name}")
        except MissingExtraError as error:
            output.note(f"no curve.png: {error.message}; {error.hint}")
    return result


def epoch_table(output: Output, rows: Sequence[EpochRow]) -> None:
    """All epochs, as data."""
    output.table(
        None,
        ["epoch", "lr", "training loss", "validation loss", "top-1", "mean beta", "seconds"],
        [[r.epoch, r.lr, r.train_loss, r.val_loss, r.top1, r.beta, r.seconds] for r in rows],
    )
