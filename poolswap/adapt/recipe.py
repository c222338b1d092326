"""What training does, in full: the recipe is written into the checkpoints it makes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from poolswap.settings import Settings


class Recipe(Settings):
    """The settings of `finetune`. Together with the model and the data they determine the result.

    `batch_size` is images per update, over all processes and accumulated steps. `opt` and `sched` are timm's names.
    `anneal` is the share of the training in which SoftPool's beta moves from the stock layer to its own start;
    `beta_decay` pulls learnt betas back to theirs (see `adapt.betas.beta_penalty`). `freeze` are globs over parameter
    names. `ema` is the decay of an average of the weights (0: none), which is then what is evaluated and saved.
    `state_every` also keeps the training state every N updates, not only after each epoch.
    """

    noun: ClassVar[str] = "recipe"
    example: ClassVar[str] = "epochs: 5"

    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=64, ge=1)
    opt: str = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    sched: str = "cosine"
    warmup: int = Field(default=0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)
    clip_grad: float | None = Field(default=None, gt=0)
    loss: Literal["ce", "bce"] = "ce"
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    freeze: tuple[str, ...] = ()
    anneal: float = Field(default=0.0, ge=0, le=1)
    beta_decay: float = Field(default=0.0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**32)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    grad_accumulation: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    on_bad_image: Literal["fatal", "skip", "count"] = "fatal"
    state_every: int | None = Field(default=None, ge=1)
    tracker: Literal["tensorboard", "wandb", "mlflow", "trackio"] | None = None
