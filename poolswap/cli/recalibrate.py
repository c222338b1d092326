"""`poolswap recalibrate`: new BatchNorm statistics from unlabelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolswap.cli.following import following
from poolswap.cli.options import (
    Architecture,
    BatchSizeOption,
    CheckpointArgument,
    DataOption,
    ForceOption,
    SeedOption,
    Source,
    TrustCodeOption,
)
from poolswap.cli.output import Output
from poolswap.cli.training import EVALUATION_COLUMNS, evaluation_row

EXAMPLES = ("poolswap recalibrate soft.safetensors --data photos/ --batches 100",)


def recalibrate(
    checkpoint: CheckpointArgument,
    data: DataOption,
    source: Source,
    output: Output,
    batches: Annotated[int | None, typer.Option(min=1, help="Batches to look at.", show_default="one pass")] = None,
    path: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to save.", show_default="CHECKPOINT-recalibrated", rich_help_panel="Output"
        ),
    ] = None,
    batch_size: BatchSizeOption = 64,
    seed: SeedOption = None,
    trust_code: TrustCodeOption = False,
    force: ForceOption = False,
) -> None:
    """Estimate BatchNorm's statistics again, without labels."""
    from poolswap.adapt import recalibrate_beside_stock
    from poolswap.checkpoint import save_checkpoint
    from poolswap.errors import InputError
    from poolswap.files import check_writable
    from poolswap.load import is_checkpoint_path

    if not is_checkpoint_path(str(checkpoint)):
        raise InputError(f"{checkpoint} is not a checkpoint", "make one with poolswap convert MODEL")
    target = path or checkpoint.with_name(f"{checkpoint.stem}-recalibrated.safetensors")
    check_writable(target, force=force)
    place, seed = source.place, seed or 0
    net, spec, plan, example, images = source.load(Architecture(trust_code=trust_code), str(checkpoint), data)
    steps = min(batches or len(images.train), len(images.train) // batch_size)
    passes = 2 if plan.swaps else 1  # the stock twin is measured too
    with output.progress("measuring", passes * (2 * -(-len(images.val) // batch_size) + steps)) as advance:
        found = recalibrate_beside_stock(
            net,
            images,
            batches=batches,
            batch_size=batch_size,
            seed=seed,
            device=place,
            advance=advance,
            **source.reading,
        )
    if not found.layers:
        raise InputError(
            f"{spec.reference} has no BatchNorm to recalibrate", following("finetune", checkpoint, "--data", data)
        )
    how = {"batches": batches, "batch_size": batch_size, "seed": seed}
    recipe = {"recalibrated": {"data": images.name, **how}, "data": images.name, "top1": found.after.top1}
    save_checkpoint(net.cpu(), target, spec=spec, plan=plan, recipe=recipe, example=example, force=force)
    output.document({"checkpoint": target, **found.model_dump()})
    named = {
        "before": found.before,
        "after": found.after,
        "stock pools, before": found.stock_before,
        "stock pools, after": found.stock_after,
    }
    rows = [[name, *evaluation_row(one)] for name, one in named.items() if one is not None]
    title = f"{found.layers} BatchNorm layers recalibrated on {images.name}"
    output.table(title, ["", *EVALUATION_COLUMNS], rows)
    output.note(f"saved {target}")
    output.hint(following("finetune", target, "--data", data))
