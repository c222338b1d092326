"""`poolswap finetune`: training after a swap, or from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from poolswap.cli.data import (
    DataOption,
    DownloadOption,
    OnBadImage,
    RootOption,
    epoch_table,
    is_first_process,
    load_all,
    train,
)
from poolswap.cli.options import (
    CheckpointOption,
    ForceOption,
    InChansOption,
    InputSizeOption,
    ModelArgOption,
    ModelArgument,
    NumClassesOption,
    PretrainedOption,
    TrustCodeOption,
)
from poolswap.cli.output import JsonOption, Output, QuietOption


def finetune(
    model: ModelArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the checkpoints and the state.")] = Path(
        "finetuned"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in DIR, if there is one.")] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="New random weights: train as the papers do.")
    ] = False,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="Recipe in YAML; options win over it.")] = None,
    epochs: Annotated[int | None, typer.Option(help="[5]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per update, over all processes. [64]")] = None,
    opt: Annotated[str | None, typer.Option(help="timm's name of an optimiser. [adamw]")] = None,
    lr: Annotated[float | None, typer.Option(help="[0.001]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[0.05]")] = None,
    layer_decay: Annotated[float | None, typer.Option(help="Smaller steps for earlier layers: 0.75.")] = None,
    sched: Annotated[str | None, typer.Option(help="timm's name of a schedule. [cosine]")] = None,
    warmup: Annotated[int | None, typer.Option(help="Epochs in which the rate rises. [0]")] = None,
    clip_grad: Annotated[float | None, typer.Option(help="Largest norm of a gradient.")] = None,
    anneal: Annotated[
        float | None, typer.Option(help="Share of the training in which beta moves from the stock layer's. [0]")
    ] = None,
    learn_beta: Annotated[bool | None, typer.Option("--learn-beta", help="Train beta too.")] = None,
    freeze: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Parameters to leave alone.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of an average of the weights, which is kept. [0]")] = None,
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, fp16 or bf16. [no]")] = None,
    tracker: Annotated[str | None, typer.Option(help="tensorboard, wandb, mlflow or trackio.")] = None,
    state_every: Annotated[int | None, typer.Option(help="Also keep the state every N updates.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other field of the recipe: mixup=0.2.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images. [0]")] = None,
    on_bad_image: Annotated[OnBadImage | None, typer.Option("--on-bad-image", help="[fatal]")] = None,
    root: RootOption = None,
    download: DownloadOption = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu leaves a GPU alone.")] = None,
    pretrained: PretrainedOption = False,
    checkpoint: CheckpointOption = None,
    num_classes: NumClassesOption = None,
    in_chans: InChansOption = None,
    input_size: InputSizeOption = None,
    model_args: ModelArgOption = None,
    trust_code: TrustCodeOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model or a converted checkpoint; keeps the best and the last weights, and goes on after a kill.

    One device as it is; many with: accelerate launch -m poolswap finetune ..., or torchrun.
    """
    from poolswap.adapt import Recipe
    from poolswap.adapt import from_scratch as renew
    from poolswap.errors import InputError
    from poolswap.models.load import parse_model_args

    first = is_first_process()
    output = Output(json=as_json and first, quiet=quiet or not first)
    if device not in (None, "cpu"):
        raise InputError(f"--device {device} cannot be chosen here", "CUDA_VISIBLE_DEVICES chooses among GPUs")
    given: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "opt": opt,
        "lr": lr,
        "weight_decay": weight_decay,
        "layer_decay": layer_decay,
        "sched": sched,
        "warmup": warmup,
        "clip_grad": clip_grad,
        "anneal": anneal,
        "learn_beta": learn_beta,
        "freeze": freeze,
        "ema": ema,
        "seed": seed,
        "mixed_precision": mixed_precision,
        "tracker": tracker,
        "state_every": state_every,
        "workers": workers,
        "on_bad_image": on_bad_image.value if on_bad_image else None,
    }
    fields = Recipe.fields(recipe)
    fields |= parse_model_args(setting or [], "setting")
    fields |= {key: value for key, value in given.items() if value is not None and value != []}
    settings = Recipe.make(fields)
    net, spec, plan, images = load_all(
        model,
        data,
        root=root,
        download=download,
        fit_classes=True,
        trust_code=trust_code,
        pretrained=pretrained,
        checkpoint=checkpoint,
        seed=settings.seed,
        num_classes=num_classes,
        in_chans=in_chans,
        input_size=input_size,
        model_args=model_args,
    )
    if from_scratch:
        net, spec = renew(spec, plan, seed=settings.seed)
    result = train(output, net, images, settings, out, spec=spec, plan=plan, resume=resume, force=force, device=device)
    if not first:
        return
    output.json({"model": spec, "data": images.name, "replaced": plan.paths, "recipe": settings, **result.model_dump()})
    epoch_table(output, result.rows)
    output.note(f"best top-1 {result.best.top1:.2f}% in epoch {result.best.epoch}: {result.best_path}")
