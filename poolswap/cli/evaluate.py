"""`poolswap evaluate`: accuracy, calibration and shift consistency of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolswap.cli.following import following
from poolswap.cli.options import BatchSizeOption, DataOption, Model, ModelArgument, SeedOption, Source, SplitOption
from poolswap.cli.output import Output
from poolswap.cli.training import EVALUATION_COLUMNS, evaluation_row

EXAMPLES = (
    "poolswap evaluate soft.safetensors --data photos/",
    "poolswap evaluate resnet50 --pretrained --data photos/ --min-top1 75",
)


def evaluate(
    model: ModelArgument,
    data: DataOption,
    weights: Model,
    source: Source,
    output: Output,
    shift: Annotated[int, typer.Option(min=0, help="Pixels of the translation; 0 leaves that measure out.")] = 1,
    min_top1: Annotated[
        float | None, typer.Option("--min-top1", metavar="PERCENT", help="Exit with 1 where top-1 is lower.")
    ] = None,
    split: SplitOption = "val",
    batch_size: BatchSizeOption = 64,
    seed: SeedOption = None,
) -> None:
    """Measure accuracy, calibration, shift consistency, speed."""
    from poolswap.adapt import evaluate, make_loader
    from poolswap.errors import CheckError
    from poolswap.models.userfile import split_reference

    place = source.place
    net, spec, plan, _, images = source.load(weights, model, data, splits=[split], seed=seed or 0)
    loader = make_loader(images, split, batch_size, **source.reading)
    with output.progress("evaluating", len(loader)) as advance:
        found = evaluate(net, loader, shift=shift, device=place, advance=advance)
    output.document({"model": spec, "data": images.name, "split": split, "replaced": plan.paths, **found.model_dump()})
    title = f"{spec.reference} on {found.images} {split} images of {images.name}, {len(plan.paths)} pools replaced"
    output.table(title, EVALUATION_COLUMNS, [evaluation_row(found)])
    if split_reference(spec.reference) and Path(data).is_dir() and "crop_pct" not in source.transforms:
        output.note(
            "judged on the middle 87.5% of each side, as ImageNet's images are: --transform crop_pct=1 takes it whole"
        )
    if found.bad_images and source.on_bad_image == "count":
        output.warn(f"{found.bad_images} images could not be read: {loader.bad[0]}")
    if min_top1 is not None and found.top1 < min_top1:
        raise CheckError(
            f"top-1 is {found.top1:.2f}%, below {min_top1:g}%", following("finetune", model, "--data", data)
        )
