"""`poolswap finetune`: training after a swap, or from scratch."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from poolswap.cli.following import following, resumable
from poolswap.cli.options import DataOption, ForceOption, Model, ModelArgument, SeedOption, Source
from poolswap.cli.output import Output
from poolswap.cli.parsing import parse_pairs
from poolswap.cli.training import beta_row, epoch_lines, recipe_of

EXAMPLES = (
    "poolswap finetune soft.safetensors --data photos/ --epochs 2 --anneal 0.5",
    "poolswap finetune resnet18 --data digits --from-scratch --set mixup=0.2",
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """The fields of a recipe that have an option of their own."""

    panel: ClassVar[str] = "Recipe"

    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.", show_default="5")] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images in an update, over all processes.", show_default="64")
    ] = None
    opt: Annotated[str | None, typer.Option(metavar="NAME", help="timm's optimiser.", show_default="adamw")] = None
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default="0.001")] = None
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.", show_default="0.05")] = None
    layer_decay: Annotated[float | None, typer.Option(help="Smaller steps for earlier layers: 0.75.")] = None
    sched: Annotated[str | None, typer.Option(metavar="NAME", help="timm's schedule.", show_default="cosine")] = None
    warmup: Annotated[int | None, typer.Option(help="Epochs in which the rate rises.", show_default="0")] = None
    clip_grad: Annotated[float | None, typer.Option(help="Largest norm of a gradient.")] = None
    anneal: Annotated[
        float | None,
        typer.Option(help="Share of the training in which beta moves from the stock layer's.", show_default="0"),
    ] = None
    freeze: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Parameters to leave alone.")] = None
    ema: Annotated[
        float | None, typer.Option(help="Decay of an average of the weights, which is kept.", show_default="0")
    ] = None
    mixed_precision: Annotated[
        Literal["no", "fp16", "bf16"] | None, typer.Option(help="Compute in it.", show_default="no")
    ] = None
    tracker: Annotated[
        Literal["tensorboard", "wandb", "mlflow", "trackio"] | None, typer.Option(help="Also write the losses there.")
    ] = None
    state_every: Annotated[int | None, typer.Option(help="Also keep the state every N updates.")] = None


def finetune(
    model: ModelArgument,
    data: DataOption,
    weights: Model,
    source: Source,
    training: Training,
    output: Output,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe in YAML; options win over it.", rich_help_panel="Recipe")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other field of the recipe.", rich_help_panel="Recipe"),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="New random weights: train as the papers do.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in DIR, if there is one.")] = False,
    seed: SeedOption = None,
    folder: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the checkpoints and the state.", rich_help_panel="Output"
        ),
    ] = Path("finetuned"),
    force: ForceOption = False,
) -> None:
    """Train a model or a converted checkpoint; resumes after a kill.

    One device as it is; many with: accelerate launch -m poolswap finetune ..., or torchrun.
    """
    from poolswap.adapt import check_folder, finetune
    from poolswap.adapt import from_scratch as renew
    from poolswap.adapt.betas import draw_betas
    from poolswap.adapt.curve import draw_curve
    from poolswap.errors import InputError, MissingExtraError

    if source.device not in (None, "cpu"):
        raise InputError(f"--device {source.device} cannot be chosen here", "CUDA_VISIBLE_DEVICES chooses among GPUs")
    typed = {**asdict(training), **source.reading, "seed": seed}
    typed = {name: value for name, value in typed.items() if value is not None}
    settings = recipe_of(recipe, {**parse_pairs(setting or [], "--set"), **typed})
    first = os.environ.get("RANK", "0") == "0"  # where accelerate launch or torchrun started several processes
    if first:
        check_folder(folder, resume=resume, force=force)
    else:
        output = Output(quiet=True)
    net, spec, plan, example, images = source.load(weights, model, data, fit_classes=True, seed=settings.seed)
    if from_scratch:
        net, spec = renew(spec, plan, seed=settings.seed)
    updates = settings.epochs * (len(images.train) // settings.batch_size)
    again = "the same line with --resume goes on after the last epoch"
    with resumable(again), output.progress("training", updates) as advance:
        result = finetune(
            net,
            images,
            settings,
            folder,
            spec=spec,
            plan=plan,
            example=example,
            resume=resume,
            force=force,
            device=source.device,
            on_epoch=epoch_lines(output, settings),
            advance=advance,
        )
    if not first:
        return
    learnt = [layer for layer in result.betas if layer.learnt]
    try:
        draw_curve(result.rows, folder / "curve.png", title=f"{spec.reference} on {images.name}")
        if learnt:
            draw_betas(result.betas, folder / "betas.png", title=f"{spec.reference} on {images.name}")
    except MissingExtraError as error:
        output.note(f"no picture: {error.message}; {error.hint}")
    output.document(
        {"model": spec, "data": images.name, "replaced": plan.paths, "recipe": settings, **result.model_dump()}
    )
    output.table(
        None,
        ["epoch", "lr", "training loss", "validation loss", "top-1 %", "mean beta", "seconds"],
        [[r.epoch, r.lr, r.train_loss, r.val_loss, r.top1, r.beta, r.seconds] for r in result.rows],
    )
    if learnt:
        columns = ["layer", "was", "start", "lowest beta", "mean", "highest", "position (0 average, 1 max)"]
        output.table(None, columns, [beta_row(layer) for layer in learnt])
        output.note(f"drawn in {folder / 'betas.png'}")
    output.note(f"best top-1 {result.best.top1:.2f}% in epoch {result.best.epoch}: {result.best_path}")
    last = str(result.last_path)
    output.hint(following("evaluate", last, "--data", data) if plan.swaps else following("convert", last))
