"""`poolswap evaluate`: accuracy, calibration and shift consistency of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from poolswap.cli.data import (
    EVALUATION_COLUMNS,
    BatchSizeOption,
    DataOption,
    DeviceOption,
    DownloadOption,
    OnBadImage,
    OnBadImageOption,
    RootOption,
    WorkersOption,
    default_device,
    evaluation_row,
    load_all,
)
from poolswap.cli.options import (
    CheckpointOption,
    InChansOption,
    InputSizeOption,
    ModelArgOption,
    ModelArgument,
    NumClassesOption,
    PretrainedOption,
    SeedOption,
    TrustCodeOption,
)
from poolswap.cli.output import JsonOption, Output, QuietOption


def evaluate(
    model: ModelArgument,
    data: DataOption,
    shift: Annotated[int, typer.Option(min=0, help="Pixels of the translation; 0 leaves that measure out.")] = 1,
    min_top1: Annotated[
        float | None, typer.Option("--min-top1", metavar="PERCENT", help="Exit with 1 where top-1 is lower.")
    ] = None,
    batch_size: BatchSizeOption = 64,
    workers: WorkersOption = 0,
    on_bad_image: OnBadImageOption = OnBadImage.FATAL,
    root: RootOption = None,
    download: DownloadOption = False,
    device: DeviceOption = None,
    pretrained: PretrainedOption = False,
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    num_classes: NumClassesOption = None,
    in_chans: InChansOption = None,
    input_size: InputSizeOption = None,
    model_args: ModelArgOption = None,
    trust_code: TrustCodeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a model on validation images: top-1, top-5, loss, calibration, shift consistency, speed."""
    from poolswap.adapt import evaluate, loaders
    from poolswap.errors import CheckError

    output = Output(json=as_json, quiet=quiet)
    place = default_device(device)
    net, spec, plan, images = load_all(
        model,
        data,
        root=root,
        download=download,
        trust_code=trust_code,
        pretrained=pretrained,
        checkpoint=checkpoint,
        seed=seed,
        num_classes=num_classes,
        in_chans=in_chans,
        input_size=input_size,
        model_args=model_args,
    )
    _, loader = loaders(images, batch_size, workers, on_bad_image=on_bad_image.value)
    with output.progress("evaluating", len(loader)) as advance:
        found = evaluate(net, loader, shift=shift, device=place, advance=advance)
    output.json({"model": spec, "data": images.name, "replaced": plan.paths, **found.model_dump()})
    title = f"{spec.reference} on {found.images} images of {images.name}, {len(plan.paths)} pools replaced"
    output.table(title, EVALUATION_COLUMNS, [evaluation_row(found)])
    if found.bad_images and on_bad_image is OnBadImage.COUNT:
        output.warn(f"{found.bad_images} images could not be read: {loader.bad[0]}")
    if min_top1 is not None and found.top1 < min_top1:
        raise CheckError(f"top-1 is {found.top1:.2f}%, below {min_top1:g}%", "poolswap finetune recovers accuracy")
