"""`poolswap recalibrate`: new BatchNorm statistics from unlabelled images."""

from __future__ import annotations

from pathlib import Path
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
from poolswap.cli.options import ForceOption, TrustCodeOption
from poolswap.cli.output import JsonOption, Output, QuietOption


def recalibrate(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A poolswap checkpoint.")],
    data: DataOption,
    batches: Annotated[int | None, typer.Option(min=1, help="Batches to look at. [one pass]")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="[CHECKPOINT-recalibrated.safetensors]")] = None,
    batch_size: BatchSizeOption = 64,
    workers: WorkersOption = 0,
    on_bad_image: OnBadImageOption = OnBadImage.FATAL,
    root: RootOption = None,
    download: DownloadOption = False,
    device: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of images.")] = 0,
    trust_code: TrustCodeOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Estimate BatchNorm's statistics again on training images, without labels; prints before and after."""
    from poolswap.adapt import evaluate, loaders, recalibrate
    from poolswap.checkpoint import save_checkpoint
    from poolswap.errors import InputError
    from poolswap.files import check_writable
    from poolswap.load import is_checkpoint_path

    output = Output(json=as_json, quiet=quiet)
    if not is_checkpoint_path(checkpoint):
        raise InputError(f"{checkpoint} is not a checkpoint", "make one with poolswap convert MODEL --layers all")
    source = Path(checkpoint)
    target = out or source.with_name(f"{source.stem}-recalibrated.safetensors")
    check_writable(target, force=force)
    place = default_device(device)
    net, spec, plan, images = load_all(checkpoint, data, root=root, download=download, trust_code=trust_code)
    train, val = loaders(images, batch_size, workers, seed, on_bad_image.value)
    with output.progress("evaluating", len(val)) as advance:
        before = evaluate(net, val, device=place, advance=advance)
    with output.progress("recalibrating", min(batches or len(train), len(train))) as advance:
        layers = recalibrate(net, train, batches=batches, advance=advance)
    if not layers:
        raise InputError(
            f"{spec.reference} has no BatchNorm to recalibrate", "poolswap finetune CHECKPOINT --data DATA"
        )
    with output.progress("evaluating", len(val)) as advance:
        after = evaluate(net, val, device=place, advance=advance)
    recipe = {"recalibrated": {"data": images.name, "batches": batches, "batch_size": batch_size, "seed": seed}}
    save_checkpoint(net.cpu(), target, spec=spec, plan=plan, recipe=recipe, force=force)
    output.json({"checkpoint": target, "layers": layers, "before": before, "after": after})
    rows = [["before", *evaluation_row(before)], ["after", *evaluation_row(after)]]
    output.table(f"{layers} BatchNorm layers recalibrated on {images.name}", ["", *EVALUATION_COLUMNS], rows)
    output.note(f"saved {target}")
